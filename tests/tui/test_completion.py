"""Slash commands that complete as they are typed."""

from __future__ import annotations

import pytest

from core.engine.commands import Configure, OpenChat, Submit
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Driver, Open
from tui.commands import ACTIONS
from tui.settings import FIXED, LIVE, PLACEMENT, Settings
from tui.slash_completion import Sources, complete
from tui.widgets.completion import CompletionList


def texts(typed: str, settings: Settings | None = None) -> list[str]:
    found = complete(typed, Sources(settings or Settings({}), lambda: ["nord", "dracula", "nano"]))
    return [candidate.text for candidate in found.candidates]


def hint(typed: str) -> str:
    return complete(typed, Sources(Settings({}), list)).hint


# --- what completes -----------------------------------------------------------------------------


def test_every_command_and_every_parameter_completes() -> None:
    offered = {text.strip() for text in texts("/")}
    for action in ACTIONS:
        assert not action.slash or f"/{action.command}" in offered
    for param in (*LIVE, *PLACEMENT, *FIXED):
        assert f"/{param.key}" in offered
    assert len(texts("/")) == len(offered)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("/reg", ["/regenerate"]),
        ("/REG", ["/regenerate"]),
        ("/max_l", ["/max_len "]),  # another name of the context
        ("/tau", ["/mirostat_tau "]),  # within a name
        ("/temp", ["/temperature "]),
        ("/set top", ["/set top_p ", "/set top_k "]),
        ("/set device ", []),  # there is a hint
        ("/theme n", ["/theme nano", "/theme nord"]),
        ("/preset b", ["/preset balanced"]),
        ("/mirostat ", ["/mirostat 0", "/mirostat 1", "/mirostat 2", "/mirostat off"]),
        ("/mirostat 2", ["/mirostat 2"]),
        ("/set mirostat 1", ["/set mirostat 1"]),
        ("/keep wq,w", [f"/keep wq,{name}" for name in ("wq", "wk", "wv", "wo", "w1", "w2", "w3")]),
        ("/keep a", ["/keep auto", "/keep attention"]),
        ("/keep wq at", ["/keep wq attention"]),
        ("/nonsense", []),
        ("//reg", []),
        ("hello /reg", []),
        ("/reg\nmore", []),
        ("/rename my chat", []),
        ("", []),
    ],
)
def test_what_may_follow(typed: str, expected: list[str]) -> None:
    assert texts(typed) == expected


def test_a_number_has_a_hint() -> None:
    assert hint("/temperature ") == "temperature: a number from 0 to 5; now 0.60"
    assert hint("/set seed ") == "seed: a whole number from 0 to 9223372036854775807, or random; now random"
    assert hint("/device ") == "device is chosen when a model is loaded: restart with --device"
    assert hint("/mirostat 2 ") == "tau: a number from 0.1 to 20; now 5.00"
    assert hint("/mirostat 2 5 ") == "eta: a number from 0.001 to 1; now 0.10"
    assert hint("/mirostat 2 5 0.1 ") == ""


@pytest.mark.parametrize(
    ("typed", "whole"),
    [("/new", True), ("/ne", False), ("/set temp", True), ("/set te", False), ("/preset ", True),
     ("/preset bal", False), ("/preset balanced", True), ("/keep layers.3", True), ("/nonsense", False)],
)  # fmt: skip
def test_what_can_be_run_as_it_is(typed: str, whole: bool) -> None:
    assert complete(typed, Sources(Settings({}), list)).whole is whole


# --- on the screen ------------------------------------------------------------------------------


def rows(driver: Driver) -> list[str]:
    """The list as it shows, from top to bottom."""
    completion = driver.chat.query_one(CompletionList)
    if not completion.display:
        return []
    return [line.rstrip() for line in completion.render().plain.splitlines()]


async def typing(driver: Driver, text: str) -> None:
    await driver.press(*text)
    await driver.settle()


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 40)])
async def test_the_list_narrows_as_one_types_and_stands_above_the_prompt(
    open_chat: Open, size: tuple[int, int]
) -> None:
    async with open_chat(size=size) as driver:
        await typing(driver, "/")
        many = len(rows(driver))
        assert many > 1
        await typing(driver, "reg")
        assert len(rows(driver)) == 1
        lines = driver.screen_text.splitlines()
        at = next(i for i, line in enumerate(lines) if "/regenerate" in line)
        assert "idle" in lines[at + 1]  # the status line stays in sight
        assert "/reg" in lines[at + 2]
        assert "Answers the last" in lines[at] if size[0] > 40 else "Answers" in lines[at]
        assert all(len(line) <= size[0] for line in lines)
        await driver.press("backspace", "backspace", "backspace", "backspace")
        assert rows(driver) == []


async def test_tab_completes_and_enter_runs_what_is_whole(open_chat: Open) -> None:
    async with open_chat() as driver:
        await typing(driver, "/ne")
        await driver.press("tab")
        assert driver.chat.prompt.text == "/new"  # the first of those that begin so
        await driver.press("enter")
        await driver.until(lambda: OpenChat() in driver.backend.commands)
        assert driver.chat.prompt.text == ""


async def test_enter_completes_what_is_not_whole(open_chat: Open) -> None:
    async with open_chat() as driver:
        await typing(driver, "/set tem")
        await driver.press("enter")
        await driver.until(lambda: driver.chat.prompt.text == "/set temperature ")
        assert rows(driver) == ["temperature: a number from 0 to 5; now 0.60"]
        await typing(driver, "0.3")
        await driver.press("enter")
        await driver.until(lambda: driver.sent(Configure)[-1].sampling.temperature == 0.3)


async def test_up_and_down_choose_and_enter_takes_the_choice(open_chat: Open) -> None:
    async with open_chat() as driver:
        await typing(driver, "/preset ")
        names = list(driver.chat.session.settings.presets)
        assert [row.split()[0] for row in rows(driver)] == names[:8]
        await driver.press("down", "down", "enter")
        await driver.until(lambda: driver.chat.prompt.text == f"/preset {names[1]}")
        await driver.press("enter")
        await driver.until(lambda: driver.chat.session.settings.preset == names[1])


async def test_enter_behind_an_empty_argument_runs_the_command(open_chat: Open) -> None:
    async with open_chat() as driver:
        before = driver.chat.session.settings.next_preset()
        await driver.say("/preset ")
        await driver.until(lambda: driver.chat.session.settings.preset == before)


async def test_escape_closes_the_list_until_something_is_typed(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three four"])) as driver:
        await driver.say("hello")
        await driver.advance(0.35)
        await typing(driver, "/re")
        await driver.press("escape")
        assert rows(driver) == []
        assert driver.chat.prompt.text == "/re"
        assert driver.chat.session.busy  # and nothing was stopped
        await driver.press("up")  # the arrows are the prompt's again
        assert driver.chat.prompt.text == "hello"
        await driver.press("down")
        await typing(driver, "g")
        assert len(rows(driver)) == 1


async def test_a_message_is_sent_by_one_enter_whatever_is_in_it(open_chat: Open) -> None:
    async with open_chat() as driver:
        for number, text in enumerate(("set me free", "a /set", "//set"), 1):
            await driver.say(text)
            assert driver.sent()[-1] == Submit(number, text.removeprefix("/"))


async def test_commands_in_the_history_do_not_hold_the_arrows(open_chat: Open) -> None:
    async with open_chat() as driver:
        for line in ("first", "/set temperature 0.5", "/debug"):
            await driver.say(line)
        seen = []
        for _ in range(3):
            await driver.press("up")
            seen.append(driver.chat.prompt.text)
        assert seen == ["/debug", "/set temperature 0.5", "first"]


async def test_tab_without_a_list_goes_on_to_the_next_part(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.press("tab")
        await driver.until(lambda: driver.chat.focused is not driver.chat.prompt)


async def test_a_click_takes_a_row(open_chat: Open) -> None:
    async with open_chat() as driver:
        await typing(driver, "/se")
        await driver.pilot.click("#completion", offset=(3, 1))
        await driver.until(lambda: driver.chat.prompt.text == complete_second(driver))
        assert driver.chat.focused is driver.chat.prompt


def complete_second(driver: Driver) -> str:
    return texts("/se")[1]


async def test_names_that_look_like_markup_are_shown_as_they_are(open_chat: Open) -> None:
    async with open_chat() as driver:
        driver.chat.session.settings.presets["[bold"] = {}
        await typing(driver, "/preset [")
        assert rows(driver) == ["[bold"]
