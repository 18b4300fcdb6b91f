"""The engine on a CUDA device. Skipped, with the reason, where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from core.engine.generate import generate
from core.engine.load import Engine, load
from core.options import LoadOptions, Sampling
from core.sampling.sampler import Sampler
from core.text.dialogue import raw_prompt
from core.weights.matrix import Matrix

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def begin(stories: Path, dtype: str) -> Engine:
    options = LoadOptions(str(stories), device="cuda", dtype=dtype, raw=True)
    return load(options, lambda event: None, lambda: False)


def greedy(engine: Engine, count: int) -> list[int]:
    sampler = Sampler(lambda: Sampling(temperature=0), 0)
    tokens = generate(
        engine.runner,
        raw_prompt(engine.tokenizer, ""),
        sampler,
        cancelled=lambda: False,
        on_prefill=lambda done: None,
    )
    return [choice.token for choice, _ in zip(tokens, range(count), strict=False)]


def test_golden_tokens_in_float32(stories: Path) -> None:
    engine = begin(stories, "float32")
    assert engine.info.device == "cuda:0"
    matrices = [module for module in engine.model.modules() if isinstance(module, Matrix)]
    assert all(piece.is_cuda for matrix in matrices for piece in matrix.pieces.values())
    assert len(matrices) > 7
    golden = json.loads((stories / "golden_tokens.json").read_text())["greedy"]
    assert greedy(engine, 199) == golden


def test_auto_is_float16_for_float32_files(stories: Path) -> None:
    engine = begin(stories, "auto")
    assert engine.info.dtype == "float16"
    golden = json.loads((stories / "golden_tokens.json").read_text())["greedy"]
    assert greedy(engine, 20) == golden[:20]
