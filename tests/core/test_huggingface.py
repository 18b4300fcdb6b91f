"""What a Hugging Face folder says besides its weights, and everything that can be wrong with one."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from core.checkpoint import find, open_checkpoint
from core.checkpoint.reader import Reader
from core.engine.load import load
from core.errors import UserError
from core.options import LoadOptions
from tests.core.reading import read


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, stories: Path) -> Path:
    """A small random Llama as transformers saves it, in several files."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(vocab_size=512, **sizes, eos_token_id=[2, 5])
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="200KB")
    shutil.copy(stories / "tokenizer.model", folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "m")


def change(path: Path, **values: Any) -> None:
    """Put these into a JSON file, which may be new."""
    table = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(table | values))


def open_and_read(folder: Path) -> None:
    load(LoadOptions(str(folder), device="cpu"), lambda event: None, lambda: False)


class TestWhatIsRead:
    def test_stop_ids_of_both_files(self, folder: Path) -> None:
        change(folder / "generation_config.json", eos_token_id=[2, 7, 512, -1, "x"])
        change(folder / "config.json", eos_token_id=5)
        assert open_checkpoint(find(str(folder))).chat().stop_ids == {2, 5, 7}

    def test_the_template_and_its_tokens(self, folder: Path) -> None:
        assert open_checkpoint(find(str(folder))).chat().template is None
        settings = folder / "tokenizer_config.json"
        change(settings, chat_template="one", bos_token="<s>", eos_token={"content": "</s>", "lstrip": False})
        hints = open_checkpoint(find(str(folder))).chat()
        assert (hints.template, hints.bos, hints.eos) == ("one", "<s>", "</s>")
        several = [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]
        change(settings, chat_template=several)
        assert open_checkpoint(find(str(folder))).chat().template == "three"
        (folder / "chat_template.jinja").write_text("four")
        assert open_checkpoint(find(str(folder))).chat().template == "four"

    def test_one_of_its_files_stands_for_the_folder(self, folder: Path) -> None:
        assert find(str(next(folder.glob("*.safetensors")))) == find(str(folder))
        assert find(str(folder / "config.json")) == find(str(folder))

    def test_the_name_of_a_folder_in_the_hubs_cache(self, folder: Path, tmp_path: Path) -> None:
        snapshot = tmp_path / "models--HuggingFaceTB--SmolLM2-135M" / "snapshots" / "0123abcd"
        shutil.copytree(folder, snapshot)
        assert open_checkpoint(find(str(snapshot))).name == "SmolLM2-135M"
        assert open_checkpoint(find(str(folder))).name == "m"

    def test_metas_own_files_come_first(self, folder: Path, stories: Path) -> None:
        for name in ("params.json", "consolidated.00.pth"):
            shutil.copy(stories / name, folder)
        assert find(str(folder)).kind.value == "Meta"

    def test_a_tokenizer_can_be_given(self, folder: Path, stories: Path) -> None:
        (folder / "tokenizer.model").unlink()
        with pytest.raises(UserError, match=r"no tokenizer\.json or tokenizer\.model in it"):
            open_and_read(folder)
        options = LoadOptions(str(folder), str(stories / "tokenizer.model"), device="cpu")
        assert load(options, lambda event: None, lambda: False).tokenizer.vocab_size == 512

    def test_half_precision_stays_as_it_is(self, folder: Path) -> None:
        for path in folder.glob("*.safetensors"):
            save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
        checkpoint = open_checkpoint(find(str(folder)))
        assert checkpoint.stored_dtype == torch.bfloat16
        assert {tensor.dtype for tensor in read(checkpoint).values()} == {torch.bfloat16}

    def test_what_a_llama_does_not_have_is_noted(self, folder: Path) -> None:
        path = sorted(folder.glob("*.safetensors"))[0]
        extra = {
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8),
            "score.weight": torch.zeros(2),
        }
        save_file(load_file(path) | extra, path)
        (note,) = open_checkpoint(find(str(folder))).notes
        assert "'score.weight', which" in note


def first(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[0]


def config(**values: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "config.json", **values)


def rope(**values: Any) -> Callable[[Path], None]:
    return config(rope_parameters={"rope_theta": 10000.0} | values)


def weight_map(name: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        table = json.loads(index.read_text())
        table["weight_map"]["lm_head.weight"] = name
        index.write_text(json.dumps(table))

    return edit


def header(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Rewrite the header of the first file, its length included."""

    def apply(folder: Path) -> None:
        path = first(folder)
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        table = json.loads(data[8 : 8 + length])
        edit(table)
        new = json.dumps(table).encode()
        path.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + length :])

    return apply


def some(table: dict[str, Any]) -> dict[str, Any]:
    return next(value for name, value in table.items() if name != "__metadata__")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "another model": (config(model_type="qwen3"), "'qwen3' is not a Llama; give a Llama"),
    "no type": (config(model_type=None), "'a model without a type' is not a Llama"),
    "gptq": (config(quantization_config={"quant_method": "gptq"}), "quantised by 'gptq', which is not read"),
    "biases": (config(attention_bias=True), "attention_bias True is not read"),
    "gelu": (config(hidden_act="gelu"), "hidden_act 'gelu' is not read"),
    "yarn": (rope(rope_type="yarn", factor=4.0), "rope_type 'yarn' is not read, only default, linear and"),
    "dynamic, as it was": (config(rope_parameters={"type": "dynamic"}), "rope_type 'dynamic' is not read"),
    "rope a list": (config(rope_parameters=[1]), "rope_parameters is a list of 1, not an object"),
    "linear without factor": (rope(rope_type="linear"), "factor is 'missing', not a positive number"),
    "llama3 out of order": (
        rope(rope_type="llama3", factor=8.0, low_freq_factor=4.0, high_freq_factor=4.0),
        "the rotary bounds 4 and 4 are not in order",
    ),
    "no hidden size": (config(hidden_size=None), "hidden_size is 'missing'"),
    "endless layers": (config(num_hidden_layers=2**30), "do not make 1073741824 layers"),
    "more layers": (config(num_hidden_layers=3), r"no model\.layers\.2\."),
    "another width": (config(intermediate_size=97), "is 96 x 64, not 97 x 64 as config.json says"),
    "config no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json: not valid JSON"),
    "config deep": (lambda f: (f / "config.json").write_text("[" * 10**6), "config.json: not valid JSON"),
    "no weights": (lambda f: [path.unlink() for path in f.glob("*.safetensors")], "is missing; the download"),
    "pytorch_model.bin": (
        lambda f: (
            [f.joinpath(p.name).unlink() for p in f.glob("model*")] and (f / "pytorch_model.bin").touch()
        ),
        r"pytorch_model\.bin is not read: convert it",
    ),
    "a missing file": (lambda f: first(f).unlink(), "is missing; the download is not complete"),
    "no index": (
        lambda f: (f / "model.safetensors.index.json").unlink(),
        "but no model.*index",
    ),
    "an empty index": (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "no weight_map"),
    "a path out": (weight_map("../m/config.json"), "is not a file of this folder; do not trust"),
    "an absolute path": (weight_map("/etc/passwd"), "'/etc/passwd' is not a file of this folder"),
    "another system's path": (weight_map("..\\secret"), "is not a file of this folder"),
    "the folder itself": (weight_map(".."), "'..' is (not a file of this folder|missing)"),
    "a name without end": (weight_map("9" * 5000), "'9999.*is missing; the download is not complete"),
    "a name of nothing": (weight_map(""), "'' is not a file of this folder"),
    "a truncated file": (
        lambda f: os.truncate(first(f), first(f).stat().st_size - 1),
        "truncated or corrupt",
    ),
    "a truncated header": (lambda f: os.truncate(first(f), 100), "truncated or corrupt"),
    "an empty file": (lambda f: os.truncate(first(f), 0), "truncated or corrupt"),
    "a large header": (
        lambda f: first(f).write_bytes(struct.pack("<Q", 2**62) + first(f).read_bytes()[8:]),
        "truncated or corrupt",
    ),
    "bytes behind": (lambda f: first(f).write_bytes(first(f).read_bytes() + b"x"), "truncated or corrupt"),
    "overlapping": (header(lambda t: some(t).update(data_offsets=[0, 4])), "truncated or corrupt"),
    "a lying shape": (header(lambda t: some(t).update(shape=[2**40, 2**40])), "truncated or corrupt"),
    "an unknown type": (header(lambda t: some(t).update(dtype="F4")), "truncated or corrupt"),
    "whole numbers": (
        lambda f: save_file({n: t.to(torch.int8) for n, t in load_file(first(f)).items()}, first(f)),
        "in it; the download is not complete",
    ),
    "a template that is a number": (
        lambda f: change(f / "tokenizer_config.json", chat_template=1),
        "chat_template is not a text; fetch it again, or give --chat-format",
    ),
    "settings no JSON": (lambda f: (f / "tokenizer_config.json").write_text("}"), "not (valid|whole) JSON"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_line_with_the_way_out(folder: Path, case: str) -> None:
    breakage, message = BROKEN[case]
    breakage(folder)
    with pytest.raises(UserError, match=message) as caught:
        open_and_read(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    assert "; " in text or ", only" in text  # what is wrong; what to do


def test_a_file_that_shrinks_while_it_is_read(folder: Path) -> None:
    checkpoint = open_checkpoint(find(str(folder)))
    weight = checkpoint.weights["tok_embeddings.weight"]
    os.truncate(weight.parts[0].file.path, weight.parts[0].offset + 1000)
    with (
        Reader() as reader,
        pytest.raises(UserError, match=r"it ends at byte \d+, \d+ too early"),
    ):
        reader.fill(weight, torch.empty(weight.shape))
