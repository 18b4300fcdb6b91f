from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.checkpoint.fields import Fields
from core.checkpoint.gguf import GGUFCheckpoint
from core.checkpoint.gguf_header import read_header
from core.checkpoint.layout import Kind, Layout
from core.checkpoint.source import SourceFile
from core.engine.generate import generate
from core.engine.load import Engine, load
from core.errors import UserError
from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.transformer import Transformer
from core.options import LoadOptions, Sampling
from core.sampling.sampler import Sampler
from core.text.dialogue import Turn, choose_format
from tests.core.reading import read

TOKENS = ["<|im_start|>", "<|im_end|>", *"abcdefgh", "ab"]
CONFIG = ModelConfig(
    dim=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, hidden_dim=96, vocab_size=len(TOKENS),
    norm_eps=0.5, rope_theta=5000.0, max_context=77,
)  # fmt: skip
NAMES = {
    "tok_embeddings.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "output.weight": "output.weight",
} | {
    f"layers.{i}.{meta}.weight": f"blk.{i}.{name}.weight"
    for i in range(CONFIG.n_layers)
    for meta, name in {
        "attention_norm": "attn_norm", "attention.wq": "attn_q", "attention.wk": "attn_k",
        "attention.wv": "attn_v", "attention.wo": "attn_output", "ffn_norm": "ffn_norm",
        "feed_forward.w1": "ffn_gate", "feed_forward.w2": "ffn_down", "feed_forward.w3": "ffn_up",
    }.items()
}  # fmt: skip

METADATA: dict[str, Any] = {
    "general.name": "Tiny",
    "llama.block_count": 2,
    "llama.context_length": 77,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 0.5,
    "llama.rope.freq_base": 5000.0,
    "llama.rope.dimension_count": 16,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3, 3] + [1] * 9,
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.add_bos_token": False,
}

Write = Callable[..., Path]


def weights(kinds: dict[str, Type] | None = None) -> dict[str, tuple[np.ndarray, Type]]:
    """Every weight of CONFIG under GGUF's names: float32 values, and the type to store them in."""
    random = np.random.default_rng(0)
    return {
        NAMES[name]: (random.standard_normal(shape, dtype=np.float32), (kinds or {}).get(name, Type.F32))
        for name, shape in CONFIG.shapes().items()
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a GGUF file with the gguf package; `changes` to the metadata, None leaves a key out."""

    def write(
        changes: dict[str, Any] | None = None,
        tensors: dict[str, tuple[np.ndarray, Type]] | None = None,
        architecture: str = "llama",
    ) -> Path:
        path = tmp_path / "tiny.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        for key, value in (METADATA | (changes or {})).items():
            if isinstance(value, bool):
                writer.add_bool(key, value)
            elif isinstance(value, int):
                writer.add_uint32(key, value)
            elif isinstance(value, float):
                writer.add_float32(key, value)
            elif isinstance(value, str):
                writer.add_string(key, value)
            elif value is not None:
                writer.add_array(key, value)
        for name, (values, kind) in (tensors or weights()).items():
            stored = gguf.quants.quantize(values, kind)
            writer.add_tensor(name, stored, raw_dtype=None if kind in (Type.F32, Type.F16) else kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def opened(path: Path) -> GGUFCheckpoint:
    return GGUFCheckpoint(Layout(Kind.GGUF, path, (path,), None, Fields(path, {})))


def read_all(path: Path) -> None:
    """Everything a load reads."""
    checkpoint = opened(path)
    checkpoint.tokenizer()
    read(checkpoint)


class TestWhatIsRead:
    def test_sizes_and_words(self, write: Write) -> None:
        checkpoint = opened(write())
        assert checkpoint.config == CONFIG
        assert (checkpoint.name, checkpoint.chat().template, checkpoint.notes) == ("tiny", None, ())
        assert checkpoint.stored_dtype == torch.float32

    def test_floats_come_out_as_they_went_in(self, write: Write) -> None:
        kinds = {"layers.0.attention.wq.weight": Type.F16, "layers.1.feed_forward.w2.weight": Type.BF16}
        source = weights(kinds)
        checkpoint = opened(write(tensors=source))
        got = read(checkpoint)
        assert {name: tuple(tensor.shape) for name, tensor in got.items()} == CONFIG.shapes()
        for name, tensor in got.items():
            values = torch.from_numpy(source[NAMES[name]][0])
            assert torch.equal(tensor, values.to(tensor.dtype)), name
        assert got["layers.0.attention.wq.weight"].dtype == torch.float16
        assert got["layers.1.feed_forward.w2.weight"].dtype == torch.bfloat16
        assert checkpoint.stored_dtype == torch.float16

    def test_quantised_weights_by_hand(self, write: Write) -> None:
        # Q8_0: blocks of 32 values, a float16 scale d and 32 signed bytes q; value = d q.
        # Q4_1: a float16 scale d, a float16 minimum m, 16 bytes with values 0-15 low and 16-31 high; d q + m.
        kinds = {"tok_embeddings.weight": Type.Q8_0, "layers.1.attention.wv.weight": Type.Q4_1}
        path = write(tensors=weights(kinds))
        got = read(opened(path), torch.float32)
        stored = {tensor.name: bytes(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
        q8 = [
            d * q for d, *qs in struct.iter_unpack("<e32b", stored["token_embd.weight"]) for q in qs
        ]  # fmt: skip
        q4 = [
            d * q + m
            for d, m, *qs in struct.iter_unpack("<2e16B", stored["blk.1.attn_v.weight"])
            for q in [*(byte & 15 for byte in qs), *(byte >> 4 for byte in qs)]
        ]
        for name, values in (("tok_embeddings.weight", q8), ("layers.1.attention.wv.weight", q4)):
            torch.testing.assert_close(got[name].flatten(), torch.tensor(values), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q5_0, Type.Q5_1])
    def test_other_quantised_types_are_near_their_source(self, write: Write, kind: Type) -> None:
        name = "layers.0.feed_forward.w1.weight"
        source = weights({name: kind})
        got = read(opened(write(tensors=source)), torch.float32)
        error = (got[name] - torch.from_numpy(source[NAMES[name]][0])).abs().max()
        assert 0 < error < 0.5

    def test_a_tied_head(self, write: Write) -> None:
        tensors = weights()
        del tensors["output.weight"]
        checkpoint = opened(write(tensors=tensors))
        assert checkpoint.config.tied
        assert "output.weight" not in checkpoint.weights

    def test_what_it_says_of_chatting(self, write: Write) -> None:
        ends = {"tokenizer.ggml.eot_token_id": 4, "tokenizer.ggml.eom_token_id": 5}
        hints = opened(write({"tokenizer.chat_template": "{{ messages }}"} | ends)).chat()
        assert (hints.template, hints.stop_ids) == ("{{ messages }}", {1, 4, 5})

    def test_a_padded_embedding(self, write: Write) -> None:
        tokens = [token for token in TOKENS if token != "h"]
        path = write({"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [3, 3] + [1] * 8})
        engine = load(LoadOptions(str(path), device="cpu"), lambda event: None, lambda: False)
        assert (engine.tokenizer.vocab_size, engine.model.config.vocab_size) == (10, 11)

    def test_an_embedding_that_is_too_small(self, write: Write) -> None:
        changes = {"tokenizer.ggml.tokens": [*TOKENS, "i"], "tokenizer.ggml.token_type": [3, 3] + [1] * 10}
        with pytest.raises(UserError, match="12 tokens, but the embedding of tiny has 11"):
            load(LoadOptions(str(write(changes)), device="cpu"), lambda event: None, lambda: False)

    def test_a_sliding_window_limits_the_context(self, write: Write) -> None:
        checkpoint = opened(write({"llama.attention.sliding_window": 33}))
        assert checkpoint.config.max_context == 33
        assert "looks back 33 tokens only" in checkpoint.notes[0]

    def test_several_files(self, write: Write, tmp_path: Path) -> None:
        everything = weights()
        half = len(everything) // 2
        parts = [dict([*everything.items()][:half]), dict([*everything.items()][half:])]
        paths = [tmp_path / f"big-0000{i}-of-00002.gguf" for i in (1, 2)]
        for i, (path, part) in enumerate(zip(paths, parts, strict=True)):
            write({"split.count": 2, "split.no": i}, part).rename(path)
        got = read(tmp_path)
        assert got.keys() == CONFIG.shapes().keys()
        assert all(torch.equal(got[name], torch.from_numpy(everything[NAMES[name]][0])) for name in got)
        with pytest.raises(UserError, match=r"give the first, big-00001-of-00002\.gguf"):
            read(paths[1])
        paths[1].unlink()
        with pytest.raises(UserError, match=r"big-00002-of-00002\.gguf: missing"):
            read(paths[0])

    def test_the_vocabulary(self, write: Write) -> None:
        tokenizer = opened(write()).tokenizer()
        assert [TOKENS[i] for i in tokenizer.encode("abba")] == ["ab", "b", "a"]
        assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.controls.get("<|im_start|>")) == (None, 1, 0)
        with_bos = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 0}
        assert opened(write(with_bos)).tokenizer().bos_id == 0

    def test_the_header_agrees_with_the_packages_reader(self, write: Write) -> None:
        path = write({"general.alignment": 64})
        header, reader = read_header(SourceFile(path)), gguf.GGUFReader(path)
        own = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        assert header.metadata.values == own
        assert {name: (info.offset, info.nbytes, info.type) for name, info in header.tensors.items()} == {
            tensor.name: (tensor.data_offset, tensor.n_bytes, tensor.tensor_type) for tensor in reader.tensors
        }


class TestWhatIsRefused:
    def test_another_architecture_by_name(self, write: Write) -> None:
        with pytest.raises(UserError, match="'qwen3' is not a Llama"):
            opened(write(architecture="qwen3", tensors={"x": (np.zeros((1, 32), np.float32), Type.F32)}))

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"llama.block_count": None}, "llama.block_count is 'missing'"),
            ({"llama.block_count": 3}, "no blk.2.attn_norm.weight"),
            ({"llama.block_count": 2**31 - 1}, "2147483647 layers"),
            ({"llama.embedding_length": "64"}, "llama.embedding_length is '64'"),
            (
                {"llama.embedding_length": 32, "llama.rope.dimension_count": 8},
                "token_embd.weight is 11 x 64, not 11 x 32",
            ),
            ({"llama.attention.head_count": 0}, "llama.attention.head_count is 0"),
            ({"llama.attention.head_count": [4, 4]}, "head_count is a list of 2"),
            ({"llama.attention.head_count_kv": 3}, "not a multiple of n_kv_heads 3"),
            ({"llama.attention.head_count_kv": 1}, "blk.0.attn_k.weight is 32 x 64, not 16 x 64"),
            ({"llama.feed_forward_length": 97}, "ffn_gate.weight is 96 x 64, not 97 x 64"),
            ({"llama.attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon"),
            ({"llama.rope.freq_base": float("nan")}, "llama.rope.freq_base is nan"),
            ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count 8 is not read"),
            ({"llama.rope.scaling.type": "yarn"}, "scaling.type 'yarn' is not read; use"),
            ({"llama.expert_count": 8}, "llama.expert_count 8 is not read"),
            ({"split.count": 2}, "one of 2 files, but not named -00001-of-00002"),
            ({"general.alignment": 0}, "alignment 0"),
            ({"tokenizer.ggml.model": "bert"}, "'bert'"),
            ({"tokenizer.ggml.pre": "qwen2"}, "'qwen2'"),
            ({"tokenizer.ggml.add_bos_token": "yes"}, "add_bos_token is 'yes', not true or false"),
            ({"tokenizer.ggml.tokens": [*TOKENS[:-1], "a"]}, "stands twice"),
            ({"tokenizer.ggml.tokens": [1] * 11}, "tokenizer.ggml.tokens is a list of 11"),
            ({"tokenizer.ggml.token_type": [3, 3]}, "its tokenizer cannot be read"),
            ({"tokenizer.ggml.token_type": [7] * 11}, "its tokenizer cannot be read"),
            ({"tokenizer.ggml.merges": ["a z"]}, "its tokenizer cannot be read"),
            ({"tokenizer.ggml.merges": ["z"]}, "its tokenizer cannot be read"),
            ({"tokenizer.ggml.eos_token_id": 11}, "eos_token_id is 11, not below 11"),
        ],
    )
    def test_metadata(self, write: Write, changes: dict[str, Any], named: str) -> None:
        path = write(changes)
        with pytest.raises(UserError) as error:
            read_all(path)
        assert named in str(error.value)
        assert "\n" not in str(error.value)

    def test_tensors(self, write: Write) -> None:
        zeros = (np.zeros((32, 64), np.float32), Type.F32)
        with pytest.raises(UserError, match=r"rope_freqs\.weight is 32 x 64 of torch\.float32"):
            opened(write(tensors=weights() | {"rope_freqs.weight": zeros}))
        with pytest.raises(UserError, match=r"blk\.0\.attn_q\.weight is 32 x 64, not 64 x 64"):
            opened(write(tensors=weights() | {"blk.0.attn_q.weight": zeros}))
        path = write()
        data = bytearray(path.read_bytes())
        struct.pack_into("<I", data, data.index(b"blk.0.attn_q.weight") + 19 + 4 + 16, Type.Q8_1)
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"attn_q\.weight is Q8_1, which cannot be read; take"):
            opened(path)

    def test_what_a_llama_does_not_have_is_noted(self, write: Write) -> None:
        extra = {"blk.0.attn_q.bias": (np.zeros((64,), np.float32), Type.F32)}
        (note,) = opened(write(tensors=weights() | extra)).notes
        assert "'blk.0.attn_q.bias', which a Llama does not have" in note

    def test_every_truncation(self, write: Write) -> None:
        path = write()
        data = path.read_bytes()
        ends = [*range(0, 3000, 7), *range(3000, len(data), 4099), len(data) - 1]
        for end in ends:
            path.write_bytes(data[:end])
            with pytest.raises(UserError, match=r"not a whole GGUF file|cannot be read"):
                opened(path)

    @pytest.mark.parametrize("count", [2**32, 2**61, 2**64 - 1])
    @pytest.mark.parametrize("where", ["tensors", "values", "key", "array", "dimension"])
    def test_counts_that_the_file_cannot_hold(self, write: Write, where: str, count: int) -> None:
        path = write()
        data = bytearray(path.read_bytes())
        at = {
            "tensors": 8,
            "values": 16,
            "key": 24,
            "array": data.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 8,
            "dimension": data.index(b"token_embd.weight") + len("token_embd.weight") + 4,
        }[where]
        struct.pack_into("<Q", data, at, count)
        path.write_bytes(data)
        with pytest.raises(UserError, match="not a whole GGUF file"):
            opened(path)

    def test_another_version(self, write: Write) -> None:
        path = write()
        path.write_bytes(b"GGUF" + struct.pack("<I", 1) + path.read_bytes()[8:])
        with pytest.raises(UserError, match="version 1"):
            opened(path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="No such file"):
            opened(tmp_path / "absent.gguf")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "damaged.gguf"


class TestDamage:
    @pytest.fixture
    def whole(self, write: Write) -> bytes:
        return write().read_bytes()

    def test_any_damage_is_refused_or_harmless(self, whole: bytes, scratch: Path) -> None:
        header_bytes = 3000

        @given(st.integers(0, header_bytes), st.binary(min_size=1, max_size=8))
        def damage(at: int, new: bytes) -> None:
            scratch.write_bytes(whole[:at] + new + whole[at + len(new) :])
            refused = ""
            try:
                read_all(scratch)
            except UserError as error:
                refused = str(error)
            assert "\n" not in refused

        damage()


def test_the_demo_answers_as_the_original_does(demo_path: Path) -> None:
    """The greedy answer of the model's own code; with wq and wk in another rotary order it is noise."""
    checkpoint = opened(demo_path)
    weights = read(checkpoint, torch.float32)
    weights["output.weight"] = weights["tok_embeddings.weight"]
    with torch.device("meta"):
        model = Transformer(checkpoint.config)
    model.load_state_dict(weights, assign=True)
    device = torch.device("cpu")
    model.prepare(64, device)
    cache = KVCache(checkpoint.config, 64, torch.float32, device)
    chat = choose_format(None, checkpoint.tokenizer(), checkpoint.chat())
    todo = chat.encode([Turn("What is the capital of France?")], None)
    answer: list[int] = []
    with torch.inference_mode():
        while len(answer) < 8:
            logits = model(torch.tensor(todo), cache)
            cache.commit(todo)
            todo = [int(logits[-1].argmax())]
            answer += todo
    assert answer == [504, 3575, 282, 4649, 314, 7042, 30, 2]  # "The capital of France is Paris."


QUESTIONS = (
    "What is the capital of France?",
    "Tell me about a lighthouse keeper.",
    "How do I boil an egg?",
    "Write a haiku about rain.",
)


def test_the_demo_s_own_blocks_answer_as_float32(demo_path: Path) -> None:
    """With the kernels that a user gets: the same greedy answer, nearly the same odds for a first token."""

    def engine_in(dtype: str) -> Engine:
        return load(LoadOptions(str(demo_path), device="cpu", dtype=dtype), lambda event: None, lambda: False)

    def odds(engine: Engine, question: str) -> Tensor:
        assert engine.format is not None
        engine.cache.tokens.clear()
        logits = engine.runner.run(engine.format.encode([Turn(question)], None), lambda: False)[1]
        return logits.double().log_softmax(-1)

    kept = engine_in("auto")
    assert kept.format is not None
    greedy = Sampler(lambda: Sampling(temperature=0), 0)
    answer = generate(
        kept.runner,
        kept.format.encode([Turn(QUESTIONS[0])], None),
        greedy,
        cancelled=lambda: False,
        on_prefill=lambda done: None,
    )
    tokens = [choice.token for choice in itertools.islice(answer, 8)]
    assert tokens == [504, 3575, 282, 4649, 314, 7042, 30, 2]  # "The capital of France is Paris."
    exact = engine_in("float32")
    with torch.inference_mode():
        pairs = [(odds(exact, question), odds(kept, question)) for question in QUESTIONS]
    divergence = [(p.exp() * (p - q)).sum().item() for p, q in pairs]
    assert sum(divergence) / len(divergence) < 0.005, divergence
