"""What every lane must do, whatever it copies to: used on the CPU and on CUDA."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from core.checkpoint.source import SourceFile
from core.weights.host import HostBlock, Registrar
from core.weights.lane import FilePiece, FileSource, HostSource, Lane, Source

KINDS = ("pinned", "pageable", "file")
SIZES = (1, 255, 4096, 2**20 - 1, 2**20 + 1, 9 * 2**20 + 17)  # less and more than a piece and than a buffer


@dataclass(frozen=True, slots=True)
class Bytes:
    """The same random bytes three times: pinned, pageable, and in a file."""

    content: Tensor  # uint8
    pinned: HostBlock
    pageable: HostBlock
    file: SourceFile

    def source(self, kind: str, offset: int, nbytes: int, *, pieces: int = 1) -> Source:
        """`nbytes` from `offset` on; from a file in several pieces."""
        if kind == "file":
            cuts = [nbytes * i // pieces for i in range(pieces + 1)]
            return FileSource(
                self.file,
                tuple(
                    FilePiece(a, offset + a, b - a, self.checksum(offset + a, b - a))
                    for a, b in pairwise(cuts)
                ),
                nbytes,
            )
        return HostSource(self.pinned if kind == "pinned" else self.pageable, offset, nbytes)

    def checksum(self, offset: int, nbytes: int) -> int:
        """CRC-32 of some of the bytes."""
        return zlib.crc32(self.content[offset : offset + nbytes].numpy())


def make_bytes(folder: Path, registrar: Registrar, nbytes: int = 10 * 2**20) -> Bytes:
    """Random bytes in memory and in a file in `folder`."""
    content = _random(nbytes)
    pinned, pageable = HostBlock(nbytes), HostBlock(nbytes)
    pinned.tensor.copy_(content)
    pageable.tensor.copy_(content)
    assert pinned.pin(registrar)
    (folder / "bytes").write_bytes(content.numpy().tobytes())
    return Bytes(content, pinned, pageable, SourceFile(folder / "bytes"))


@cache
def _random(nbytes: int) -> Tensor:
    return torch.randint(0, 256, (nbytes,), dtype=torch.uint8)


def never() -> bool:
    """A flag that nobody sets."""
    return False


def check_contents(lane: Lane, data: Bytes, kind: str) -> None:
    """Every size from some offset arrives whole, and nothing is written behind it."""
    for nbytes in SIZES:
        offset = min(777, data.content.numel() - nbytes)
        home = lane.empty(nbytes + 512)
        assert home.data_ptr() % 256 == 0
        home.fill_(0xAB)
        transfer = lane.send("unit", data.source(kind, offset, nbytes, pieces=min(3, nbytes)), home)
        lane.wait(transfer, never)
        assert transfer.moved == nbytes
        assert torch.equal(home[:nbytes].cpu(), data.content[offset : offset + nbytes])
        assert (home[nbytes:] == 0xAB).all()


def check_random_copies(
    lane: Lane, data: Bytes, seed: int, count: int = 30, read: Callable[[Tensor], Tensor] = Tensor.cpu
) -> int:
    """Sends of all kinds to homes that take turns, waited for late or never; the bytes that were sent.

    A transfer is over only when all earlier ones are, and what a home holds is what was sent there last.
    """
    rng = random.Random(seed)
    homes = [lane.empty(2**21) for _ in range(3)]
    latest: dict[int, tuple[int, int]] = {}
    transfers, total = [], 0
    for i in range(count):
        nbytes = rng.choice((rng.randrange(1, 5000), rng.randrange(1, 2**21)))
        offset = rng.randrange(data.content.numel() - nbytes)
        which = rng.randrange(3)
        source = data.source(
            rng.choice(KINDS), offset, nbytes, pieces=rng.randrange(1, 4) if nbytes > 9 else 1
        )
        transfers.append((lane.send(f"unit{i}", source, homes[which]), nbytes))
        latest[which] = (offset, nbytes)
        total += nbytes
        if rng.random() < 0.4:
            at = rng.randrange(len(transfers))
            lane.wait(transfers[at][0], never)
            for transfer, size in transfers[: at + 1]:
                assert transfer.moved == size
            if at == i:
                assert torch.equal(read(homes[which][:nbytes]), data.content[offset : offset + nbytes])
    lane.drain()
    for which, (offset, nbytes) in latest.items():
        assert torch.equal(read(homes[which][:nbytes]), data.content[offset : offset + nbytes])
    return total
