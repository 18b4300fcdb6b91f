"""What a model says byte by byte, on its way out of the engine: nothing of it is more than text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from core.engine.conversation import Message
from core.engine.events import Delta, Event, Reason
from core.engine.recording import Recording
from core.sampling.sampler import Choice
from tests.hostile import CASES, Case


class Bytes:
    """A tokenizer of which every token is a byte."""

    strips_leading_space = False

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])


def engine() -> Any:
    peak = SimpleNamespace(look=lambda force=False: None, rss=None, anon=None)
    placement = SimpleNamespace(arrived=0, streams=False)
    machine = SimpleNamespace(device=SimpleNamespace(type="cpu"), ledger=None, simulated=False)
    info = SimpleNamespace(load_s=0.0)
    return SimpleNamespace(tokenizer=Bytes(), peak=peak, placement=placement, machine=machine, info=info)


@pytest.mark.parametrize("case", CASES[:14], ids=lambda case: case.name)
def test_sequences_in_single_bytes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.engine.recording._DELTA_SECONDS", 0.0)
    monkeypatch.setattr("core.engine.recording.peak_vram", lambda machine: None)
    events: list[Event] = []
    recording = Recording(
        1, engine(), 1, events.append, earlier=Message(1, 0, "assistant", ""), at_start=True
    )
    said = "".join(case.pieces).encode("utf-8", "replace")
    for byte in said:
        recording.add(Choice(byte, 0.0))
    reply = recording.finish(Reason.STOP, 0, None)
    expected = Case(case.name, (said.decode(),)).clean
    assert "".join(event.text for event in events if isinstance(event, Delta)) == expected
    assert reply.text == expected
