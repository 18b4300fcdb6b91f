"""The chat line by line, on the fake backend: what is said when, and what ends it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest

from core.engine.commands import Resume, Rewind, Submit
from core.engine.events import Failed, Loading
from core.errors import UserError
from core.options import LoadOptions
from tests.core.saved_chats import chat, reply, user
from tests.fake_backend import LOAD, MODEL, LiveFakeBackend
from tui import line_mode
from tui.chat_session import ChatSession
from tui.settings import Settings
from tui.talk import Talk

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs the mode on lines of input; the exit status, what was said, and what was told beside it."""

    def run(backend: LiveFakeBackend, *lines: str, **talk: Any) -> tuple[int, str, str]:
        stdin = io.TextIOWrapper(io.BytesIO("".join(f"{line}\n" for line in lines).encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        session = ChatSession(backend, LoadOptions("x"), Settings({}))
        try:
            code = line_mode.run(Talk(session, "fake", **talk))
        finally:
            backend.close(1)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def backend(*replies: str, **options: Any) -> LiveFakeBackend:
    return LiveFakeBackend(replies or ["Hello there."], token_s=0.001, **options)


def test_replies_are_said_and_figures_told_beside_them(say: Say) -> None:
    fake = backend("one two", "three")
    code, out, err = say(fake, "a", "", "b")
    assert code == 0
    assert out == "> one two\n> > three\n> \n"
    assert err.count(" tok · ") == 2
    assert MODEL.name in err
    assert fake.of_type(Submit) == [Submit(1, "a"), Submit(2, "b")]


def test_regenerate_and_siblings(say: Say) -> None:
    fake = backend("one", "two")
    _, out, err = say(fake, "a", "/regenerate", "/previous", "/continue")
    assert [type(command) for command in fake.commands if isinstance(command, Submit | Resume | Rewind)] == [
        Submit, Rewind, Resume, Rewind,
    ]  # fmt: skip
    assert "version 1 of 2\na\none\n" in out
    assert "the last reply has come to its end" in out
    assert "reply 2/2" in err
    assert "\u25c2" not in out + err


def test_a_load_that_fails_is_the_users_or_ours(say: Say) -> None:
    with pytest.raises(UserError, match="no such weights"):
        say(backend(load=((0.0, Failed("no such weights", fatal=True)),)))
    code, _, err = say(backend(load=((0.0, Failed("a fault", fatal=True, user=False)),)))
    assert code == 1
    assert "llama-tui: a fault" in err


def test_progress_comes_as_whole_lines_from_time_to_time(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_mode, "_PROGRESS_S", 0.05)
    load = [LOAD[0]] + [(0.005, Loading("reading weights", done, 100)) for done in range(100)] + [LOAD[-1]]
    _, out, err = say(backend(load=load))
    told = [line for line in err.splitlines() if line.startswith("reading weights")]
    assert 1 <= len(told) < 30  # of 100
    assert "\r" not in out + err
    assert "\x1b" not in out + err


def test_a_prompt_that_is_read_for_long_says_how_far_it_is(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_mode, "_PROGRESS_S", 0.0)
    _, _, err = say(backend("one"), "a")
    assert "reading the message: 10 of 20 tokens" in err


def test_a_saved_chat_goes_on(say: Say) -> None:
    saved = chat(user(1, None, "hi"), reply(2, 1, "yes"), title="Foxes")
    fake = backend("more")
    _, out, err = say(fake, "and?", "/erase", "/new", chat=saved)
    assert "goes on with Foxes" in err
    assert out.startswith("> more\n")
    assert [exchange.text for exchange in fake.of_type(Submit)] == ["and?"]


def test_what_needs_more_than_there_is_is_said(say: Say) -> None:
    _, out, _ = say(backend(), "/regenerate", "/copy", "/set temperature 9", "/temperature")
    assert "nothing has been sent yet" in out
    assert "/copy needs the full screen" in out
    assert "out of range" in out
    assert "temperature is 0.60" in out


def test_settings_presets_and_reset(say: Say) -> None:
    fake = backend()
    _, out, _ = say(fake, "/preset precise", "/set top_p 0.5", "/mirostat", "/debug", "/reset", "/set")
    assert "preset precise" in out
    assert "top-p is now 0.50" in out
    assert "figures under replies: all" in out
    assert "all settings are at their defaults" in out
    assert "top_p 0.90" in out
