"""Texts made to break the interface or to get through it: nothing of them acts, nothing of them is lost."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input

from core.engine.commands import Submit
from core.engine.events import Failed, Loading, Notice, Saved
from core.history.recorder import Recorder
from core.history.store import History
from tests.core.saved_chats import chat, reply, user
from tests.fake_backend import LLAMA_7B, FakeBackend, loads
from tests.fake_plans import plan_7b, readings
from tests.hostile import CASES, PAYLOAD, Case, clean
from tests.tui.conftest import Driver, Open
from tui.screens import chat as chat_screen

TOKEN_S = 0.02
ONE_LINE = " ".join(clean(PAYLOAD).split())


def shown(driver: Driver, key: int, case: Case) -> str:
    """What the rows of a message show, from its first to its last, without the figures below it."""
    document = driver.chat.transcript._document
    section = document.sections[document.index(key)]
    section.measure(0, 1_000_000, document.frame, set())
    rows = [row for _, row in section.rows(0) if row.line.style != "footer"]
    return case.seen_in("".join(row.text for row in rows))


def only_text(driver: Driver) -> str:
    """The screen, after a check that nothing is on it but what may be."""
    text = driver.screen_text
    assert clean(text) == text
    assert driver.app.is_running
    return text


async def copied(driver: Driver, key: str) -> str:
    driver.app._clipboard = ""
    await driver.press(key)
    await driver.until(lambda: bool(driver.app.clipboard))
    return driver.app.clipboard


async def streamed(driver: Driver) -> None:
    """Every reply, looked at while it grows and when it is there."""
    for run, case in enumerate(CASES, 1):
        driver.chat.send(f"case {run}")
        await driver.advance(0.3)
        only_text(driver)
        await driver.advance(len(case.pieces) * TOKEN_S)
        only_text(driver)
        assert (case.name, driver.text_of(run)) == (case.name, case.clean)
        assert (case.name, shown(driver, 2 * run + 1, case)) == (case.name, case.seen_in(case.clean))
        assert await copied(driver, "f6") == case.clean


async def walked(driver: Driver) -> None:
    """Every reply, come to and copied by keys."""
    await driver.press("shift+tab")
    for case in reversed(CASES):
        assert await copied(driver, "c") == case.clean
        only_text(driver)
        await driver.press("up", "up")
    await driver.press("escape")


async def found(driver: Driver) -> None:
    """Every reply, by its last word."""
    await driver.press("ctrl+f")
    for case in CASES:
        for word in re.findall(r"\w+", case.clean)[-1:]:
            driver.chat.query_one("#find-words", Input).value = word
            await driver.settle()
            assert re.search(r"\d of \d", only_text(driver)), case.name
    await driver.press("escape")


async def test_replies_are_whole_wherever_one_looks(
    open_chat: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paged: list[str] = []
    monkeypatch.setattr(chat_screen, "show_in_pager", lambda app, text: paged.append(text))
    saved, backend = tmp_path / "history.db", FakeBackend([case.pieces for case in CASES], token_s=TOKEN_S)
    recorder = Recorder(backend, saved, {})
    async with open_chat(
        backend, size=(100, 30), around=lambda engine: recorder, history=History(saved)
    ) as driver:
        await streamed(driver)
        await walked(driver)
        await found(driver)
        for size in ((40, 12), (200, 60)):
            await driver.pilot.resize_terminal(*size)
            only_text(driver)
        await driver.press("f2")
        assert clean(paged[0]) == paged[0]
        assert [case.name for case in CASES if case.clean not in paged[0]] == []
        for file in ("all.json", "all.md"):
            await driver.say(f"/export {tmp_path / file}")
            await driver.until((tmp_path / file).exists)
    recorder.close(1)
    kept = json.loads((tmp_path / "all.json").read_text())["messages"]
    assert [one["text"] for one in kept if one["role"] == "assistant"] == [case.clean for case in CASES]
    document = (tmp_path / "all.md").read_text()
    assert clean(document) == document
    lines = {line.removeprefix("> ") for line in document.split("\n")}
    assert [case.name for case in CASES if not lines.issuperset(case.clean.strip("\n").split("\n"))] == []


async def test_what_the_user_pastes_is_text_everywhere(open_chat: Open) -> None:
    async with open_chat() as driver:
        for run, case in enumerate(CASES[:14], 1):
            pasted = "".join(case.pieces)
            expected = clean(pasted.replace("\r\n", "\n").replace("\r", "\n"))
            driver.app.post_message(events.Paste(pasted))
            await driver.settle()
            assert driver.chat.prompt.text == expected
            only_text(driver)
            await driver.press("enter")
            await driver.until(lambda: not driver.chat.prompt.enter_pending)
            expected = expected.strip("\n")
            assert driver.sent()[-1] == Submit(run, expected)
            await driver.advance(0.5)
            only_text(driver)
            assert driver.chat.transcript.text_of(2 * run) == expected
        await driver.press("f7")
        assert driver.chat.prompt.text == expected
        for key, field in (("ctrl+f", "#find-words"), ("ctrl+p", "Input")):
            await driver.press(key)
            driver.app.post_message(events.Paste(PAYLOAD))
            await driver.settle()
            assert driver.app.screen.query_one(field, Input).value == clean(PAYLOAD)
            only_text(driver)
            await driver.press("escape")


async def test_an_editor_and_the_history_bring_text_only(
    open_chat: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_screen, "edit_in_editor", lambda app, text: PAYLOAD)
    history = History(tmp_path / "history.db")
    number = history.add(chat(user(1, None, PAYLOAD), reply(2, 1, PAYLOAD), title=PAYLOAD))
    opened = history.load(number)
    # What another program has written into the database: the recorder would have kept it out.
    messages = tuple(replace(one, message=replace(one.message, text=PAYLOAD)) for one in opened.messages)
    async with open_chat(history=history, chat=replace(opened, messages=messages)) as driver:
        await driver.until(lambda: "q[/]" in only_text(driver))
        assert await copied(driver, "f6") == clean(PAYLOAD)
        await driver.press("shift+tab", "up")
        assert await copied(driver, "c") == clean(PAYLOAD)
        await driver.press("e")
        assert driver.chat.prompt.text == clean(PAYLOAD)
        only_text(driver)
        await driver.press("ctrl+g")
        assert driver.chat.prompt.text == clean(PAYLOAD)
        await driver.press("ctrl+o")
        await driver.until(lambda: "q[/]" in only_text(driver))


async def test_names_and_lines_of_others_are_text(open_chat: Open) -> None:
    model = replace(LLAMA_7B, name=PAYLOAD, dtype=PAYLOAD, chat_format=PAYLOAD)
    backend = FakeBackend(["[/x] one"], load=loads(plan_7b(), model))
    async with open_chat(backend, model_name=PAYLOAD, notes=(PAYLOAD,), ready=False) as driver:
        backend.emit(Loading(PAYLOAD, 1, 2))
        await driver.settle()
        only_text(driver)
        backend.advance(3)
        backend.emit(replace(readings(plan_7b()), gpu_name=PAYLOAD))
        for event in (Notice(PAYLOAD), Notice(PAYLOAD, "warning"), Failed(PAYLOAD), Saved(1, PAYLOAD)):
            backend.emit(event)
            await driver.settle()
            only_text(driver)
        await driver.say("hello")
        await driver.advance(1)
        for line in (
            "/system " + PAYLOAD,
            "/set " + ONE_LINE,
            "/theme " + ONE_LINE,
            "/preset x[/y]",
            "/[/x]",
        ):
            await driver.say(line)
            only_text(driver)
        for key in ("f1", "f3", "f4", "f12", "ctrl+t", "ctrl+p"):
            await driver.press(key)
            only_text(driver)
            await driver.press("escape")
        assert driver.app.is_running
