"""The product of one row with "nf4": our kernel beside bitsandbytes' own, which wants another layout."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from core.engine.decode_graph import captured
from core.gpu.launch import product
from core.weights.formats import values
from core.weights.layouts import size_of
from core.weights.matrix import Matrix
from tests.gpu.prove_parts import DEVICE, Bound, Table

_ROWS, _COLUMNS, _COUNT = 11008, 4096, 24  # more bytes than a card caches


@torch.inference_mode()
def nf4_rows() -> list[Bound]:
    """GB/s of codes and scales by both, each as one CUDA graph of many products."""
    table = Table("nf4: products of one row with 11,008 x 4,096", ("kernel", "GB/s", "off by"))
    x = torch.randn(1, _COLUMNS, device=DEVICE).half()
    nbytes = size_of("nf4", _ROWS, _COLUMNS)
    matrices = []
    for _ in range(_COUNT):
        matrix = Matrix(_ROWS, _COLUMNS, "nf4")
        matrix.attach(torch.randint(0, 256, (nbytes,), dtype=torch.uint8, device=DEVICE))
        matrix.pieces["scales"].fill_(0.02)
        matrices.append(matrix)
    weight = values("nf4", matrices[-1].pieces, _ROWS, _COLUMNS, 0, _ROWS)
    want = x.double() @ weight.double().T
    ways: dict[str, Callable[[Matrix], Tensor]] = {"ours": lambda matrix: product((matrix,), x)}
    theirs = _theirs(weight.half(), x)
    if theirs is not None:
        ways["bitsandbytes"] = theirs
    for name, way in ways.items():
        made: list[Tensor] = []

        def work(way: Callable[[Matrix], Tensor] = way, made: list[Tensor] = made) -> None:
            made[:] = [way(matrix) for matrix in matrices]

        work()
        second = statistics.median(_seconds(captured(work, DEVICE)) for _ in range(3))
        off = (made[-1].double() - want).norm() / want.norm()
        table.add(name, f"{_COUNT * nbytes / second / 1e9:.0f}", f"{float(off):.1e}")
        if name == "ours":  # theirs has the values quantised once more
            table.bounds.append(Bound("ours is right", float(off < 2e-3), 1.0))
    return table.end()


def _theirs(weight: Tensor, x: Tensor) -> Callable[[Matrix], Tensor] | None:
    """bitsandbytes' product, on copies of one matrix; None where it is not here for this card."""
    try:
        from bitsandbytes import functional

        packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
        copies = [packed.clone() for _ in range(_COUNT)]
        functional.gemv_4bit(x, packed, state=state)
    except Exception as error:  # whatever a library says that was made for another machine
        print(f"bitsandbytes does not compute here: {str(error).splitlines()[0][:200]}\n")
        return None
    turn = [0]

    def run(matrix: Matrix) -> Tensor:
        turn[0] += 1
        return functional.gemv_4bit(x, copies[turn[0] % _COUNT], state=state)

    return run


def _seconds(replay: Callable[[], None]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    replay()
    begin.record()
    replay()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000
