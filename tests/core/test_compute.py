"""What may compute on the CPU, and what a load says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import core.checkpoint.synthetic
from core.engine.compute import candidates, compute_of
from core.engine.events import Loading, Notice
from core.engine.load import Engine, load
from core.model.ops import Ops
from core.model.shapes import SHAPES
from core.native.build import Build
from core.options import LoadOptions
from core.weights.kernels import row_class
from core.weights.needs import needs_of
from core.weights.survey import needs_asked

TINY = replace(
    SHAPES["1b"], n_layers=1, dim=64, n_heads=4, n_kv_heads=2, head_dim=16, hidden_dim=96, vocab_size=80
)


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLAMA_TUI_CACHE", str(tmp_path))
    monkeypatch.setitem(core.checkpoint.synthetic.SHAPES, "tiny", TINY)


def start(**options: Any) -> tuple[Engine, list[Any]]:
    events: list[Any] = []
    given = {"device": "cpu", "raw": True, "context": 64} | options
    return load(LoadOptions("", synthetic="tiny", **given), events.append, lambda: False), events


def takers(options: LoadOptions, format: str, rows: int) -> list[str]:
    return [kernel.name for kernel in candidates(options, None) if kernel.takes(format, 64, rows)]


def test_an_explicit_type_is_never_multiplied_as_the_other() -> None:
    auto, given = LoadOptions(""), LoadOptions("", dtype="float16")
    assert takers(auto, "float16", 40) == ["linear", "bfloat16", "float32"]
    assert takers(given, "float16", 40) == ["linear", "float32"]
    assert takers(auto, "int4", 40) == ["bfloat16", "float32"]
    assert takers(auto, "float32", 1) == ["linear", "mv"]
    assert takers(auto, "int8", 1) == ["int8pack", "bfloat16", "float32"]


def test_without_compiled_kernels_torch_computes_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_TUI_NATIVE", "0")
    engine, events = start(quant="int8")
    said = [event.text for event in events if isinstance(event, Notice)]
    assert any("torch's own kernels compute, which are slower: switched off" in text for text in said)
    assert type(engine.model.ops) is Ops
    assert "native" not in str(engine.info.kernels)
    assert engine.placement.plan.needs.kv_type == "float32"
    engine.placement.close()


@pytest.mark.skipif(Build().error is not None, reason=str(Build().error))
def test_declined_kernels_are_no_news() -> None:
    engine, events = start(kernels="torch")
    assert not any("kernels" in event.text for event in events if isinstance(event, Notice))
    assert "native" not in str(engine.info.kernels)
    engine.placement.close()


@pytest.mark.skipif(Build().error is not None, reason=str(Build().error))
def test_a_library_that_cannot_be_loaded_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLAMA_TUI_NATIVE", str(tmp_path))
    monkeypatch.setattr(
        "core.native.build._call", lambda command: Path(command[-1]).write_bytes(b"no library")
    )
    engine, events = start(quant="int8")
    assert any(isinstance(event, Loading) and "compiling" in event.stage for event in events)
    said = [event.text for event in events if isinstance(event, Notice)]
    assert any("cannot be loaded" in text for text in said)
    with torch.inference_mode():  # planned for float16 keys, computed by torch
        assert engine.model(torch.tensor([1, 2, 3]), engine.cache).isfinite().all()
    engine.placement.close()


def test_a_compiler_that_fails_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def fail(command: list[str]) -> None:
        import subprocess

        calls.append(command)
        raise subprocess.CalledProcessError(1, command, stderr="matrix.cpp:1: error: no such thing\nmore")

    monkeypatch.setattr("core.native.build._compiler", lambda: "g++")
    monkeypatch.setattr("core.native.build._call", fail)
    for _ in range(2):
        build = Build(folder=tmp_path)
        assert build.wait() is None
        assert build.error == "the compiler failed: matrix.cpp:1: error: no such thing"
    assert len(calls) == 1
    assert not list(tmp_path.glob("*.part"))


def test_every_class_of_rows_has_a_kernel_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours for few rows where Triton runs; else torch's for all, which is said."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr("core.gpu.present.is_installed", lambda: False)
    told: list[Any] = []
    options = replace(LoadOptions(""), device="cuda:0")
    needs = needs_of(TINY, "float16", 64, 8, quant="int4")
    compute = compute_of(options, TINY, needs, told.append)
    assert set(compute.kernels.names()["int4"]) == {"torch"}
    assert compute.fast is None
    assert "triton is not installed" in told[-1].text
    assert set(compute.host_kernels.names()) == {"int4", "int8"}
    assert [row_class(rows) for rows in (1, 2, 8, 9, 64, 65, 500)] == [0, 1, 1, 2, 2, 3, 3]

    pytest.importorskip("triton")
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert compute_of(options, TINY, needs, told.append).fast is None
    assert "compute capability is 6.1, and Triton needs 7.0" in told[-1].text
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    compute = compute_of(options, TINY, needs, told.append)
    assert compute.kernels.names()["int4"] == ("triton", "triton", "torch", "torch")
    assert compute.fast is not None


def test_blocks_of_a_file_stay_where_a_kernel_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = {
        "layers.0.attention.wq.weight": "Q4_0",
        "output.weight": "Q6_K",
        "layers.0.feed_forward.w1.weight": "Q8_0",
    }

    def formats(device: str, **options: Any) -> set[str]:
        needs = needs_asked(TINY, "float16", LoadOptions("", **options), device, blocks)
        return {weight.format for unit in needs.units for weight in unit.weights}

    if Build().error is None:
        assert formats("cpu") == {"q4_0", "q8_0", "float16"}
        assert formats("cpu", quant="int8") == {"int8"}
    assert formats("cpu", dtype="float16") == formats("cuda:0", dtype="float16") == {"float16"}
    monkeypatch.setenv("LLAMA_TUI_NATIVE", "0")
    assert formats("cpu") == {"float16"}
    for found, wanted in ((True, {"q4_0", "q8_0", "float16"}), (False, {"float16"})):
        monkeypatch.setattr("core.weights.survey.is_installed", lambda found=found: found)
        assert formats("cuda:0") == wanted
