from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color

from tests.fake_backend import SIMULATED_7B, FakeBackend, loads
from tests.fake_plans import SIMULATED, plan_7b, readings
from tests.terminal import LLAMA_TUI, Terminal
from tests.tui.conftest import Driver, Open
from tui import glyphs
from tui.charset import only_ascii
from tui.glyphs import AsciiFilter, ascii_text
from tui.request import parse

REPLY = """Foxes hunt — alone.

# Why

- one
  - two

> quoted

| a | b |
|---|---|
| 1 | 2 |

---

```python
x = 1
```
"""


def test_every_stand_in_is_ascii_and_as_wide() -> None:
    for code, stand_in in glyphs._TABLE.items():
        assert stand_in.isascii()
        assert cell_len(chr(code)) == len(stand_in), unicodedata.name(chr(code))
    blocks = (range(0x2500, 0x2580), range(0x2581, 0x2591), range(0x2591, 0x2596), range(0x2800, 0x2900))
    for code in (code for block in blocks for code in block):
        assert code in glyphs._TABLE, unicodedata.name(chr(code))


def test_bars_boxes_and_graphs_keep_their_shape() -> None:
    assert ascii_text("▓▓░ 2.5 tok/s · a → b …") == "##. 2.5 tok/s - a > b ~"
    assert ascii_text("╭─ PCIe ─╮│┌┐└┘├┼═║╱") == "+- PCIe -+|+++++" + "+=|/"
    assert ascii_text(" ⣀⣤⣶⣿") == " _:|#"  # heights 0 to 4 of a filled graph
    assert ascii_text("⠤⠒⠉") == ".-'"  # a line at heights 2 to 4
    assert ascii_text("⠠ ⡰") == ". _"  # what is marked at the right gives way to the line at the left
    assert ascii_text("naïve 日本") == "naïve 日本"


def test_the_filter_leaves_ascii_segments_as_they_are() -> None:
    segments = [Segment("plain"), Segment("● on")]
    filtered = AsciiFilter().apply(segments, Color(0, 0, 0))
    assert filtered[0] is segments[0]
    assert filtered[1].text == "* on"


@pytest.mark.parametrize(
    ("environ", "coerced", "only"),
    [
        ({"LANG": "C"}, True, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True, True),  # which Python has set itself
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, False, False),  # which the user has set
        ({"LC_ALL": "POSIX", "LANG": "de_DE.UTF-8"}, True, True),
        ({"LANG": "en_US.ISO-8859-1"}, False, True),
        ({"LANG": "de_DE@euro"}, False, False),
        ({"LANG": "en_US.utf8"}, False, False),
        ({"LC_ALL": "", "LANG": "C.UTF-8"}, False, False),
        ({}, True, False),
    ],
)
def test_a_locale_that_carries_ascii_only(environ: dict[str, str], coerced: bool, only: bool) -> None:
    assert only_ascii(environ, coerced=coerced) is only


@pytest.mark.parametrize(
    ("text", "flags", "locale", "ascii"),
    [
        ("", [], "C.UTF-8", False),
        ("", [], "C", True),
        ("", ["--ascii"], "C.UTF-8", True),
        ("[ui]\nascii = true\n", [], "C.UTF-8", True),
        ("[ui]\nascii = false\n", [], "C", False),
        ("[ui]\nascii = false\n", ["--ascii"], "C.UTF-8", True),
    ],
)
def test_flag_configuration_and_locale_say_whether_ascii_must_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, flags: list[str], locale: str, ascii: bool
) -> None:
    (tmp_path / "config.toml").write_text(text)
    monkeypatch.setenv("LLAMA_TUI_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("LC_ALL", locale)
    assert parse(["--synthetic", "1b", "--prompt", "1", *flags]).ascii is ascii


def beyond(driver: Driver) -> set[str]:
    """What is on the screen beyond ASCII and beyond the texts of the messages."""
    return {character for character in driver.screen_text if not character.isascii()} - set("ï—")


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_with_ascii_nothing_is_drawn_with_more(open_chat: Open, size: tuple[int, int]) -> None:
    plan = plan_7b(budget=SIMULATED)
    backend = FakeBackend([REPLY], load=loads(plan, SIMULATED_7B), surprise=4.8)
    async with open_chat(backend, size=size, values={"mirostat": 2}, ascii=True) as driver:
        assert beyond(driver) == set()
        await driver.say("Was it naïve or not?")
        for _ in range(3):
            driver.backend.emit(readings(plan))
            await driver.advance(1)
        await driver.advance(5)
        seen = ""
        for pressed in ("", "pageup", "ctrl+t down right", "escape f1", "escape f3", "end", "f12", "escape",
                        "f4", "escape", "ctrl+p", "escape ctrl+r"):  # fmt: skip
            await driver.press(*pressed.split())
            await driver.settle()
            await driver.settle()
            assert beyond(driver) == set(), (pressed, driver.screen_text)
            seen += driver.screen_text
        for part in ("naïve or", "alone", "+-", "SIMULATED", "1 | 2", "RRR"):
            assert part in seen, part


def test_on_a_terminal_of_the_c_locale_every_byte_is_ascii(stories: Path, tmp_path: Path) -> None:
    terminal = Terminal([*LLAMA_TUI, str(stories)], LC_ALL="C", XDG_STATE_HOME=str(tmp_path))
    try:
        terminal.wait_for("F1 help")
        for key, part in (
            ("\x1bOR", "last replies"),
            ("\x1bOR", "SETTINGS"),
            ("\x10", "/ "),
            ("\x1b", "SETTINGS"),
        ):
            terminal.send(key)
            terminal.wait_for(part)
        terminal.wait_for("+- RAM")
        terminal.send("\x11")
        assert terminal.wait_exit() == 0
        assert bytes(terminal.raw).isascii()
    finally:
        terminal.close()


async def test_without_ascii_the_same_is_drawn_with_more(open_chat: Open) -> None:
    async with open_chat(FakeBackend([REPLY])) as driver:
        await driver.say("hello")
        await driver.advance(9)
        assert {"▸", "│", "─", "▌", "╭", "░"} <= beyond(driver)


async def test_what_somebody_wrote_is_shown_as_it_is(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["so ● it │ is"]), ascii=True) as driver:
        assert "Message - Enter sends" in driver.screen_text
        await driver.type("a → b")
        assert "> a → b" in driver.screen_text
        await driver.press("enter")
        await driver.until(lambda: bool(driver.sent()))
        await driver.advance(2)
        assert "you > a → b" in driver.screen_text
        assert "fake > so ● it │ is" in driver.screen_text
