"""A load that is given up ends at once, and the next message loads the model after all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.checkpoint.reader import Reader
from core.engine.commands import Load, OpenChat, Unload
from core.engine.events import Loading, Opened, Ready, Unloaded
from core.options import LoadOptions
from tests.core.engine import Engine

Start = Callable[..., Engine]


def test_a_load_looks_at_unload_while_it_reads(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[Engine] = []
    begin = Reader.start

    def given_up(self: Reader, *arguments: object) -> None:
        if engines:
            engines.pop().send(Unload())
        begin(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Reader, "start", given_up)
    engine = start(chat_format="none")
    engines.append(engine)
    engine.until(Unloaded)
    assert not any(isinstance(event, Ready) for event in engine.seen)
    assert engine.backend._engine is None
    told = [event for event in engine.seen if isinstance(event, Loading) and event.total_bytes]
    assert all(event.done_bytes < (event.total_bytes or 0) for event in told)

    done = engine.ask("Once")  # loads it again
    assert any(isinstance(event, Ready) for event in engine.seen)
    assert done.reply is not None
    assert len(done.reply.tokens) == 60


def test_a_chat_that_was_asked_for_meanwhile_is_opened(start: Start) -> None:
    engine = start()
    engine.send(OpenChat(), Unload())
    opened = engine.until(Opened)
    assert isinstance(opened, Opened)
    engine.until(Unloaded)


def test_another_load_is_not_given_up_with_the_one_before(start: Start, stories: object) -> None:
    engine = start()
    engine.send(Unload(), Load(LoadOptions(str(stories), dtype="float32", device="cpu")))
    engine.until(Unloaded)
    engine.until(Ready)
    assert engine.backend._asleep is None
    assert engine.reply("Once").tokens
