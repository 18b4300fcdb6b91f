"""The threads that move raw bytes, alone."""

from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path

import pytest
import torch

from core.checkpoint.source import SourceFile
from core.weights import staging
from core.weights.host import HostBlock
from core.weights.lane import FilePiece, FileSource, HostSource
from core.weights.ledger import Ledger
from core.weights.staging import Feeder, SerialThread, SourceReader, fill, move, spans


def test_calls_are_made_in_order_and_all_before_close() -> None:
    thread, made = SerialThread("t"), []
    for i in range(100):
        thread.submit(lambda i=i: made.append(i))  # type: ignore[misc]
    thread.close()
    assert made == list(range(100))


def test_a_call_that_was_made_is_not_kept_alive() -> None:
    class Thing:
        def call(self) -> None:
            pass

    thread, thing = SerialThread("t"), Thing()
    gone = weakref.ref(thing)
    thread.submit(thing.call)
    del thing
    for _ in range(1000):
        if gone() is None:
            break
        time.sleep(0.005)
    assert gone() is None
    thread.close()


@pytest.mark.parametrize("longest", [1, 7, 10, 1000])
def test_spans_cover_every_piece_in_order(tmp_path: Path, longest: int) -> None:
    (tmp_path / "f").write_bytes(bytes(100))
    pieces = (FilePiece(0, 50, 21), FilePiece(32, 3, 8), FilePiece(64, 90, 10))
    source = FileSource(SourceFile(tmp_path / "f"), pieces, 74)
    seen = [
        (s.slot_offset + i, s.piece.file_offset + s.start + i)
        for s in spans(source, longest)
        for i in range(s.nbytes)
    ]
    assert seen == [(p.slot_offset + i, p.file_offset + i) for p in pieces for i in range(p.nbytes)]
    assert max(s.nbytes for s in spans(source, longest)) <= longest


@pytest.mark.parametrize("nbytes", [0, 1, 2**20, 2**20 + 1, 3 * 2**20 - 1])
def test_move_and_fill(nbytes: int) -> None:
    source = torch.randint(0, 256, (nbytes + 2,), dtype=torch.uint8)
    target = torch.zeros(nbytes + 2, dtype=torch.uint8)
    move(target.data_ptr() + 1, source.data_ptr() + 1, nbytes)
    assert torch.equal(target[1:-1], source[1:-1])
    assert target[0] == target[-1] == 0
    fill(target.data_ptr() + 1, 0xFF, nbytes)
    assert (target[1:-1] == 0xFF).all()
    assert target[0] == target[-1] == 0


def test_other_threads_run_while_memory_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread in Python makes headway during one call, so the call does not hold the interpreter."""
    monkeypatch.setattr(staging, "PIECE", 64 * 2**20)
    block, other = HostBlock(staging.PIECE), HostBlock(staging.PIECE)
    ticks, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            ticks[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    best = 0
    for call in (move, move, fill, fill, move, fill, move, fill):  # again, where the cores are taken
        before = ticks[0]
        call(other.address, block.address if call is move else 1, staging.PIECE)
        best = max(best, ticks[0] - before)
    stop.set()
    thread.join()
    assert best > 1000
    block.close()
    other.close()


def test_buffers_take_turns_and_wait_for_their_release() -> None:
    source = HostBlock(1000)
    source.tensor.copy_(torch.arange(1000) % 251)
    buffers = [HostBlock(128) for _ in range(2)]
    filled = threading.Semaphore(0)
    feeder = Feeder(Ledger(), buffers, filled.release)
    feed = feeder.feed(HostSource(source, 100, 500))
    got: dict[int, bytes] = {}
    order = []
    for i in range(4):
        wanted = 2 if i == 0 else 1  # both buffers at first, then one for each that comes back
        for _ in range(wanted):
            assert filled.acquire(timeout=10)
        if i == 1:
            assert not filled.acquire(timeout=0.05), "a buffer was filled that nobody had released"
        chunk = feed.chunks.popleft()
        got[chunk.slot_offset] = bytes(chunk.block.tensor[: chunk.nbytes].tolist())
        order.append(chunk.slot_offset)
        if i < 3:
            feeder.release(chunk.block)
        if i == 2:
            assert filled.acquire(timeout=10)  # nothing more to fill: that it is complete
            filled.release()
    assert order == [0, 128, 256, 384]
    assert b"".join(got[at] for at in sorted(got)) == bytes(source.tensor[100:600].tolist())
    assert feed.complete
    assert feed.error is None
    feeder.close()


def test_closing_a_feeder_ends_what_still_waits_for_buffers() -> None:
    source = HostBlock(1000)
    feeder = Feeder(Ledger(), [HostBlock(100), HostBlock(100)], lambda: None)
    feeds = [feeder.feed(HostSource(source, 0, 1000)) for _ in range(3)]
    feeder.close()
    for feed in feeds:
        assert feed.complete
        assert isinstance(feed.error, RuntimeError)


def test_a_buffer_is_not_lost_to_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(10))
    short = FileSource(SourceFile(tmp_path / "f"), (FilePiece(0, 5, 10),), 10)
    feeder = Feeder(Ledger(), [HostBlock(100), HostBlock(100)], lambda: None)
    feeds = [feeder.feed(short) for _ in range(5)]
    good = feeder.feed(HostSource(HostBlock(50), 0, 50))
    while not good.complete:
        time.sleep(0.001)
    feeder.close()
    assert all(feed.error is not None for feed in feeds)
    assert good.error is None
    assert len(good.chunks) == 1


def test_a_checksum_runs_over_all_spans_of_a_piece(tmp_path: Path) -> None:
    import zlib

    content = bytes(range(256)) * 40
    (tmp_path / "f").write_bytes(content)
    ledger, memory = Ledger(), HostBlock(len(content))
    pieces = (
        FilePiece(0, 0, 5000, zlib.crc32(content[:5000])),
        FilePiece(5120, 5000, 3000, zlib.crc32(content[5000:8000])),
    )
    source = FileSource(SourceFile(tmp_path / "f"), pieces, 8120)
    reader = SourceReader(ledger)
    for span in spans(source, 700):
        reader.read(source, span, memory.address + span.slot_offset)
    assert ledger.from_disk == 8000
    assert bytes(memory.tensor[5120:8120].tolist()) == content[5000:8000]
