from __future__ import annotations

import itertools
import string

import pytest
from textual.keys import Keys

from core.engine.commands import Configure, OpenChat, Rewind, Submit
from core.errors import UserError
from core.options import Sampling
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Open
from tui.app import LlamaApp
from tui.commands import ACTIONS, BY_ID, Assign, Call, key_name, read_line, read_setting
from tui.key_tables import markdown_tables
from tui.screens.chat import ChatScreen
from tui.screens.chats import ChatsScreen
from tui.screens.map import MapScreen
from tui.screens.start import StartScreen
from tui.widgets.prompt import Prompt
from tui.widgets.setting_row import SettingRow

_UNBINDABLE = {"ctrl+h", "ctrl+i", "ctrl+m", "ctrl+left_square_bracket"}
_TARGETS = {
    "app": LlamaApp,
    "chat": ChatScreen,
    "prompt": Prompt,
    "settings": SettingRow,
    "chats": ChatsScreen,
    "start": StartScreen,
    "transcript": ChatScreen,
    "find": ChatScreen,
    "map": MapScreen,
}


def test_ids_and_slash_commands_are_unique() -> None:
    assert len(BY_ID) == len(ACTIONS)
    commands = [action.command for action in ACTIONS if action.slash]
    assert len(set(commands)) == len(commands)


def test_keys_are_unique_wherever_they_act_together() -> None:
    everywhere = [key for action in ACTIONS if action.scope in ("app", "chat") for key in action.keys]
    for scope in ("prompt", "settings", "transcript", "find"):
        keys = everywhere + [key for action in ACTIONS if action.scope == scope for key in action.keys]
        assert len(set(keys)) == len(keys)
    over = [key for action in ACTIONS if action.scope in ("app", "chats") for key in action.keys]
    assert len(set(over)) == len(over)  # the list of chats covers the chat and its keys
    over = [key for action in ACTIONS if action.scope in ("app", "map") for key in action.keys]
    assert len(set(over)) == len(over)


def test_every_key_can_be_typed() -> None:
    known = {str(key.value) for key in Keys} | {"delete", "left_square_bracket", "right_square_bracket"}
    known |= set(string.ascii_lowercase)
    for key in itertools.chain.from_iterable(action.keys for action in ACTIONS):
        assert key not in _UNBINDABLE
        assert key.split("+")[-1] in known or key in known or key == "alt+enter", key


def test_every_action_has_its_deed() -> None:
    for action in ACTIONS:
        assert callable(getattr(_TARGETS[action.scope], f"action_{action.id}", None)), action.id


def test_a_line_is_a_message_a_command_or_a_setting() -> None:
    assert read_line("hello /set") == "hello /set"
    assert read_line("//etc/passwd is a file") == "/etc/passwd is a file"
    assert read_line("/new") == Call(BY_ID["new_chat"], "")
    assert read_line("/SYSTEM  Be brief ") == Call(BY_ID["system"], "Be brief")
    assert isinstance(read_line("/top_p 0.5"), Assign)
    assert read_line("/temp 1") == Assign(read_setting("temperature").param, "1")
    assert read_setting("top-k 7").value == "7"


@pytest.mark.parametrize("line", ["/", "/ x", "/nonsense", "/etc/passwd", "/[/x]"])
def test_unknown_commands_are_refused(line: str) -> None:
    with pytest.raises(UserError, match="unknown command, not sent"):
        read_line(line)


def test_what_would_be_ignored_is_refused() -> None:
    with pytest.raises(UserError, match="/new takes nothing behind it"):
        read_line("/new chat please")


def test_a_slip_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean /regenerate"):
        read_line("/regenrate")
    with pytest.raises(UserError, match="did you mean temperature"):
        read_setting("temprature 1")


def test_the_readme_table_has_every_key_and_command() -> None:
    table = markdown_tables()
    rows = [line for line in table.splitlines() if line.startswith("| ") and "what it does" not in line]
    assert len(rows) == len(ACTIONS)
    for action in ACTIONS:
        assert all(key_name(key) in table for key in action.keys)
        assert f"`{action.slash}`" in table or not action.slash
        assert f"| `{action.id}` |" in table
    assert all(line.count("|") == 5 for line in rows)


async def test_slash_commands_act(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one", "two"])) as driver:
        await driver.say("/set temperature 0.9")
        assert driver.last_sampling.temperature == 0.9
        await driver.say("/top_p 0.5")
        assert driver.last_sampling.top_p == 0.5
        await driver.say("/mirostat 2")
        assert driver.last_sampling.mirostat == 2
        await driver.say("/max_tokens 7")
        assert driver.last_sampling.max_tokens == 7
        await driver.say("/system Answer in verse.")
        assert driver.sent(Configure)[-1].system == "Answer in verse."
        assert driver.sent() == []
        await driver.say("hello")
        await driver.advance(2)
        await driver.say("/erase")
        assert driver.backend.commands[-1] == Rewind(None)
        assert "hello" not in driver.screen_text
        await driver.say("/reset")
        assert driver.backend.commands[-2:] == [Configure(Sampling()), OpenChat()]


async def test_unknown_commands_stay_in_the_prompt(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("/nonsense here")
        assert "/nonsense: unknown command, not sent" in driver.status
        assert driver.chat.prompt.text == "/nonsense here"
        assert driver.sent() == []


async def test_two_slashes_send_one(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("//usr is a folder")
        assert driver.sent() == [Submit(1, "/usr is a folder")]


async def test_what_is_chosen_at_load_names_its_flag(open_chat: Open) -> None:
    async with open_chat() as driver:
        for line, flag in (("/max_len 8192", "--context"), ("/set device cpu", "--device")):
            await driver.say(line)
            assert f"restart with {flag}" in driver.status
        assert driver.sent(Configure) == [Configure(Sampling())]


async def test_a_bad_value_names_what_is_accepted(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("/set mirostat 3")
        assert "choose one of 0, 1, 2" in driver.status
        assert driver.chat.prompt.text == "/set mirostat 3"


async def test_set_alone_lists_and_a_name_alone_shows(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("/set")
        assert "repeat_penalty off" in driver.screen_text
        await driver.say("/set seed")
        assert "seed is random" in driver.status
        assert driver.sent(Configure) == [Configure(Sampling())]


async def test_debug_shows_figures_of_the_last_reply_and_of_those_to_come(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three"], surprise=3.0), size=(200, 40)) as driver:
        await driver.say("a")
        await driver.advance(2)
        assert "perplexity" not in driver.screen_text
        await driver.say("/debug")
        figures = "time 0.40 s · surprise 3.00 bits · perplexity 8.00"  # 2**3; 0.2 s to the first of 3 tokens
        assert driver.screen_text.count(figures) == 1
        await driver.say("b")
        await driver.advance(2)
        assert driver.screen_text.count(figures) == 2
        await driver.say("/debug")
        await driver.say("c")
        await driver.advance(2)
        assert driver.screen_text.count(figures) == 2


async def test_the_palette_finds_actions_and_hides_what_cannot_be_done(open_chat: Open) -> None:
    async with open_chat() as driver:
        titles = {command.title for command in driver.app.get_system_commands(driver.chat)}
        assert "New chat" in titles
        assert "Copy the last reply" not in titles
        await driver.press("ctrl+p")
        await driver.until(lambda: driver.app.screen is not driver.chat)
        await driver.press(*"new chat")
        await driver.until(lambda: "Starts an empty conversation" in driver.screen_text)
        await driver.pilot.pause(0.2)
        await driver.press("enter")
        await driver.until(lambda: OpenChat() in driver.backend.commands)
        assert driver.app.screen is driver.chat


async def test_help_shows_keys_commands_and_settings(open_chat: Open) -> None:
    async with open_chat(size=(120, 60)) as driver:
        await driver.press("f1")
        await driver.settle()
        for word in ("ctrl+r", "/regenerate"):
            assert word in driver.screen_text
        await driver.press("pagedown")
        await driver.until(lambda: "/set KEY VALUE" in driver.screen_text)
        await driver.press("end")
        await driver.until(lambda: "/mirostat_eta" in driver.screen_text)
        await driver.press("f1")
        assert driver.app.screen is driver.chat
        await driver.press("f1", "escape")
        assert driver.app.screen is driver.chat


async def test_a_click_on_the_key_bar_does_what_the_key_does(open_chat: Open) -> None:
    async with open_chat() as driver:
        bar = driver.screen_text.splitlines()[-1]
        await driver.pilot.click("#keys", offset=(bar.index("settings"), 0))
        assert isinstance(driver.chat.focused, SettingRow)
        bar = driver.screen_text.splitlines()[-1]
        await driver.pilot.click("#keys", offset=(bar.index("back"), 0))
        assert driver.chat.focused is driver.chat.prompt
        await driver.pilot.click("#keys", offset=(110, 0))  # where nothing is
        assert driver.app.screen is driver.chat


async def test_keys_win_over_the_editors_own(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["reply"])) as driver:
        await driver.say("first")
        await driver.advance(2)
        await driver.type("draft")
        await driver.press("f6")  # the text area would select the line
        assert driver.app.clipboard == "reply"
        assert driver.chat.prompt.selected_text == ""
