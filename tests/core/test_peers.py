"""The comparison with other engines: all get the same network, and figures are put together right."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.checkpoint import find, open_checkpoint
from core.checkpoint.reader import Reader
from core.checkpoint.synthetic import SyntheticCheckpoint
from core.model.cache import KVCache
from core.model.shapes import SHAPES
from core.model.transformer import Transformer
from tests.peers import gguf_file
from tests.peers.child import Child, ChildFailed, Timing
from tests.peers.engine_ours import Ours
from tests.peers.engine_transformers import Transformers
from tests.peers.engines import starts, vectors
from tests.peers.networks import tensors, transformers_model
from tests.peers.protocol import Missing, answer, token_ids
from tests.peers.shapes import TINY, parameters
from tests.peers.table import OURS, as_json, cells, render, rotated

GIVEN = {"shape": "tiny", "context": 256, "quant": "none", "dtype": "float32", "threads": 1}
LLAMA = os.environ.get("PEERS_PYTHON_LLAMA")


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SHAPES, "tiny", TINY)
        yield


@pytest.fixture(scope="module")
def ours() -> Ours:
    threads = torch.get_num_threads()
    engine = Ours(GIVEN)
    torch.set_num_threads(threads)
    return engine


def test_transformers_computes_the_same_network() -> None:
    checkpoint = SyntheticCheckpoint("tiny")
    theirs = transformers_model(TINY, tensors(checkpoint, torch.float32), torch.float32)
    with torch.device("meta"):
        model = Transformer(TINY)
    model.load_state_dict(dict(tensors(checkpoint, torch.float32)), strict=True, assign=True)
    model.prepare(64, torch.device("cpu"))
    ids = torch.tensor(token_ids(48, TINY.vocab_size))
    with torch.inference_mode():
        wanted = theirs(ids[None]).logits[0]
        got = model(ids, KVCache(TINY, 64, torch.float32, torch.device("cpu")), keep=48)
    assert (got - wanted).abs().max() / wanted.abs().max() < 1e-4


@pytest.mark.parametrize(("kind", "error"), [("F16", 0.0), ("Q8_0", 0.01), ("Q4_0", 0.12)])
def test_a_gguf_file_has_our_weights(tmp_path: Path, kind: str, error: float) -> None:
    checkpoint = SyntheticCheckpoint("tiny")
    path = tmp_path / "model.gguf"
    gguf_file.write(path, TINY, tensors(checkpoint, torch.float16), kind)
    read = open_checkpoint(find(str(path)))
    assert read.config.norm_eps == pytest.approx(TINY.norm_eps)  # a file has it in float32
    assert replace(read.config, norm_eps=TINY.norm_eps) == TINY
    with Reader() as reader:
        for name, wanted in tensors(checkpoint, torch.float32):
            got = torch.empty(wanted.shape)
            reader.fill(read.weights[name], got)
            bound = error if wanted.dim() > 1 else 0.0
            assert (got - wanted).square().mean().sqrt() <= bound * wanted.square().mean().sqrt(), name
    read.close()


def test_ours_and_transformers_agree_on_the_next_token(ours: Ours) -> None:
    theirs = Transformers(GIVEN | {"threads": torch.get_num_threads()})
    assert [ours.next(n) for n in (8, 30, 90)] == [theirs.next(n) for n in (8, 30, 90)]
    assert theirs.prefill(30) > 0
    assert theirs.decode(3, 40) > 0
    assert theirs._caches[40].get_seq_length() == 40  # decoded tokens are forgotten again


def test_positions_are_what_they_say(ours: Ours) -> None:
    """In any order, the cache holds what a prompt of that length would have put there."""
    for count, after in ((4, 40), (4, 10), (2, 100), (4, 40)):
        assert ours.decode(count, after) > 0
        assert ours._engine.cache.tokens == token_ids(after + count, TINY.vocab_size)
    layers = [ours._engine.cache.layer(i, 0).keys for i in range(TINY.n_layers)]
    before = [keys[:, :102].clone() for keys in layers]
    for keys in layers:
        keys.zero_()
    ours.prefill(102)
    for keys, were in zip(layers, before, strict=True):
        assert torch.allclose(keys[:, :102], were, atol=1e-4)


def test_requests() -> None:
    class Clock:
        about: dict[str, str] = {}

        def prefill(self, count: int) -> float:
            return count

        def decode(self, count: int, after: int) -> float:
            return count + after

        def next(self, count: int) -> int:
            return -count

    assert answer(Clock(), {"prefill": 3}) == {"seconds": 3}
    assert answer(Clock(), {"decode": 3, "after": 4}) == {"seconds": 7}
    assert answer(Clock(), {"next": 3}) == {"token": -3}
    with pytest.raises(ValueError, match="no such request"):
        answer(Clock(), {"encode": 3})


def test_an_engine_in_its_own_process(ours: Ours) -> None:
    with Child(sys.executable, "engine_ours", GIVEN) as child:
        assert "float32" in child.about["type"]
        assert child.ask({"next": 30}) == {"token": ours.next(30)}
        timing = child.measure({"decode": 5, "after": 20})
        assert timing.tokens == 5
        assert timing.rate == 5 / timing.seconds > 0
        assert 0 <= timing.others <= 1
        with pytest.raises(ChildFailed, match="no such request"):
            child.ask({"encode": 3})


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="nowhere"):
        Child(str(tmp_path / "nowhere"), "engine_ours", GIVEN)
    (tmp_path / "none").symlink_to(sys.executable)  # an interpreter without any package
    with pytest.raises(Missing, match="has no module llama_cpp"):
        Child(str(tmp_path / "none"), "engine_llama_cpp", GIVEN)


@pytest.mark.skipif(not LLAMA, reason="PEERS_PYTHON_LLAMA names no interpreter with llama.cpp")
@pytest.mark.parametrize("peer", ["xllamacpp", "llama-cpp"])
def test_llama_cpp_agrees_on_the_next_token(tmp_path: Path, ours: Ours, peer: str) -> None:
    path = tmp_path / "model.gguf"
    gguf_file.write(path, TINY, tensors(SyntheticCheckpoint("tiny"), torch.float16), "F16")
    common = {"shape": "tiny", "context": 256, "threads": 1, "positions": [10, 40], "vocab": TINY.vocab_size}
    pythons = dict.fromkeys((OURS, peer), str(LLAMA))
    start = starts([peer], (), "float16", pythons, common, "auto", str(path))[1]
    with Child(start.python, start.module, start.given) as child:
        assert [child.ask({"next": n})["token"] for n in (8, 30)] == [ours.next(n) for n in (8, 30)]
        for request in ({"prefill": 30}, {"decode": 3, "after": 40}, {"decode": 3, "after": 10}):
            assert child.ask(request)["seconds"] > 0


def timings(*rates: float, others: float = 0.0) -> list[Timing]:
    return [Timing(10, 10 / rate, others) for rate in rates]


def test_figures_are_medians_and_ratios_of_them() -> None:
    table = cells(
        {
            OURS: {"prefill": timings(10, 30, 20), "decode": timings(6, 5, 4)},
            "transformers float16": {"prefill": timings(40), "decode": timings(2, others=0.06)},
            "transformers float32": {"prefill": timings(5), "decode": timings(1)},
            "llama.cpp": {"prefill": timings(10, 10), "decode": timings(10, 10, 10, others=0.04)},
        }
    )
    rates = {engine: [round(cell.rate, 6) for cell in row.values()] for engine, row in table.items()}
    assert rates == {
        OURS: [20, 5], "transformers float16": [40, 2], "transformers float32": [5, 1],
        "llama.cpp": [10, 10], "transformers, best type": [40, 2],
    }  # fmt: skip
    assert table[OURS]["decode"].ratio is None
    assert [round(table["llama.cpp"][what].ratio, 6) for what in ("prefill", "decode")] == [2, 0.5]
    lines = render(table)
    assert lines[0].split() == ["tokens/s", "prefill", "decode", "others"]
    assert lines[1].split() == [OURS, "20.0", "5.0", "0%"]
    assert lines[2].split() == ["transformers", "float16", "40.0", "x0.50", "2.0", "x2.50", "!1", "6%"]
    assert as_json(table)["llama.cpp"]["decode"]["rounds_tok_s"] == pytest.approx([10, 10, 10])


def test_without_ours_there_are_no_ratios() -> None:
    table = cells({"llama.cpp": {"decode": timings(3)}})
    assert render(table)[1].split() == ["llama.cpp", "3.0", "0%"]


def test_everyone_is_first_in_turn() -> None:
    assert [rotated("abc", i) for i in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]


@pytest.mark.parametrize(
    ("build", "name"),
    [
        ("CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | FMA = 1", "AVX2"),
        ("CPU : AVX2 = 1 | AVX512 = 1 | AVX512_VBMI = 1 | AVX512_VNNI = 1", "AVX512_VNNI"),
        ("CPU : AVX2 = 1 | AVX512 = 0", "AVX2"),
        ("CPU : NEON = 1 | ARM_FMA = 1", "NEON"),
        ("", ""),
    ],
)
def test_the_widest_instructions(build: str, name: str) -> None:
    assert vectors(build) == name


def test_all_engines_of_a_format() -> None:
    common: dict[str, Any] = {"shape": "tiny", "context": 256, "threads": 1, "positions": [10], "vocab": 1024}
    pythons = {OURS: "a", "transformers": "a", "xllamacpp": "b", "llama-cpp": "c"}
    peers = ("transformers", "xllamacpp", "llama-cpp")
    all_ = starts(peers, ("float16", "float32"), "int4", pythons, common, "auto", "x.gguf")
    assert [(start.name, start.python) for start in all_] == [
        (OURS, "a"), ("transformers float16", "a"), ("transformers float32", "a"),
        ("llama.cpp prebuilt, Q4_0", "b"), ("llama.cpp built for this processor, Q4_0", "c"),
    ]  # fmt: skip
    assert [start.given.get("quant") for start in all_] == ["int4", None, None, None, None]
    assert parameters(TINY) == sum(
        weight.numel() for _, weight in tensors(SyntheticCheckpoint("tiny"), torch.float16)
    )
