from __future__ import annotations

from dataclasses import replace

import pytest
from textual import events

from core.engine.commands import Configure
from core.engine.events import Ready
from core.options import PARAMS, Sampling
from tests.fake_backend import LOAD, MODEL, FakeBackend
from tests.tui.conftest import Driver, Open
from tui.settings import FIXED, LIVE, PLACEMENT
from tui.widgets.setting_row import SettingRow


def row(driver: Driver, key: str) -> SettingRow:
    return driver.chat.query_one(f"#set-{key}", SettingRow)


def text(driver: Driver, key: str) -> str:
    return str(row(driver, key).render())


async def go_to(driver: Driver, key: str) -> None:
    row(driver, key).focus()
    await driver.settle()


async def test_every_live_parameter_has_a_row_and_every_other_is_shown(open_chat: Open) -> None:
    async with open_chat() as driver:
        rows = [row.param for row in driver.chat.query(SettingRow)]
        assert rows == list(LIVE)
        assert {*LIVE, *FIXED, *PLACEMENT} == set(PARAMS)
        for param in (*LIVE, *FIXED):
            assert param.label in driver.screen_text, param.key
        assert "4096 of 8192 tokens" in driver.screen_text
        assert "KV 94.4 MB of 189 MB" in driver.screen_text


async def test_ctrl_t_goes_there_and_back(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.press("ctrl+t")
        assert driver.chat.focused is row(driver, "temperature")
        await driver.press("down", "down", "up")
        assert driver.chat.focused is row(driver, "top_p")
        await driver.press("ctrl+t")
        assert driver.chat.focused is driver.chat.prompt
        await driver.press("ctrl+t")
        assert driver.chat.focused is row(driver, "top_p")


async def test_steps_reach_the_engine_and_are_marked(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.press("ctrl+t", "right", "shift+right")
        assert driver.last_sampling.temperature == pytest.approx(1.15)
        assert "*  1.15" in text(driver, "temperature")
        await driver.press("backspace")
        assert driver.last_sampling == Sampling()
        assert "*" not in text(driver, "temperature")


async def test_a_change_in_the_middle_of_a_reply_goes_out_at_once(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three four five"])) as driver:
        await driver.say("Count")
        await driver.advance(0.35)
        await go_to(driver, "temperature")
        before = len(driver.backend.commands)
        await driver.press("left")
        assert driver.backend.commands[before:] == [Configure(Sampling(temperature=0.55))]
        assert driver.chat.session.busy
        await driver.advance(2)
        assert driver.text_of(1) == "one two three four five"


async def test_steps_stay_in_range(open_chat: Open) -> None:
    async with open_chat() as driver:
        await go_to(driver, "top_p")
        await driver.press("shift+right", "right")
        assert driver.last_sampling.top_p == 1.0
        assert "off" in text(driver, "top_p")
        await go_to(driver, "temperature")
        await driver.press(*["shift+left"] * 3)
        assert driver.last_sampling.temperature == 0


async def test_typing_a_value(open_chat: Open) -> None:
    async with open_chat() as driver:
        await go_to(driver, "temperature")
        await driver.press("enter", "1", ".", "2", "3", "backspace", "5")
        assert "1.25" in text(driver, "temperature")
        assert driver.sent(Configure) == [Configure(Sampling())]  # nothing yet but the start's
        await driver.press("enter")
        assert driver.last_sampling.temperature == 1.25
        assert "temperature is now 1.25; acts on the next token" in driver.status


async def test_a_digit_begins_to_type_and_escape_gives_up(open_chat: Open) -> None:
    async with open_chat() as driver:
        await go_to(driver, "max_tokens")
        await driver.press("6", "4", "escape")
        assert driver.chat.focused is row(driver, "max_tokens")
        assert "512" in text(driver, "max_tokens")
        await driver.press("6", "4", "enter")
        assert driver.last_sampling.max_tokens == 64


async def test_words_for_values(open_chat: Open) -> None:
    async with open_chat(values={"seed": 5, "top_k": 40}) as driver:
        await go_to(driver, "seed")
        await driver.press("enter", *"random", "enter")
        assert driver.last_sampling.seed is None
        await go_to(driver, "top_k")
        await driver.press("enter", *"off", "enter")
        assert driver.last_sampling.top_k == 0


async def test_a_value_out_of_range_is_refused_with_the_range(open_chat: Open) -> None:
    async with open_chat() as driver:
        for typed, complaint in (("9", "out of range, give a number from 0 to 5"), ("..", "give a number")):
            await go_to(driver, "temperature")
            await driver.press("enter", *typed, "enter")
            assert complaint in driver.status
        assert driver.sent(Configure) == [Configure(Sampling())]
        assert "0.60" in text(driver, "temperature")


async def test_mirostat_greys_what_it_ignores_and_says_why(open_chat: Open) -> None:
    async with open_chat() as driver:
        assert "needs Mirostat" in text(driver, "mirostat_tau")
        await go_to(driver, "mirostat")
        assert text(driver, "mirostat").endswith("[off] 1  2 ")
        await driver.press("right", "right")
        assert driver.last_sampling.mirostat == 2
        assert text(driver, "mirostat").endswith(" off  1 [2]")
        for key in ("temperature", "top_p", "top_k", "min_p", "repeat_penalty"):
            assert row(driver, key).has_class("-inert"), key
            assert "ignored by Mirostat" in text(driver, key)
        for key in ("mirostat_tau", "mirostat_eta", "max_tokens"):
            assert not row(driver, key).has_class("-inert"), key
        await go_to(driver, "top_p")
        assert "Ignored by Mirostat" in str(driver.chat.query_one("#sidebar-help").render())


async def test_temperature_zero_greys_the_filters(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("/temperature 0")
        assert row(driver, "top_k").has_class("-inert")
        assert not row(driver, "repeat_penalty").has_class("-inert")
        await driver.say("/temperature 1")
        assert not row(driver, "top_k").has_class("-inert")


async def test_help_follows_the_cursor(open_chat: Open) -> None:
    async with open_chat() as driver:
        await go_to(driver, "seed")
        help_text = str(driver.chat.query_one("#sidebar-help").render())
        assert "Acts on the next message" in help_text
        assert "same tokens" in help_text
        await driver.press("down")
        assert "Acts on the next token" in str(driver.chat.query_one("#sidebar-help").render())


async def test_the_system_prompt_is_edited_in_a_dialog(open_chat: Open) -> None:
    async with open_chat() as driver:
        await go_to(driver, "system")
        await driver.press("enter")
        assert "Instructions that stand before" in driver.screen_text
        await driver.press(*"Be brief", "enter")
        await driver.until(lambda: driver.sent(Configure)[-1].system == "Be brief")
        assert "Be brief" in text(driver, "system")
        assert driver.chat.focused is row(driver, "system")
        await driver.press("enter", "x", "escape")
        assert driver.sent(Configure)[-1].system == "Be brief"


async def test_values_from_the_command_line_are_marked(open_chat: Open) -> None:
    async with open_chat(values={"top_k": 40}) as driver:
        assert driver.last_sampling.top_k == 40
        assert "*" in text(driver, "top_k")
        assert "*" not in text(driver, "top_p")


async def test_a_context_that_is_the_models_limit_says_so(open_chat: Open) -> None:
    load = (*LOAD[:-1], (0.5, Ready(replace(MODEL, context=8192))))
    async with open_chat(FakeBackend(load=load)) as driver:
        assert "8192 tokens, the limit" in driver.screen_text
        assert "KV 189 MB" in driver.screen_text


async def test_another_context_is_refused_with_what_each_would_take(open_chat: Open) -> None:
    for command in ("/context 8192", "/max_len 8192", "/set context 8192"):
        async with open_chat() as driver:
            await driver.say(command)
            assert "context is chosen when a model is loaded: restart with --context" in driver.status
            words = " ".join(" ".join(line[:78] for line in driver.screen_text.splitlines()).split())
            choices = "1024 23.6 MB · 2048 47.2 MB · [4096] 94.4 MB · 8192 189 MB"
            assert f"KV cache by context: {choices}" in words, command


async def test_the_last_row_that_is_there_shows_the_end(open_chat: Open) -> None:
    """Rows of the placement are not, where all is computed on the CPU."""
    async with open_chat(size=(80, 24)) as driver:
        await driver.press("ctrl+t")
        assert "KV 94.4" not in driver.screen_text
        await go_to(driver, LIVE[-1].key)
        assert "KV 94.4 MB of 189 MB" in driver.screen_text


async def test_keys_right_behind_each_other_mean_what_they_did_when_pressed(
    open_chat: Open,
) -> None:
    """The row has the Enter although the focus has left by the time it gets to it."""
    async with open_chat() as driver:
        await driver.press("ctrl+t", "down", "0")
        for key in ("enter", "ctrl+t"):
            driver.app.post_message(events.Key(key, None))
        await driver.settle()
        assert driver.last_sampling.top_p == 0
        assert driver.chat.focused is driver.chat.prompt
        assert not driver.chat.prompt.enter_pending
