"""Meta's layout: shards by the published rules, and everything that can be wrong with a folder."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from core.checkpoint import find, open_checkpoint
from core.checkpoint.meta import join_axis
from core.checkpoint.reader import Reader
from core.engine.events import Notice
from core.engine.generate import generate
from core.engine.load import load
from core.errors import UserError
from core.model.config import ModelConfig
from core.options import LoadOptions, Sampling
from core.sampling.sampler import Sampler
from core.text.dialogue import raw_prompt
from core.weights.survey import needs_asked
from tests.core.reading import read

Weights = dict[str, torch.Tensor]

# Where Meta's model-parallel layers split each weight (llama/model.py of Llama 2): columns of the
# output on dimension 0, rows of the input on 1, the embedding on its features, norms not at all.
SPLIT = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0, "output": 0, "tok_embeddings": 1}


def split(weights: Weights, count: int, rows_of_embedding: bool = False) -> list[Weights]:
    shards: list[Weights] = [{} for _ in range(count)]
    for name, tensor in weights.items():
        axis = SPLIT.get(name.split(".")[-2])
        if rows_of_embedding and name == "tok_embeddings.weight":
            axis = 0  # as Llama 3 does
        parts = [tensor] * count if axis is None else torch.tensor_split(tensor, count, dim=axis)
        for shard, part in zip(shards, parts, strict=True):
            shard[name] = part.clone()
    return shards


def write(folder: Path, shards: list[Weights], source: Path, **changes: object) -> Path:
    folder.mkdir(parents=True)
    params = json.loads((source / "params.json").read_text()) | changes
    (folder / "params.json").write_text(json.dumps({k: v for k, v in params.items() if v != "absent"}))
    shutil.copy(source / "tokenizer.model", folder)
    for i, shard in enumerate(shards):
        torch.save(shard, folder / f"consolidated.{i:02d}.pth")
    return folder


@pytest.fixture
def weights(stories: Path) -> Weights:
    return torch.load(stories / "consolidated.00.pth", weights_only=True)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("rows_of_embedding", [False, True], ids=["llama 2", "llama 3"])
def test_shards_merge_to_the_whole(
    stories: Path, weights: Weights, tmp_path: Path, count: int, rows_of_embedding: bool
) -> None:
    folder = write(tmp_path / "m", split(weights, count, rows_of_embedding), stories)
    got = read(folder)
    wanted = {name: tensor for name, tensor in weights.items() if name != "rope.freqs"}
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_shards_give_the_golden_tokens(stories: Path, weights: Weights, tmp_path: Path, count: int) -> None:
    folder = write(tmp_path / "m", split(weights, count), stories)
    options = LoadOptions(str(folder), dtype="float32", device="cpu", raw=True)
    engine = load(options, lambda event: None, lambda: False)
    tokens = generate(
        engine.runner,
        raw_prompt(engine.tokenizer, ""),
        Sampler(lambda: Sampling(temperature=0), 0),
        cancelled=lambda: False,
        on_prefill=lambda done: None,
    )
    golden = json.loads((stories / "golden_tokens.json").read_text())["greedy"]
    assert [choice.token for choice, _ in zip(tokens, golden, strict=False)] == golden


def test_a_tied_checkpoint_has_no_head_of_its_own(stories: Path, weights: Weights, tmp_path: Path) -> None:
    del weights["output.weight"]
    for count in (1, 2):
        folder = write(tmp_path / f"m{count}", split(weights, count), stories)
        engine = load(LoadOptions(str(folder), device="cpu"), lambda event: None, lambda: False)
        plan = engine.placement.plan
        assert (plan.needs.tied, plan.needs.embeddings) == (True, 0)
        rows = engine.model.tok_embeddings(torch.tensor([1, 511]))
        assert torch.equal(rows, weights["tok_embeddings.weight"][[1, 511]])
        assert engine.info.parameters == sum(t.numel() for n, t in weights.items() if n != "rope.freqs")


def test_unknown_names_are_noted_and_rope_freqs_is_nobodys_concern(
    stories: Path, weights: Weights, tmp_path: Path
) -> None:
    weights |= {"rope.freqs": torch.zeros(4), "layers.0.surprise": torch.zeros(1)}
    folder = write(tmp_path / "m", [weights], stories, colour="red")
    events: list[object] = []
    load(LoadOptions(str(folder), device="cpu"), events.append, lambda: False)
    (notice,) = (event for event in events if isinstance(event, Notice))
    assert "'layers.0.surprise', which a Llama does not have" in notice.text


@pytest.mark.parametrize(
    ("parts", "shape", "axis"),
    [
        ([(8, 4)], (8, 4), None),
        ([(8,), (8,)], (8,), None),
        ([(4, 4), (4, 4)], (8, 4), 0),
        ([(8, 2), (8, 2)], (8, 4), 1),
        ([(8, 3), (8, 1)], (8, 4), 1),
        ([(4, 2), (4, 2)], (8, 4), -1),
        ([(4, 4), (4, 4), (4, 4)], (8, 4), -1),
        ([(8,), (4,)], (8,), -1),
        ([(4, 4, 1), (4, 4, 1)], (8, 4), -1),
    ],
)
def test_the_axis_is_inferred_from_shapes(
    parts: list[tuple[int, ...]], shape: tuple[int, ...], axis: int
) -> None:
    assert join_axis(parts, shape) == axis


def test_sizes_that_params_leaves_out(stories: Path, weights: Weights, tmp_path: Path) -> None:
    config = open_checkpoint(find(str(stories))).config
    assert (config.vocab_size, config.hidden_dim, config.head_dim, config.rope_theta) == (
        512,
        172,
        8,
        10000.0,
    )
    one_head_each = write(tmp_path / "m", [weights], stories, n_kv_heads=None, n_heads=8)
    with pytest.raises(UserError, match=r"wk\.weight is 32 x 64 .* does not make 64 x 64"):
        open_checkpoint(find(str(one_head_each)))


def truncate(folder: Path) -> None:
    path = folder / "consolidated.00.pth"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(folder: Path) -> None:
    path = folder / "consolidated.00.pth"
    data = bytearray(path.read_bytes())
    data[: len(data) // 8] = b"\x00" * (len(data) // 8)
    path.write_bytes(bytes(data))


class Bomb:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.path,))


def bomb(folder: Path) -> None:
    torch.save({"tok_embeddings.weight": Bomb(folder / "exploded")}, folder / "consolidated.00.pth")


def params(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "params.json").write_text(text) and None


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such file or folder; .*--demo"),
    "no params.json": (
        lambda f: (f / "params.json").unlink(),
        "no params.json, no config.json and no GGUF file in this folder; give the folder",
    ),
    "no shard": (lambda f: (f / "consolidated.00.pth").unlink(), "params.json without consolidated.00.pth"),
    "gap": (
        lambda f: shutil.copy(f / "consolidated.00.pth", f / "consolidated.02.pth"),
        "shards 00, 02 are not",
    ),
    "params no JSON": (params("{dim: 64"), "params.json: not valid JSON"),
    "params a list": (params("[1]"), "params.json: not a JSON object"),
    "params without dim": (
        params('{"n_layers": 5}'),
        "params.json: dim is 'missing', not a whole number of at least 1",
    ),
    "params nonsense": (params('{"dim": "64"}'), "params.json: dim is '64', not a whole number of"),
    "params odd heads": (
        params('{"dim": 64, "n_layers": 5, "n_heads": 8, "n_kv_heads": 3}'),
        "n_heads 8 is not a multiple of n_kv_heads 3",
    ),
    "more layers than weights": (
        params('{"dim": 64, "n_layers": 6, "n_heads": 8, "n_kv_heads": 4}'),
        r"shard 00 has no layers\.5\.",
    ),
    "endless layers": (
        params('{"dim": 64, "n_layers": 2000000000, "n_heads": 8}'),
        "n_layers is 2000000000, but there are 4. tensors",
    ),
    "experts": (params('{"dim": 64, "moe": {"num_experts": 8}}'), "moe is given, which no plain Llama has"),
    "truncated": (truncate, r"consolidated\.00\.pth: truncated, or written by torch before 1.6; fetch it"),
    "empty": (lambda f: (f / "consolidated.00.pth").write_bytes(b""), "pth: truncated"),
    "text": (lambda f: (f / "consolidated.00.pth").write_text("hello" * 99), "pth: truncated"),
    "scribbled": (scribble, "truncated or corrupt"),
    "a bomb": (bomb, ".*getattr.*which could run code, and was not opened; fetch"),
    "from before zip": (
        lambda f: torch.save({}, f / "consolidated.00.pth", _use_new_zipfile_serialization=False),
        "written by torch before 1.6; fetch",
    ),
    "whole numbers": (
        lambda f: torch.save(
            {n: t.to(torch.int8) for n, t in torch.load(f / "consolidated.00.pth").items()},
            f / "consolidated.00.pth",
        ),
        "not a Llama in Meta's layout",
    ),
    "transposed": (
        lambda f: torch.save(
            {n: t.T if t.ndim == 2 else t for n, t in torch.load(f / "consolidated.00.pth").items()},
            f / "consolidated.00.pth",
        ),
        "is not stored row by row",
    ),
    "no tensors": (lambda f: torch.save({"a": 1}, f / "consolidated.00.pth"), "'a' is no tensor"),
    "a list": (
        lambda f: torch.save([torch.zeros(1)], f / "consolidated.00.pth"),
        "not a table of named tensors",
    ),
    "another model": (
        lambda f: torch.save({"x.weight": torch.zeros(1)}, f / "consolidated.00.pth"),
        "not a Llama in Meta's layout",
    ),
    "no tokenizer": (
        lambda f: (f / "tokenizer.model").unlink(),
        r"no tokenizer\.model beside it; give its path",
    ),
    "bad tokenizer": (lambda f: (f / "tokenizer.model").write_text("hello"), r"tokenizer\.model: "),
    "a second shard of another model": (
        lambda f: torch.save(
            {n: t[:3] for n, t in torch.load(f / "consolidated.00.pth").items()}, f / "consolidated.01.pth"
        ),
        "in 2 shard.s., which does not make",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_line_with_the_way_out(
    stories: Path, weights: Weights, tmp_path: Path, case: str
) -> None:
    folder = write(tmp_path / "m", [weights], stories)
    breakage, message = BROKEN[case]
    breakage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(LoadOptions(str(folder), device="cpu"), lambda event: None, lambda: False)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    assert ";" in text  # what is wrong; what to do
    assert not (folder / "exploded").exists()


def test_a_tokenizer_of_another_size_is_refused(stories: Path, shared_data: Path) -> None:
    options = LoadOptions(str(stories), str(shared_data / "llama2" / "tokenizer.model"), device="cpu")
    with pytest.raises(UserError, match="32000 tokens, but the embedding of stories260K has 512"):
        load(options, lambda event: None, lambda: False)


def test_a_device_that_is_too_small_is_said(stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr("core.engine.load.KVCache", full)
    with pytest.raises(UserError, match="stories260K with a context of 64 does not fit in the memory of cpu"):
        load(LoadOptions(str(stories), device="cpu", context=64), lambda event: None, lambda: False)


@pytest.mark.parametrize("name", ["consolidated.00.pth", "params.json"])
def test_a_file_of_the_folder_stands_for_it(stories: Path, name: str) -> None:
    assert find(str(stories / name)) == find(str(stories))


@pytest.mark.parametrize("path", ["x" * 5000, "~nobody-of-that-name/x", "a\0b", ""])
def test_paths_that_cannot_be(stories: Path, path: str) -> None:
    with pytest.raises(UserError, match=r"no such file or folder|no params\.json"):
        find(path)
    with pytest.raises(UserError, match="no such tokenizer"):
        find(str(stories), path)


def test_other_things_at_the_path(tmp_path: Path, stories: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config.json without \*.safetensors"):
        find(str(tmp_path))
    with pytest.raises(UserError, match=r"neither a GGUF file nor part of a model's folder"):
        find(str(stories / "tokenizer.model"))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_protocol_of_torch_save(stories: Path, weights: Weights, tmp_path: Path, protocol: int) -> None:
    folder = write(tmp_path / "m", [weights], stories)
    weights = {name: torch.nn.Parameter(tensor) for name, tensor in weights.items()}  # as some tools save
    torch.save(weights, folder / "consolidated.00.pth", pickle_protocol=protocol)
    got = read(folder)
    assert all(torch.equal(got[name], weights[name]) for name in got)


def test_views_of_one_storage(stories: Path, weights: Weights, tmp_path: Path) -> None:
    names = [name for name in weights if name.endswith("norm.weight")]
    shared = torch.cat([weights[name] for name in names])
    weights |= dict(zip(names, shared.split(64), strict=True))
    got = read(write(tmp_path / "m", [weights], stories))
    assert all(torch.equal(got[name], weights[name]) for name in names)


DEEP = b"\x80\x02}" + b")" + b"\x85" * 10**6 + b"K\x01s."  # a dict with a key of a million nested tuples


@pytest.mark.parametrize(
    "data",
    [
        DEEP,
        b"\x80\x02]r\xff\xff\xff\x7f.",  # memo index 2^31
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",  # bytes of 2^63
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02(i__builtin__\neval\n.",
    ],
)
def test_a_hostile_pickle(stories: Path, weights: Weights, tmp_path: Path, data: bytes) -> None:
    folder = write(tmp_path / "m", [weights], stories)
    with zipfile.ZipFile(folder / "consolidated.00.pth", "w") as archive:
        archive.writestr("archive/data.pkl", data)
    with pytest.raises(UserError, match=r"consolidated.00.pth: (truncated or corrupt|holds)"):
        open_checkpoint(find(str(folder)))


def test_a_file_that_shrinks_while_it_is_read(stories: Path, weights: Weights, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", [weights], stories)
    checkpoint = open_checkpoint(find(str(folder)))
    path = folder / "consolidated.00.pth"
    os.truncate(path, path.stat().st_size // 2)
    last = max(checkpoint.weights.values(), key=lambda weight: weight.parts[0].offset)
    with Reader() as reader, pytest.raises(UserError, match=r"00.pth: it ends at byte \d+, \d+ too early"):
        reader.fill(last, torch.empty(last.shape))


class TestReleases:
    """What Meta's params.json of each release leads to."""

    def config(self, stories: Path, weights: Weights, tmp_path: Path, **params: object) -> ModelConfig:
        return open_checkpoint(find(str(write(tmp_path / "m", [weights], stories, **params)))).config

    @pytest.mark.parametrize(
        ("params", "theta", "context"),
        [
            ({"norm_eps": 1e-6}, 10000, 2048),  # Llama 1
            ({"ffn_dim_multiplier": 1.3, "multiple_of": 4096}, 10000, 4096),  # Llama 2 70B
            ({"rope_theta": 1000000}, 1000000, 16384),  # Code Llama
            ({"rope_theta": 500000.0, "vocab_size": 512}, 500000, 8192),  # Llama 3
        ],
    )
    def test_theta_and_context(
        self, stories: Path, weights: Weights, tmp_path: Path, params: Any, theta: float, context: int
    ) -> None:
        config = self.config(stories, weights, tmp_path, **params)
        assert (config.rope_theta, config.max_context, config.rope_divisors) == (theta, context, ())

    def test_scaled_rope(self, stories: Path, weights: Weights, tmp_path: Path) -> None:
        # 64 wide, so as narrow as the 1B and 3B of Llama 3.2: the factor is 32.
        config = self.config(stories, weights, tmp_path, rope_theta=500000.0, use_scaled_rope=True)
        assert config.max_context == 131072
        rope = {
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        }  # fmt: skip
        theirs = ROPE_INIT_FUNCTIONS["llama3"](
            LlamaConfig(hidden_size=64, num_attention_heads=8, rope_parameters=rope), "cpu"
        )[0]
        plain = 500000.0 ** -(torch.arange(0, 8, 2, dtype=torch.float64) / 8)
        ours = plain / torch.tensor(config.rope_divisors, dtype=torch.float64)
        assert torch.allclose(ours.float(), theirs, rtol=1e-6)
        assert config.rope_divisors[0] == 1.0
        assert config.rope_divisors[-1] == 32.0

    def test_a_sliding_window_limits_the_context(
        self, stories: Path, weights: Weights, tmp_path: Path
    ) -> None:
        folder = write(tmp_path / "m", [weights], stories, sliding_window=1024)
        checkpoint = open_checkpoint(find(str(folder)))
        assert checkpoint.config.max_context == 1024
        assert "looks back 1024 tokens only" in checkpoint.notes[0]

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("llama-2-7b", "none"),
            ("llama-2-7b-chat", "llama2"),
            ("CodeLlama-7b-Instruct", "llama2"),
            ("mistral-7B-Instruct-v0.2", "mistral"),
            ("Llama-2-7b-chat-hf/original", "llama2"),
            ("models--meta-llama--Llama-2-7b-chat/snapshots/0a1b2c/original", "llama2"),
        ],
    )
    def test_the_format_goes_by_the_folders_name(
        self, stories: Path, weights: Weights, tmp_path: Path, name: str, expected: str
    ) -> None:
        checkpoint = open_checkpoint(find(str(write(tmp_path / name, [weights], stories))))
        assert checkpoint.chat().format == expected


def test_dtype_and_context_choices(stories: Path) -> None:
    config = open_checkpoint(find(str(stories))).config

    def chosen(dtype: str, stored: str, device: str, context: int | None = None) -> tuple[str, int]:
        options = LoadOptions(str(stories), dtype=dtype, context=context)
        needs = needs_asked(config, stored, options, device)
        return needs.dtype, needs.context

    assert chosen("auto", "float32", "cpu") == ("float32", 4096)
    assert chosen("auto", "float32", "cuda:0") == ("float16", 4096)
    assert chosen("auto", "bfloat16", "cuda:0") == ("bfloat16", 4096)
    assert chosen("float16", "float32", "cpu", 64) == ("float16", 64)
    with pytest.raises(UserError, match="--context 5000: this model's limit is 4096"):
        chosen("auto", "float32", "cpu", 5000)
