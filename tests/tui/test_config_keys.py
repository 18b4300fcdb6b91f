"""`[keys]` of config.toml: what may be a key, where it acts, and that every text names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.config.read import Config, read_config
from core.engine.commands import Submit
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Open
from tui import keys
from tui.commands import ACTIONS
from tui.key_tables import markdown_tables
from tui.keys import keys_of, read_keys
from tui.widgets.setting_row import SettingRow


@pytest.fixture(autouse=True)
def own_keys_end() -> Iterator[None]:
    """The keys are the process's."""
    yield
    keys.use({})


def configured(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(f"[keys]\n{text}\n", encoding="utf-8")
    config = read_config(path)
    assert config.warnings == ()
    return config


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('regenerate = "f5"', {"regenerate": ("f5",)}),
        ('regenerate = " F5 , Ctrl+Y,f5"', {"regenerate": ("f5", "ctrl+y")}),
        ('preset = "shift+alt+Right"', {"preset": ("alt+shift+right",)}),
        ('preset = "ctrl+/"', {"preset": ("ctrl+slash",)}),
        ('page_up = "ctrl+PgUp"', {"page_up": ("ctrl+pageup",)}),
        ('erase = "ctrl+x"', {"erase": ("ctrl+x",)}),
        ('send = "ctrl+s"\nnewline = "enter"', {"send": ("ctrl+s",), "newline": ("enter",)}),
        ('regenerate = "f6"\ncopy = "ctrl+r"', {"regenerate": ("f6",), "copy": ("ctrl+r",)}),
        ('turn = "x"', {"turn": ("x",)}),
        ('export_chat = "f6"', {"export_chat": ("f6",)}),  # the list of chats covers the chat
    ],
)
def test_keys_that_can_be(tmp_path: Path, text: str, read: dict[str, tuple[str, ...]]) -> None:
    assert read_keys(configured(tmp_path, text)) == (read, [])


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ('regenrate = "f5"', ['2: there is no action "regenrate"; did you mean regenerate?; ignored']),
        ('xyz = "f5"', ['2: there is no action "xyz"; the README lists the actions; ignored']),
        ('regenerate = "ctrl+i"',
         ['2: regenerate "ctrl+i": terminals send that as tab; give another; ignored']),
        ('regenerate = "ctrl+["',
         ['2: regenerate "ctrl+[": terminals send that as escape; give another; ignored']),
        ('regenerate = "ctrl+h"',
         ['2: regenerate "ctrl+h": terminals send that as backspace; give another; ignored']),
        ('regenerate = "ctrl+m"',
         ['2: regenerate "ctrl+m": terminals send that as enter; give another; ignored']),
        ('regenerate = "r"',
         ['2: regenerate "r": that is needed for typing; give it with ctrl or alt, or another; ignored']),
        ('regenerate = "?"',
         ['2: regenerate "?": that is needed for typing; give it with ctrl or alt, or another; ignored']),
        ('turn = "7"',
         ['2: turn "7": that is needed for typing; give it with ctrl or alt, or another; ignored']),
        ('regenerate = "left"',
         ['2: regenerate "left": that is needed for editing; give it with ctrl or alt, or another; ignored']),
        ('regenerate = "f5,nokey"',
         ['2: regenerate "nokey": there is no such key; give one such as "f5", "ctrl+r" or "alt+left"'
          "; ignored"]),
        ('regenerate = ""',
         ['2: regenerate "": there is no such key; give one such as "f5", "ctrl+r" or "alt+left"; ignored']),
        ('regenerate = "command+r"',
         ['2: regenerate "command+r": what goes before a key is alt, ctrl, hyper, meta, shift, super'
          "; ignored"]),
        ('regenerate = "f6"', ["2: regenerate F6: copy has that key; ctrl+r stays"]),
        ('send = "f1"', ["2: send F1: help has that key; Enter stays"]),
        ('erase = "f1"', ["2: erase F1: help has that key; ignored"]),
        ('regenerate = "f5"\npreset = "f5"', ["3: preset F5: regenerate has that key; F9 stays"]),
        # The second of a swap cannot be, so that the first's new key is taken again.
        ('regenerate = "f6"\ncopy = "f1"', [
            "3: copy F1: help has that key; F6 stays", "2: regenerate F6: copy has that key; ctrl+r stays"]),
        ('close_chats = "ctrl+q"', ["2: close_chats ctrl+q: quit has that key; Esc stays"]),
    ],
)  # fmt: skip
def test_keys_that_cannot_be_are_warnings_and_the_default_stays(
    tmp_path: Path, text: str, warnings: list[str]
) -> None:
    read, said = read_keys(configured(tmp_path, text))
    assert read == ({"regenerate": ("f5",)} if text.startswith('regenerate = "f5"\n') else {})
    assert said == [f"config.toml line {warning}" for warning in warnings]


def test_every_default_key_passes_the_checks(tmp_path: Path) -> None:
    lines = [f'{action.id} = "{action.key}"' for action in ACTIONS if action.key]
    read, said = read_keys(configured(tmp_path, "\n".join(lines)))
    assert said == []
    assert read == {action.id: action.keys for action in ACTIONS if action.key}


async def test_a_moved_key_acts_and_its_old_one_does_not(open_chat: Open, tmp_path: Path) -> None:
    config = configured(
        tmp_path, 'regenerate = "f6"\ncopy = "f5"\nerase = "f10"\nsettings = "ctrl+b"\nhelp = "f11"'
    )
    async with open_chat(FakeBackend(["one", "two"]), config=config) as driver:
        await driver.say("hello")
        await driver.advance(2)
        await driver.press("f5")
        assert driver.app.clipboard == "one"
        await driver.press("ctrl+r", "ctrl+t", "f1")
        assert driver.chat.focused is driver.chat.prompt
        assert driver.app.screen is driver.chat
        assert not driver.chat.session.busy
        await driver.press("f6")
        assert driver.chat.session.busy
        await driver.advance(2)
        assert "two" in driver.screen_text
        await driver.press("f10")
        assert "hello" not in driver.screen_text
        await driver.press("ctrl+b")
        assert isinstance(driver.chat.focused, SettingRow)
        await driver.press("f11")
        assert driver.app.screen is not driver.chat
        await driver.press("f11")
        assert driver.app.screen is driver.chat


async def test_every_text_names_the_moved_key(open_chat: Open, tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        'settings = "ctrl+b"\nback = "f10"\ncopy = "f5"\npreset = "alt+p"\nsend = "ctrl+s"\n'
        'newline = "enter"\ninterrupt = "ctrl+x"\nmore = "f7"\nedit = "f11"',
    )  # fmt: skip
    async with open_chat(FakeBackend(["one two three"]), config=config, size=(120, 70)) as driver:
        bar = driver.screen_text.splitlines()[-1]
        assert "ctrl+b settings" in bar
        assert "F5 copy reply" in bar
        assert "ctrl+s sends · / commands · Enter new line" in driver.screen_text
        assert "preset: balanced alt+p" in driver.screen_text
        assert "ctrl+b comes here. Left and F7 change" in " ".join(driver.screen_text.split())
        await driver.type("hello")
        await driver.press("ctrl+s")
        await driver.until(lambda: driver.sent() == [Submit(1, "hello")])
        await driver.advance(0.3)
        assert driver.status.endswith("F10 stop")
        await driver.advance(3)
        await driver.press("ctrl+x")
        assert "ctrl+x again quits" in driver.status
        await driver.press("f11")
        assert "ctrl+s replaces the last message and its reply, F10 leaves them" in driver.status
        await driver.press("f10", "f1")
        await driver.until(lambda: "ctrl+b            /settings" in driver.screen_text)
        await driver.press("end")
        await driver.until(lambda: "in the sidebar (ctrl+b)" in driver.screen_text)
        assert "alt+p takes the next" in driver.screen_text
        commands = {command.title: command.help for command in driver.app.get_system_commands(driver.chat)}
        assert commands["Preset"].startswith("alt+p · ")
    assert "`/preset NAME`" in markdown_tables()
    assert "alt+p" not in markdown_tables()  # the README has the table's keys


async def test_keys_of_the_prompt_and_of_the_settings_move(open_chat: Open, tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        'send = "ctrl+s"\nnewline = "enter"\nhistory_back = "ctrl+up"\nmore = "x"\nfield_down = "j,down"',
    )
    async with open_chat(config=config) as driver:
        await driver.type("a")
        await driver.press("enter", "b")
        assert driver.chat.prompt.text == "a\nb"
        await driver.press("up", "c")  # the editor's own, where the history is elsewhere
        assert driver.chat.prompt.text == "ac\nb"
        await driver.press("down", "d")
        assert driver.chat.prompt.text == "ac\nbd"
        await driver.press("ctrl+s")
        await driver.until(lambda: driver.sent() == [Submit(1, "ac\nbd")])
        await driver.press("up")
        assert driver.chat.prompt.text == ""
        await driver.press("ctrl+up")
        assert driver.chat.prompt.text == "ac\nbd"
        await driver.press("ctrl+t", "x")
        assert driver.last_sampling.temperature == 0.65
        await driver.press("right")
        assert driver.last_sampling.temperature == 0.65
        await driver.press("j")
        assert driver.chat.focused is driver.chat.query_one("#set-top_p")


async def test_another_app_has_the_tables_keys_again(open_chat: Open, tmp_path: Path) -> None:
    async with open_chat(config=configured(tmp_path, 'settings = "ctrl+b"')) as driver:
        await driver.press("ctrl+b")
        assert isinstance(driver.chat.focused, SettingRow)
    async with open_chat() as driver:
        await driver.press("ctrl+b")
        assert driver.chat.focused is driver.chat.prompt
        assert all(keys_of(action) == action.keys for action in ACTIONS)


async def test_warnings_are_notes_in_the_chat(open_chat: Open, tmp_path: Path) -> None:
    config = configured(tmp_path, 'settings = "f1"\nnothing = "f5"')
    async with open_chat(config=config) as driver:
        text = " ".join(driver.screen_text.replace("│", " ").split())
        assert "config.toml line 2: settings F1: help has that key; ctrl+t stays" in text
        assert 'config.toml line 3: there is no action "nothing"' in text
