"""What is drawn with characters beyond ASCII, and what stands in for them where a terminal has no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_OURS = {
    "·": "-", "…": "~", "→": ">", "←": "<", "↑": "^", "↓": "v", "↔": "-",
    "▸": ">", "◂": "<", "▶": ">", "◀": "<", "▲": "^", "▼": "v", "\u203a": ">", "\u2039": "<",
    "●": "*", "○": "o", "•": "*", "◦": "o", "▪": "-", "✓": "x", "τ": "t", "🔎": "/ ",
    "░": ".", "▒": ":", "▓": "#", "█": "#", "▔": "-", "▀": "-", "▐": "|", "▕": "|",
    "▁": "_", "▂": "_", "▃": "_", "▄": "#", "▅": "#", "▆": "#", "▇": "#",
    "▉": "#", "▊": "|", "▋": "|", "▌": "|", "▍": "|", "▎": "|", "▏": "|",
}  # fmt: skip
"""Each as wide as what it stands in for."""

_BOXES = "--||--||--||" + 64 * "+" + "--||=|" + 31 * "+" + "/\\X" + 6 * "-|"
"""What stands in for U+2500 and the 127 characters behind it: lines, corners, crossings."""

_FULL = (0x00, 0x40, 0x44, 0x46, 0x47), (0x00, 0x80, 0xA0, 0xB0, 0xB8)
"""Braille dots of a cell's left and right column, filled from the bottom to height 0..4."""
_DOTS = (0, 0x40, 0x04, 0x02, 0x01), (0, 0x80, 0x20, 0x10, 0x08)
"""The one dot at each height; none at 0."""
_FILLED, _SINGLE = " _:|#", " _.-'"
"""A column of dots, and a single dot, at each height."""


def column(height: int, side: int) -> int:
    """Dots of a column that is filled to `height` 0..4; `side` 0 is the left one."""
    return _FULL[side][max(0, min(4, height))]


def dot(height: int, side: int) -> int:
    """The one dot at `height` 1..4 of a column, nothing at other heights."""
    return _DOTS[side][height] if 0 < height <= 4 else 0


def cell(dots: int) -> str:
    """A cell with these dots; a blank for none, since fonts may lack the empty pattern."""
    return chr(0x2800 + dots) if dots else " "


def ascii_text(text: str) -> str:
    """`text` with what we draw in ASCII, in as many cells; letters of other scripts stay."""
    return text if text.isascii() else text.translate(_TABLE)


class AsciiFilter(LineFilter):
    """Draws in ASCII what our widgets and Textual's draw with other characters."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same segments in ASCII."""
        return [
            segment
            if segment.control or segment.text.isascii()
            else Segment(segment.text.translate(_TABLE), segment.style)
            for segment in segments
        ]


def literal(filters: Iterable[LineFilter]) -> list[LineFilter]:
    """The filters for what is somebody's text: an arrow in it stays the arrow that was written."""
    return [line_filter for line_filter in filters if not isinstance(line_filter, AsciiFilter)]


def drawn(filters: Sequence[LineFilter], text: str) -> str:
    """`text` of ours as these filters have it, where it stands among somebody's text."""
    return ascii_text(text) if any(isinstance(one, AsciiFilter) for one in filters) else text


def _braille() -> Iterator[tuple[int, str]]:
    """Patterns by how high they reach: those of a filled graph and those of a line are told apart.

    The left column says it where it has dots; what a graph marks stands in the right one.
    """
    for dots in range(256):
        columns = dots & 0x47, dots & 0xB8
        filled = all(part in _FULL[side] for side, part in enumerate(columns))
        heights = [
            max((height for height in range(1, 5) if part & _DOTS[side][height]), default=0)
            for side, part in enumerate(columns)
        ]
        height = max(heights) if filled else heights[0] or heights[1]
        yield 0x2800 + dots, (_FILLED if filled else _SINGLE)[height]


_TABLE = {
    **{ord(glyph): stand_in for glyph, stand_in in _OURS.items()},
    **dict(enumerate(_BOXES, 0x2500)),
    **dict(_braille()),
}
