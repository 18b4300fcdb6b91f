from __future__ import annotations

import asyncio
import time

import pytest
from textual.geometry import Offset
from textual.message import Message
from textual.message_pump import MessagePump

from core.engine.commands import Configure, Load, OpenChat, Resume, Rewind, Stop, Submit
from core.engine.events import Done, Failed, Notice, Reason, Stats
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Open
from tui.bridge import Bridge
from tui.outcome import Outcome
from tui.widgets.plain import PlainStatic

HOSTILE = "[/x] [@click=app.quit]click[/] \x1b[2J\x1b]52;c;aGk=\x07 [bold]"


async def test_load_and_settings_go_out_after_the_first_frame(open_chat: Open) -> None:
    async with open_chat(ready=False) as driver:
        assert [type(command) for command in driver.backend.commands] == [Load, Configure]
        assert "Message · Enter sends" in driver.screen_text


async def test_a_message_is_sent_and_its_reply_streams(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three four"])) as driver:
        await driver.say("Count")
        assert driver.sent() == [Submit(1, "Count")]
        assert driver.chat.prompt.text == ""
        await driver.advance(0.35)
        assert driver.text_of(1) == "one two"
        assert "token 2/512" in driver.status
        await driver.advance(3)
        assert driver.text_of(1) == "one two three four"
        assert "idle · 4 tok · 10.0 tok/s · first 0.20 s" in driver.status
        assert "Count" in driver.screen_text
        assert "three four" in driver.screen_text
        assert "ctx ░░░░░░░░░░ 24/4096" in driver.screen_text  # 20 of prompt and 4 of reply


async def test_typing_ahead_while_loading(open_chat: Open) -> None:
    async with open_chat(ready=False) as driver:
        await driver.say("Hello")
        await driver.say("Second")
        assert driver.sent() == [Submit(1, "Hello"), Submit(2, "Second")]
        await driver.advance(1.1)
        assert "reading weights 42 %" in driver.status
        assert "2 queued" in driver.status
        assert "Second" not in driver.screen_text  # shown when its turn comes
        await driver.advance(10)
        assert driver.text_of(1) == driver.text_of(2) == "Hello there."


async def test_escape_stops_the_reply(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three four"])) as driver:
        await driver.say("Count")
        await driver.advance(0.35)
        await driver.press("escape")
        assert driver.sent(Stop) == [Stop(1)]
        assert "stopping" in driver.status
        await driver.advance(1)
        assert driver.text_of(1) == "one two"
        assert "cancelled" in driver.screen_text
        assert "idle" in driver.status


async def test_escape_stops_prefill(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("Count")
        await driver.advance(0.1)
        assert "prefill 50 % · 10/20 tok" in driver.status
        await driver.press("escape")
        assert driver.sent(Stop) == [Stop(1)]


async def test_escape_lets_the_queued_message_go_on(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three", "four"])) as driver:
        await driver.say("a")
        await driver.say("b")
        await driver.advance(0.35)
        assert "1 queued" in driver.status
        await driver.press("escape")
        await driver.advance(5)
        assert driver.text_of(1) == "one two"
        assert driver.text_of(2) == "four"


async def test_escape_takes_back_what_waits_for_the_model(open_chat: Open) -> None:
    async with open_chat(ready=False) as driver:
        await driver.say("a")
        await driver.press("escape")
        await driver.advance(10)
        assert driver.sent(Stop) == [Stop(1)]
        assert driver.chat.prompt.text == "a"
        assert not driver.chat.transcript.has(3)
        assert "1 not sent: back in the prompt" in driver.status
        assert driver.chat.session.state() == "idle"


async def test_a_second_escape_takes_back_what_waits_behind_the_reply(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three"])) as driver:
        for text in ("a", "b", "c d"):
            await driver.say(text)
        await driver.advance(0.35)
        assert "2 queued · Esc stop · next: b" in driver.status
        await driver.press("escape")
        assert "2 queued · Esc takes back" in driver.status
        await driver.press("escape")
        assert driver.sent(Stop) == [Stop(1), Stop(3)]
        assert driver.chat.prompt.text == "b\nc d"
        await driver.advance(3)
        assert driver.chat.session.state().startswith("idle")
        assert [exchange.user for exchange in driver.chat.session.conversation.exchanges] == ["a"]
        await driver.type("another")
        await driver.press("enter")
        await driver.until(lambda: len(driver.sent()) == 4)
        await driver.advance(3)
        assert driver.text_of(4) == "one two three"


async def test_what_is_taken_back_is_not_put_over_a_draft(open_chat: Open) -> None:
    async with open_chat(ready=False) as driver:
        await driver.say("a")
        await driver.type("draft")
        await driver.press("escape")
        assert driver.chat.prompt.text == "draft"
        assert "1 not sent" in driver.status
        await driver.press("up")
        assert driver.chat.prompt.text == "a"


async def test_ctrl_c_stops_and_then_twice_quits(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three four"])) as driver:
        await driver.say("Count")
        await driver.advance(0.35)
        await driver.press("ctrl+c")
        assert driver.sent(Stop) == [Stop(1)]
        await driver.advance(1)
        await driver.press("ctrl+c")
        assert "ctrl+c again quits" in driver.status
        await driver.advance(1.5)  # too slow to count as twice
        await driver.press("ctrl+c")
        assert driver.app.is_running
        assert driver.app.return_value is None
        await driver.advance(0.5)
        await driver.press("ctrl+c")
        assert driver.app.return_value == Outcome(0)


async def test_ctrl_c_copies_a_selection_instead(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three four"])) as driver:
        await driver.say("Count")
        await driver.type("copy me")
        driver.chat.prompt.select_all()
        await driver.press("ctrl+c")
        assert driver.app.clipboard == "copy me"
        assert driver.chat.prompt.selected_text == ""
        assert driver.sent(Stop) == []


@pytest.mark.alone
async def test_quitting_in_the_middle_of_a_reply_is_quick(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["word " * 500])) as driver:
        await driver.say("Go")
        await driver.advance(1)
        start = time.perf_counter()
        await driver.press("ctrl+q")
    assert driver.app.return_value == Outcome(0)
    assert time.perf_counter() - start < 2


async def test_an_engine_that_still_talks_after_the_end_is_ignored(open_chat: Open) -> None:
    async with open_chat() as driver:
        bridge = Bridge(driver.chat)
    bridge(Notice("too late"))
    await asyncio.to_thread(bridge, Notice("much too late"))


def test_a_loop_that_closes_under_a_message_is_no_error() -> None:
    class Closing(MessagePump):
        def post_message(self, message: Message) -> bool:
            raise RuntimeError("Event loop is closed")

    Bridge(Closing())(Notice("in between"))


async def test_a_fatal_failure_ends_with_its_line(open_chat: Open) -> None:
    for user, code in ((True, 2), (False, 1)):
        async with open_chat(ready=False) as driver:
            driver.backend.emit(Failed("params.json: \x1b[2Jno such file", fatal=True, user=user))
            await driver.settle()
        assert driver.app.return_value == Outcome(code, "params.json: [2Jno such file")


async def test_hostile_text_is_shown_as_it_is(open_chat: Open) -> None:
    async with open_chat(
        FakeBackend([HOSTILE.replace("\x1b", "")]), model_name=HOSTILE, notes=(HOSTILE,)
    ) as driver:
        for event in (Notice(HOSTILE), Notice(HOSTILE, "warning"), Failed(HOSTILE)):
            driver.backend.emit(event)
        await driver.say(HOSTILE)
        await driver.advance(2)
        await driver.say("/set nonsense[/x]")
        assert "/set nonsense[/x]: unknown setting" in driver.status
        assert driver.screen_text.count("[@click=app.quit]click[/]") >= 5
        assert "\x1b" not in driver.screen_text
        await driver.pilot.click("#transcript", offset=(20, 1))
        assert driver.app.is_running


async def test_an_error_of_a_reply_is_told_once(open_chat: Open) -> None:
    async with open_chat(ready=False) as driver:
        await driver.say("too long")
        driver.backend.emit(Failed("it broke", user=False))
        driver.backend.emit(Done(1, Reason.ERROR, Stats(), error="it broke"))
        await driver.settle()
        assert driver.screen_text.count("it broke") == 1


async def test_a_new_chat_drops_what_runs_and_what_waits(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three", "fresh"])) as driver:
        await driver.say("a")
        await driver.say("b")
        await driver.advance(0.35)
        await driver.press("ctrl+n")
        assert driver.backend.commands[-2:] == [Stop(2), OpenChat()]
        await driver.say("c")
        await driver.advance(5)
        assert driver.text_of(3) == "fresh"
        assert "one two" not in driver.screen_text
        assert [exchange.user for exchange in driver.chat.session.conversation.exchanges] == ["c"]


async def test_regenerate_goes_back_and_asks_again(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "second", "third"])) as driver:
        await driver.say("a")
        await driver.advance(2)
        await driver.say("b")
        await driver.advance(2)
        before = len(driver.backend.commands)
        await driver.press("ctrl+r")
        assert driver.backend.commands[before:] == [Rewind(2), Resume(3)]  # 2: the message "b"
        await driver.advance(2)
        assert driver.text_of(2) == "third"
        assert "reply ◂ 2/2 ▸" in driver.screen_text
        assert "second" not in driver.screen_text
        assert "first" in driver.screen_text


async def test_regenerate_while_the_reply_runs_stops_it_first(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three", "again"])) as driver:
        await driver.say("a")
        await driver.advance(0.35)
        await driver.press("ctrl+r")
        assert driver.backend.commands[-1] == Stop(1)
        await driver.advance(3)
        assert driver.backend.commands[-2:] == [Rewind(0), Resume(2)]
        assert driver.text_of(1) == "again"


async def test_a_run_stopped_before_its_first_token_is_answered_in_its_place(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("a")
        await driver.press("escape")
        await driver.advance(1)
        await driver.press("ctrl+r")
        assert driver.backend.commands[-2:] == [Rewind(0), Resume(2)]
        await driver.advance(2)
        assert driver.text_of(1) == "Hello there."
        assert driver.screen_text.count("you ▸") == 1


async def test_editing_replaces_the_last_exchange(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["old reply", "new reply"])) as driver:
        await driver.say("a")
        await driver.advance(2)
        await driver.type("a draft")
        await driver.press("f7")
        assert driver.chat.prompt.text == "a"
        await driver.press("up")
        assert driver.chat.prompt.text == "a draft"  # not lost
        await driver.say("b")
        assert driver.backend.commands[-2:] == [Rewind(None), Submit(2, "b")]
        await driver.advance(2)
        assert "old reply" not in driver.screen_text
        assert "new reply" in driver.screen_text


async def test_escape_gives_up_editing(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("a")
        await driver.advance(2)
        await driver.press("f7", "escape")
        assert driver.chat.prompt.text == ""
        await driver.say("b")
        assert driver.sent(Rewind) == []


async def test_what_needs_a_reply_says_so(open_chat: Open) -> None:
    async with open_chat() as driver:
        for key, line in (("f6", "no reply yet"), ("f7", "nothing has been sent"), ("ctrl+r", "nothing has")):
            await driver.press(key)
            assert line in driver.status
        assert driver.sent() == []


async def test_copying_the_last_reply(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two"])) as driver:
        await driver.say("a")
        await driver.advance(2)
        await driver.press("f6")
        assert driver.app.clipboard == "one two"
        assert "copied the last reply, 7 characters" in driver.status


async def test_clicking_while_a_reply_streams(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["- item\n" * 40])) as driver:
        await driver.say("list")
        for step in range(6):
            await driver.advance(0.1)
            await driver.pilot.click("#transcript", offset=(10, 2 * step))
        assert driver.app.is_running


async def test_a_click_into_a_widget_that_has_just_gone(
    open_chat: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_chat() as driver:
        gone = PlainStatic("gone")  # in no tree, as a widget removed since the last layout
        monkeypatch.setattr(
            driver.chat._compositor, "get_widget_and_offset_at", lambda x, y: (gone, Offset(0, 0))
        )
        assert await driver.pilot.click("#transcript", offset=(3, 3))
        assert driver.app.is_running


async def test_text_of_the_transcript_is_copied_and_cleared_before_anything_stops(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three"])) as driver:
        await driver.say("a question")
        await driver.advance(0.35)
        await driver.until(lambda: "one two" in driver.screen_text)

        async def select() -> None:
            await driver.pilot.mouse_down("#transcript", offset=(1, 0))
            await driver.pilot.hover("#transcript", offset=(40, 3))
            await driver.pilot.mouse_up("#transcript", offset=(40, 3))
            await driver.settle()
            assert driver.chat.selections

        await select()
        await driver.press("ctrl+c")
        assert "a question" in driver.app.clipboard
        assert not driver.chat.selections
        await select()
        await driver.press("escape")
        assert not driver.chat.selections
        await driver.press("escape")  # the mouse had taken the focus to the transcript
        assert driver.chat.focused is driver.chat.prompt
        assert driver.sent(Stop) == []
        await driver.press("escape")
        assert driver.sent(Stop) == [Stop(1)]


async def test_typing_into_the_transcript_reaches_the_prompt(open_chat: Open) -> None:
    async with open_chat() as driver:
        driver.chat.transcript.focus()
        await driver.press("h", "i")
        assert driver.chat.prompt.text == "hi"
        assert driver.chat.focused is driver.chat.prompt


async def test_new_text_below_is_announced_until_it_is_followed(open_chat: Open) -> None:
    long = " ".join("line\n" for _ in range(80))
    async with open_chat(FakeBackend([long]), size=(80, 24)) as driver:
        await driver.say("go")
        await driver.advance(5)
        await driver.until(lambda: driver.chat.transcript.max_scroll_y > 10)
        assert "new text below" not in driver.screen_text
        await driver.press("pageup")
        await driver.advance(0.3)
        await driver.until(lambda: "new text below (End)" in driver.screen_text)
        await driver.press("end")
        await driver.until(lambda: "new text below (End)" not in driver.screen_text)
        assert driver.chat.transcript.following
