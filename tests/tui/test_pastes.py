"""Pastes as a terminal sends them: whatever is in one, it presses no key."""

from __future__ import annotations

import tui.compat  # noqa: F401  before Textual, as in the app

# isort: split
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual.drivers import linux_driver

from tests.hostile import PAYLOAD

START, END = "\x1b[200~", "\x1b[201~"
HOSTILE = st.lists(
    st.sampled_from(
        ["\x1b", "\x1b[", "\x1b[A", "\x1b[20", "\x1b\r", "\x11", "\r", "\n", "a", "[201", "~", START]
    )
).map("".join)


def read(chunks: list[str]) -> list[events.Event]:
    parser = linux_driver.XTermParser(False)
    return [event for chunk in chunks for event in parser.feed(chunk) if isinstance(event, events.Event)]


def keys(found: list[events.Event]) -> list[str]:
    return [event.key for event in found if isinstance(event, events.Key)]


def pasted(found: list[events.Event]) -> list[str]:
    return [event.text for event in found if isinstance(event, events.Paste)]


@given(HOSTILE, st.lists(st.integers(0, 99), max_size=9))
def test_a_paste_is_text_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    while END in text:
        text = text.replace(END, "")
    sent = f"x{START}{text}{END}y"
    edges = sorted({0, len(sent), *(cut % len(sent) for cut in cuts)})
    found = read([sent[start:end] for start, end in pairwise(edges)])
    assert keys(found) == ["x", "y"]
    assert "".join(pasted(found)) == text.replace("\x1b", "")


def test_a_paste_of_everything() -> None:
    found = read([PAYLOAD.join((START, END)), "\x1b[A", START + "again" + END])
    assert keys(found) == ["up"]
    assert pasted(found) == [PAYLOAD.replace("\x1b", ""), "again"]
