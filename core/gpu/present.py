"""Whether our kernels run on a card. Neither torch nor Triton here, which take a while to import."""

from __future__ import annotations

from importlib.util import find_spec

from core.monitor import open_gpu

LEAST = (7, 0)
"""The compute capability from which on Triton compiles."""


def is_installed() -> bool:
    """Whether there is a Triton; which cards it compiles for is another question."""
    return find_spec("triton") is not None


def missing(capability: tuple[int, int] | None) -> str | None:
    """Why they do not run on a card of this compute capability; None where they do, or nobody knows."""
    if not is_installed():
        return "the package triton is not installed"
    if capability is not None and capability < LEAST:
        have, need = (".".join(map(str, version)) for version in (capability, LEAST))
        return f"the card's compute capability is {have}, and Triton needs {need}"
    return None


def missing_here() -> str | None:
    """The same for the first visible card, as its driver describes it."""
    gpu = open_gpu()
    return missing(None if gpu is None else gpu.capability)


def words(reason: str | None) -> str:
    """Who computes on a card."""
    return "triton for 1-8 rows, torch for more" if reason is None else f"torch, slower: {reason}"
