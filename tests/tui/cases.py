"""What every action does, by its id: the cases that tests/tui/test_every_action.py goes through.

Those of the chat and of the whole app; the other places are in places.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from textual.command import CommandPalette

from core.config.read import read_config
from core.engine.commands import Apply, Resume, Stop
from core.folders import config_file
from tests.tui.conftest import Driver
from tui.screens.chats import ChatsScreen
from tui.screens.gauges import GaugesScreen
from tui.screens.help import HelpScreen
from tui.screens.log import LogScreen
from tui.screens.map import MapScreen
from tui.widgets.sidebar_row import SidebarRow

QUESTION, REPLY = "a question", "one two three"


class Do(Protocol):
    """Does the action: by a key, or by its command with what stands behind that."""

    async def __call__(self, argument: str = "") -> None: ...


@dataclass
class Here:
    """A running app, in which the chat has one exchange, and one way to do the action."""

    driver: Any
    do: Do
    folder: Path
    by_key: bool
    paged: list[str] = field(default_factory=list)
    left: list[object] = field(default_factory=list)

    @property
    def session(self) -> Any:
        return self.driver.chat.session

    @property
    def values(self) -> Any:
        return self.session.settings.values


Case = Callable[[Here], Awaitable[None]]
CASES: dict[str, Case] = {}


def case(*ids: str) -> Callable[[Case], Case]:
    """Has a function be the case of these actions."""

    def registered(check: Case) -> Case:
        for id in ids:
            assert id not in CASES
            CASES[id] = check
        return check

    return registered


async def ask(driver: Driver, text: str = QUESTION, seconds: float = 0.8) -> None:
    driver.chat.send(text)
    await driver.advance(seconds)


# --- in the prompt --------------------------------------------------------------------------------


@case("send")
async def sends(here: Here) -> None:
    await here.driver.type("hello")
    await here.do()
    await here.driver.until(lambda: here.driver.sent()[-1].text == "hello")
    await here.driver.advance(1)


@case("newline")
async def starts_a_line(here: Here) -> None:
    await here.driver.type("a")
    await here.do()
    assert here.driver.chat.prompt.text == "a\n"


@case("complete")
async def completes(here: Here) -> None:
    await here.driver.type("/gau")
    await here.do()
    assert here.driver.chat.prompt.text == "/gauges"


@case("history_back")
async def brings_the_message_before(here: Here) -> None:
    here.driver.chat.prompt.remember("sent before")
    await here.do()
    assert here.driver.chat.prompt.text == "sent before"


@case("history_on")
async def brings_the_message_after(here: Here) -> None:
    here.driver.chat.prompt.remember("sent before")
    await here.driver.type("draft")
    await here.driver.press("up")
    await here.do()
    assert here.driver.chat.prompt.text == "draft"


# --- in the chat ----------------------------------------------------------------------------------


@case("back")
async def goes_back_to_the_prompt(here: Here) -> None:
    await here.driver.press("shift+tab")
    await here.do()
    assert here.driver.chat.focused is here.driver.chat.prompt


@case("interrupt")
async def copies_what_is_selected(here: Here) -> None:
    await here.driver.type("copy me")
    here.driver.chat.prompt.select_all()
    await here.do()
    await here.driver.until(lambda: here.driver.app.clipboard == "copy me")


@case("stop")
async def stops_the_reply(here: Here) -> None:
    await ask(here.driver, seconds=0.3)
    await here.do()
    assert isinstance(here.driver.backend.commands[-1], Stop)
    await here.driver.advance(1)
    assert "cancelled" in here.driver.screen_text


@case("settings")
async def goes_to_the_settings(here: Here) -> None:
    await here.do()
    assert isinstance(here.driver.chat.focused, SidebarRow)
    await here.driver.press("ctrl+t")
    assert here.driver.chat.focused is here.driver.chat.prompt


@case("new_chat")
async def empties_the_chat(here: Here) -> None:
    assert REPLY in here.driver.screen_text
    await here.do()
    assert REPLY not in here.driver.screen_text
    assert here.session.conversation.exchanges == []


@case("chats")
async def lists_the_chats(here: Here) -> None:
    await here.do("hens")
    await here.driver.until(lambda: isinstance(here.driver.app.screen, ChatsScreen))
    screen = here.driver.app.screen
    await here.driver.until(lambda: screen.search.is_mounted)
    assert screen.search.value == ("" if here.by_key else "hens")
    await here.driver.press(*["escape"] * (1 if here.by_key else 2))
    await here.driver.until(lambda: here.driver.app.screen is here.driver.chat)


@case("rename")
async def changes_the_title(here: Here) -> None:
    await here.do("Wolves")
    await here.driver.until(lambda: "Wolves" in here.driver.screen_text.splitlines()[0])


@case("export")
async def writes_a_file(here: Here) -> None:
    await here.do(str(here.folder / "chat.md"))
    await here.driver.until((here.folder / "chat.md").exists)
    assert REPLY in (here.folder / "chat.md").read_text()


@case("regenerate")
async def answers_again(here: Here) -> None:
    await here.do()
    assert isinstance(here.driver.backend.commands[-1], Resume)
    await here.driver.advance(1)
    assert "reply ◂ 2/2 ▸" in here.driver.screen_text


@case("continue")
async def goes_on_with_a_reply(here: Here) -> None:
    await ask(here.driver, "cut off", 0.3)
    await here.driver.press("escape")
    await here.driver.advance(0.3)
    short = here.session.conversation.last.reply
    await here.do()
    await here.driver.advance(1)
    assert here.session.conversation.last.reply == f"{short} {REPLY}"


async def two_versions(here: Here) -> None:
    await here.driver.press("ctrl+r")
    await here.driver.advance(1)
    assert "reply ◂ 2/2 ▸" in here.driver.screen_text


@case("previous")
async def goes_to_the_version_before(here: Here) -> None:
    await two_versions(here)
    await here.do()
    assert "reply ◂ 1/2 ▸" in here.driver.screen_text


@case("next")
async def goes_to_the_version_after(here: Here) -> None:
    await two_versions(here)
    await here.driver.press("alt+left")
    assert "reply ◂ 1/2 ▸" in here.driver.screen_text
    await here.do()
    assert "reply ◂ 2/2 ▸" in here.driver.screen_text


@case("edit")
async def brings_the_message_back(here: Here) -> None:
    await here.do()
    assert here.driver.chat.prompt.text == QUESTION
    await here.driver.press("escape")


@case("erase")
async def takes_the_exchange_away(here: Here) -> None:
    await here.do()
    assert REPLY not in here.driver.screen_text


@case("copy")
async def copies_the_reply(here: Here) -> None:
    await here.do()
    await here.driver.until(lambda: here.driver.app.clipboard == REPLY)


@case("editor")
async def opens_an_editor(here: Here) -> None:
    await here.do()
    assert here.driver.chat.prompt.text == "edited"


@case("pager")
async def shows_the_pager(here: Here) -> None:
    await here.do()
    assert QUESTION in here.paged[-1]


@case("messages")
async def walks_over_the_messages(here: Here) -> None:
    await here.do()
    assert here.driver.chat.walking
    await here.driver.press("escape")


@case("find")
async def finds_words(here: Here) -> None:
    await here.do("question")
    assert here.driver.chat.finding
    if not here.by_key:
        assert "1 of 1" in here.driver.screen_text
    await here.driver.press("escape")


async def scrolled(here: Here) -> float:
    """Rows by which the action scrolls, from some way above the end."""
    await ask(here.driver, "line\n" * 200)
    await here.driver.press("pageup", "pageup")
    before = here.driver.chat.transcript.scroll_y
    await here.do()
    return float(here.driver.chat.transcript.scroll_y - before)


@case("page_up")
async def scrolls_up(here: Here) -> None:
    assert await scrolled(here) < -5


@case("page_down")
async def scrolls_down(here: Here) -> None:
    assert await scrolled(here) > 5


@case("follow")
async def goes_to_the_end(here: Here) -> None:
    assert await scrolled(here) > 0
    assert here.driver.chat.transcript.following


@case("set")
async def changes_a_setting(here: Here) -> None:
    await here.do("seed 5")
    assert here.values["seed"] == 5
    assert "seed is now 5" in here.driver.status


@case("system")
async def sets_the_system_prompt(here: Here) -> None:
    await here.do("Be brief.")
    assert here.values["system"] == "Be brief."


@case("apply")
async def applies_the_placement(here: Here) -> None:
    plan = here.driver.backend.plan
    here.session.placement.enter_kept("none" if here.by_key else "wq")
    applied = len(here.driver.sent(Apply))
    await here.do()
    assert len(here.driver.sent(Apply)) == applied + 1
    await here.driver.advance(2)
    assert here.driver.backend.plan is not plan


@case("keep")
async def names_what_stays(here: Here) -> None:
    await here.do("w1,wq")
    assert here.session.placement.pending
    assert "F8 applies" in here.driver.status
    here.session.placement.undo()


@case("preset")
async def takes_a_preset(here: Here) -> None:
    before = here.session.settings.preset
    await here.do("creative")
    assert here.session.settings.preset != before
    assert f"preset {here.session.settings.preset}" in here.driver.status
    here.session.settings.choose("balanced")


@case("mirostat")
async def chooses_mirostat(here: Here) -> None:
    await here.do("2 3 0.2")
    assert [here.values[key] for key in ("mirostat", "mirostat_tau", "mirostat_eta")] == [2, 3, 0.2]


@case("save_preset")
async def keeps_a_preset(here: Here) -> None:
    await here.do("mine")
    await here.driver.until(lambda: config_file().exists() and "mine" in read_config(config_file()).presets)


@case("cache")
async def tells_of_the_cache(here: Here) -> None:
    await here.do()
    assert "KV cache: 24 of" in here.driver.screen_text


@case("progress")
async def tells_how_far_it_is(here: Here) -> None:
    await here.do()
    assert here.driver.screen_text.count("idle · 3 tok") == 2  # in the chat too


@case("unload")
async def gives_the_memory_back(here: Here) -> None:
    await here.do()
    assert here.session.asleep
    assert "the model is unloaded" in here.driver.status


@case("reset")
async def sets_defaults(here: Here) -> None:
    await here.driver.say("/seed 7")
    await here.do()
    assert here.values["seed"] is None
    assert here.session.conversation.exchanges == []


@case("debug")
async def shows_more_figures(here: Here) -> None:
    await here.do()
    assert "perplexity" in here.driver.screen_text
    await here.driver.say("/debug")


# --- everywhere -----------------------------------------------------------------------------------


def page(id: str, kind: type[object]) -> None:
    """An action that shows a screen, which its key or Esc closes."""

    @case(id)
    async def shows_a_page(here: Here) -> None:
        await here.do()
        await here.driver.until(lambda: isinstance(here.driver.app.screen, kind))
        if here.by_key and kind is not CommandPalette:
            await here.do()
        else:
            await here.driver.press("escape")
        await here.driver.until(lambda: here.driver.app.screen is here.driver.chat)


for _id, _kind in {
    "gauges": GaugesScreen,
    "map": MapScreen,
    "log": LogScreen,
    "command_palette": CommandPalette,
    "help": HelpScreen,
}.items():
    page(_id, _kind)


@case("change_theme")
async def changes_the_colours(here: Here) -> None:
    await here.do("nord")
    assert here.driver.app.theme == "nord"


@case("quit")
async def leaves(here: Here) -> None:
    before = len(here.left)
    await here.do()
    await here.driver.until(lambda: len(here.left) > before)
