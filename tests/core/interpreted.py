"""Triton's interpreter, which runs kernels on the CPU. To be imported before any kernel."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    pytest.importorskip("triton", reason="needs triton, whose interpreter runs the kernels on the CPU")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where kernels run: on a card where there is one, compiled."""


def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut kernels so that the interpreter, which runs program after program, soon has done all."""
    from core.gpu import launch, room
    from core.gpu.launch import Shape

    def rows(format: str, rows: int, columns: int) -> Shape:
        return Shape(64, 64, 4)

    monkeypatch.setattr(launch, "row_shape", rows)
    monkeypatch.setattr(room, "_PROGRAMS", 4)
