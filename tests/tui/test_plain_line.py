from __future__ import annotations

import pytest
from rich.cells import cell_len
from textual.content import Content

from tui.widgets.plain_line import cut

LINE = "● idle · 4 tok · 4.0 tok/s · first 0.20 s"


@pytest.mark.parametrize(
    ("text", "width", "seen"),
    [
        (LINE, 41, LINE),
        (LINE, 40, "● idle · 4 tok · 4.0 tok/s …"),  # and not "0.20…", of which more may follow
        (LINE, 36, "● idle · 4 tok · 4.0 tok/s …"),  # a word without its number
        (LINE, 33, "● idle · 4 tok · 4.0 tok/s · fir…"),
        ("● token 119/512 · limited", 14, "● token …"),
        ("moving 1.2 of 2.9 GB", 16, "moving 1.2 of …"),
        ("Esc back  F12 log", 12, "Esc back …"),
        ("13.5 GB · sampled 10/s", 20, "13.5 GB …"),
        ("日本語のモデル", 6, "日本…"),
        ("12345", 3, "…"),
        ("anything", 0, ""),
    ],
)
def test_what_is_cut_never_ends_within_a_number(text: str, width: int, seen: str) -> None:
    line = cut(Content(text), width).plain
    assert line == seen
    assert cell_len(line) <= width
