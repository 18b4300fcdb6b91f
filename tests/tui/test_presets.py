"""Presets in the chat: chosen with a key or by name, shown, changed, saved."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from filelock import FileLock

from core.config import write
from core.config.read import Config, read_config
from core.engine.commands import Configure
from core.errors import UserError
from core.options import BY_KEY, Sampling, default_values
from core.presets import SHIPPED
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Driver, Open
from tui.settings import LIVE, Settings


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("LLAMA_TUI_CONFIG", str(path))
    return path


def title(driver: Driver) -> str:
    return str(driver.chat.query_one("#sidebar-title").render())


# --- the settings alone ---------------------------------------------------------------------------


def test_a_key_walks_through_all_and_each_leaves_nothing_behind() -> None:
    settings = Settings({})
    assert settings.preset == "balanced"  # it says what holds anyway
    for name in ("creative", "mirostat", "precise", "balanced", "creative"):
        assert settings.next_preset() == name
        settings.choose(name)
        assert settings.values == default_values() | SHIPPED[name]
        assert settings.preset_words == name


def test_what_a_preset_set_beyond_the_next_one_goes_back() -> None:
    presets = {**SHIPPED, "pirate": {"system": "Talk like a pirate.", "temperature": 1.2, "max_tokens": 99}}
    settings = Settings({"system": "Be brief."}, presets)
    settings.choose("pirate")
    assert settings.values["system"] == "Talk like a pirate."
    settings.set(BY_KEY["max_tokens"], 50)  # the last change wins
    settings.choose("precise")
    assert settings.values == default_values() | SHIPPED["precise"] | {
        "system": "Be brief.",
        "max_tokens": 50,
    }
    started = Settings(
        presets["pirate"], presets, "pirate", {"system": None, "max_tokens": 7, "temperature": 0.6}
    )
    started.choose("balanced")
    assert started.values == default_values() | {"max_tokens": 7}


def test_a_change_is_marked_until_it_is_taken_back() -> None:
    settings = Settings(SHIPPED["creative"], preset="creative")
    settings.set(BY_KEY["top_k"], 5)
    assert settings.preset_words == "creative*"
    settings.set(BY_KEY["top_k"], 0)
    assert settings.preset_words == "creative"
    settings.set(BY_KEY["max_tokens"], 5)  # no matter of this preset
    assert settings.preset_words == "creative"
    settings.reset_all()
    assert settings.preset_words == "balanced"


def test_values_of_no_preset_are_none_and_the_key_begins_with_the_first() -> None:
    settings = Settings({"temperature": 0.7}, {**SHIPPED, "short": {"max_tokens": 512}})
    assert (settings.preset, settings.preset_words, settings.next_preset()) == (None, "none", "precise")
    changes = settings.choose("precise")
    assert changes == ("temperature 0.70 → 0.20", "top-k off → 40", "min-p off → 0.05")
    assert settings.choose("mirostat") == ("Mirostat off → 2",)  # which ignores the others
    with pytest.raises(
        UserError, match="/preset 'wild': there is no such preset; choose precise, balanced, "
    ):
        settings.choose("wild")


# --- in the chat ----------------------------------------------------------------------------------


async def test_f9_takes_the_next_and_says_what_changed(open_chat: Open) -> None:
    async with open_chat(size=(140, 40)) as driver:
        assert title(driver).split() == ["SETTINGS", "preset:", "balanced", "F9"]
        assert len(title(driver)) == driver.chat.query_one("#sidebar-title").content_size.width
        await driver.press("f9")
        assert driver.status == (
            "preset creative: temperature 0.60 → 1.00, top-p 0.90 → off, min-p off → 0.05, "
            "repetition off → 1.05"
        )
        assert driver.last_sampling == Sampling(temperature=1.0, top_p=1.0, min_p=0.05, repeat_penalty=1.05)
        assert "creative F9" in driver.screen_text
        await driver.press("ctrl+t", "right")
        assert "creative* F9" in driver.screen_text
        await driver.press("ctrl+t")
        await driver.say("/preset balanced")
        assert "balanced F9" in driver.screen_text
        assert driver.last_sampling == Sampling()
        await driver.say("/preset balanced")
        assert driver.status == "preset balanced: nothing is different"
        await driver.say("/preset wild")
        assert "there is no such preset; choose precise, balanced" in driver.status
        assert driver.chat.prompt.text == "/preset wild"


async def test_a_preset_in_the_middle_of_a_reply_goes_out_at_once(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three four five"])) as driver:
        await driver.say("Count")
        await driver.advance(0.35)
        before = len(driver.backend.commands)
        await driver.say("/preset mirostat")
        assert driver.backend.commands[before:] == [Configure(Sampling(mirostat=2))]
        assert driver.chat.session.busy


async def test_a_long_name_leaves_the_key_in_sight(open_chat: Open) -> None:
    config = Config(Path("c"), presets={"x" * 32: {"top_k": 5}}, preset="x" * 32)
    async with open_chat(config=config, size=(80, 24)) as driver:
        await driver.press("ctrl+t", "right")
        assert title(driver).endswith(" F9")
        assert "SETTINGS preset: xxxx" in title(driver)
        assert len(title(driver)) == driver.chat.query_one("#sidebar-title").content_size.width


async def test_a_saved_preset_is_in_the_file_and_can_be_chosen(open_chat: Open, path: Path) -> None:
    path.write_text("# mine\n")
    async with open_chat(size=(200, 40)) as driver:
        await driver.say("/temperature 0.8")
        await driver.say("/max_tokens 99")
        await driver.say("/save_preset mine")
        await driver.until(lambda: driver.status == f"preset mine is saved in {path}")
        assert "preset: mine F9" in driver.screen_text
        saved = {**SHIPPED["balanced"], "temperature": 0.8, "max_tokens": 99}
        assert tomllib.loads(path.read_text()) == {"presets": {"mine": saved}}
        assert path.read_text().startswith("# mine\n")
        await driver.press("f9")
        assert driver.chat.session.settings.preset == "precise"
        await driver.say("/preset mine")
        assert driver.last_sampling == Sampling(temperature=0.8, max_tokens=99)
        await driver.say("/top_k 3")
        await driver.say("/save_preset mine")
        await driver.until(lambda: driver.status == f"preset mine is replaced in {path}")
        assert read_config(path).presets == {"mine": {**saved, "top_k": 3}}
        await driver.say("/save_preset precise")  # one's own of a shipped name wins
        await driver.until(lambda: driver.status == f"preset precise is saved in {path}")
        assert driver.chat.session.settings.next_preset() == "balanced"
    assert read_config(path).known_presets["precise"] == {**saved, "top_k": 3}


async def test_a_preset_needs_a_name_that_can_be(open_chat: Open, path: Path) -> None:
    async with open_chat() as driver:
        await driver.say("/save_preset my own")
        assert "preset 'my own': give a name of letters, digits, - and _" in driver.status
        await driver.say("/save_preset")
        assert driver.status == "give it a name"
        assert driver.chat.prompt.text == "/save_preset "
    assert not path.exists()


@pytest.mark.parametrize("text", ["[ui\n", "presets = 3\n"])
async def test_a_file_that_cannot_take_it_is_left_and_the_preset_holds(
    open_chat: Open, path: Path, text: str
) -> None:
    path.write_text(text)
    async with open_chat(size=(300, 40)) as driver:  # a path's length on one line
        await driver.say("/temperature 0.8")
        await driver.say("/save_preset mine")
        await driver.until(lambda: "is left as it is" in driver.screen_text)
        assert "preset mine holds until you leave, but is not kept" in driver.screen_text
        await driver.say("/preset balanced")
        await driver.say("/preset mine")
        assert driver.last_sampling == Sampling(temperature=0.8)
    assert path.read_text() == text


async def test_a_lock_that_is_held_does_not_hold_up_the_chat(
    open_chat: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_WAIT_S", 0.2)
    async with open_chat(FakeBackend(["one two"]), size=(300, 40)) as driver:
        with FileLock(path.with_name("config.toml.lock")):
            await driver.say("/save_preset mine")
            await driver.say("hello")
            await driver.advance(1)
            assert driver.text_of(1) == "one two"
            await driver.until(lambda: "is not kept" in driver.screen_text)
        assert f"{path} is left as it is: another" in driver.screen_text
    assert not path.exists()


async def test_what_was_chosen_at_start_is_marked(open_chat: Open) -> None:
    config = Config(Path("c"), defaults={"context": 2048, "dtype": "auto"})
    async with open_chat(config=config, ready=False) as driver:
        assert "context    *2048" in driver.screen_text
        assert "type        auto" in driver.screen_text


async def test_values_of_the_configuration_are_marked(open_chat: Open, path: Path) -> None:
    path.write_text("[defaults]\ntemperature = 0.7\n[presets.mine]\ntop_k = 5\n[ui]\npreset = 'mine'\n")
    async with open_chat(config=read_config(path)) as driver:
        rows = {param.key: str(driver.chat.query_one(f"#set-{param.key}").render()) for param in LIVE}
        assert {key for key, row in rows.items() if "*" in row} == {"temperature", "top_k"}
        assert driver.last_sampling == Sampling(temperature=0.7, top_k=5)
        assert "preset: mine F9" in driver.screen_text


# --- the theme ------------------------------------------------------------------------------------


@pytest.fixture
def no_theme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEXTUAL_THEME", raising=False)


async def test_a_theme_is_taken_and_another_kept(open_chat: Open, path: Path, no_theme: None) -> None:
    path.write_text("[ui]\ntheme = 'nord'  # cold\n")
    async with open_chat(config=read_config(path)) as driver:
        assert driver.app.theme == "nord"
        assert path.read_text() == "[ui]\ntheme = 'nord'  # cold\n"
        driver.app.theme = "gruvbox"
        await driver.until(lambda: "gruvbox" in path.read_text())
        driver.app.theme = "dracula"
        driver.app.theme = "nord"
        driver.app.theme = "monokai"
        await driver.until(lambda: "monokai" in path.read_text())
    assert path.read_text() == '[ui]\ntheme = "monokai"  # cold\n'


async def test_nothing_is_written_unless_the_user_chooses(
    open_chat: Open, path: Path, no_theme: None
) -> None:
    async with open_chat() as driver:
        await driver.say("hello")
        await driver.advance(1)
    assert not path.exists()


async def test_a_theme_of_the_environment_wins_and_is_not_kept(
    open_chat: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("[ui]\ntheme = 'nord'\n")
    monkeypatch.setenv("TEXTUAL_THEME", "textual-dark")
    async with open_chat(config=read_config(path)) as driver:
        assert driver.app.theme != "nord"
        driver.app.theme = "gruvbox"
        await driver.advance(0.5)
    assert path.read_text() == "[ui]\ntheme = 'nord'\n"


async def test_a_theme_that_is_none_is_noted(open_chat: Open, path: Path, no_theme: None) -> None:
    path.write_text("[ui]\ntheme = 'nrd'\n")
    async with open_chat(config=read_config(path)) as driver:
        assert 'config.toml line 2: there is no theme "nrd"; choose one of' in driver.screen_text


async def test_a_theme_that_cannot_be_kept_is_one_warning(
    open_chat: Open, path: Path, no_theme: None
) -> None:
    path.mkdir()
    async with open_chat(size=(200, 40)) as driver:
        for theme in ("gruvbox", "dracula"):
            driver.app.theme = theme
            await driver.until(lambda: "the theme is not kept" in driver.screen_text)
        await driver.advance(0.5)
        assert driver.screen_text.count("the theme is not kept") == 1
