"""Tables: columns as wide as their cells, narrower with wrapped cells, or records where nothing else fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from tui.markdown.inline import Text
from tui.markdown.lines import Line, Prefix, Span, cut_spans
from tui.markdown.wrap import wrap

MIN_COLUMN = 6
"""Cells below which a column that does not fit is not shortened."""

_BETWEEN = " │ "
_CROSS = "─┼─"
_RULE_STYLE = "rule"


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The cells of a table; the first row is its head. `aligns` are "", "center" or "right", one a column."""

    rows: Sequence[Sequence[Text]]
    aligns: Sequence[str]
    first: Prefix = ()
    rest: Prefix = ()

    def lines(self, width: int) -> Sequence[Line]:
        """The table drawn in a view of this width in cells."""
        room = width - sum(cell_len(text) for text, _ in self.rest)
        natural = [max(cell_len(row[column][0]) for row in self.rows) for column in range(len(self.aligns))]
        sizes = _column_sizes(natural, room - len(_BETWEEN) * (len(natural) - 1))
        drawn = self._records() if sizes is None else self._grid(sizes, wrapped=sizes != natural)
        return [
            Line(text, tuple(spans), self.rest if index else self.first, self.rest, words=sizes is None)
            for index, (text, spans) in enumerate(drawn)
        ]

    def _grid(self, sizes: Sequence[int], wrapped: bool) -> list[Text]:
        rule = _CROSS.join("─" * size for size in sizes)
        drawn: list[Text] = []
        for index, row in enumerate(self.rows):
            if index == 1 or (wrapped and index):
                drawn.append((rule, (Span(0, len(rule), (_RULE_STYLE,)),)))
            drawn += self._grid_row(row, sizes, "table-head" if index == 0 else "")
        return drawn

    def _grid_row(self, row: Sequence[Text], sizes: Sequence[int], style: str) -> list[Text]:
        """A row of cells as lines; a cell that was wrapped makes it several."""
        parts = [
            [_slice(cell, start, end) for start, end in wrap(cell[0], size, size)]
            for cell, size in zip(row, sizes, strict=True)
        ]
        lines = []
        for index in range(max(map(len, parts))):
            text, spans = "", []
            for column, (part, size) in enumerate(zip(parts, sizes, strict=True)):
                if column:
                    spans.append(Span(len(text), len(text) + len(_BETWEEN), (_RULE_STYLE,)))
                    text += _BETWEEN
                content, inner = part[index] if index < len(part) else ("", ())
                left, right = _margins(size - cell_len(content), self.aligns[column])
                start = len(text) + left
                text += " " * left + content + " " * right
                spans += _styled(inner, start, len(content), style)
            lines.append((text.rstrip(" "), tuple(spans)))
        return lines

    def _records(self) -> list[Text]:
        """One line per cell, named by the head of its column, and an empty line between rows."""
        head, *rows = self.rows
        lines: list[Text] = [] if rows else [_joined(cell, ("", ())) for cell in head]
        for index, row in enumerate(rows):
            if index:
                lines.append(("", ()))
            lines += [_joined(name, cell) for name, cell in zip(head, row, strict=True)]
        return lines


def _column_sizes(natural: Sequence[int], room: int) -> list[int] | None:
    """The widths of the columns: the widest ones give way until all fit; None if they cannot."""
    smallest = [min(size, MIN_COLUMN) for size in natural]
    if sum(smallest) > room:
        return None
    sizes = list(natural)
    excess = sum(sizes) - room
    while excess > 0:
        widest = max(sizes)
        at = [column for column, size in enumerate(sizes) if size == widest]
        below = max((size for size in sizes if size < widest), default=MIN_COLUMN)
        step = max(1, min(widest - max(below, MIN_COLUMN), excess // len(at)))
        for column in at[: excess // step]:
            sizes[column] -= step
            excess -= step
    return sizes


def _slice(cell: Text, start: int, end: int) -> Text:
    text, spans = cell
    return text[start:end], tuple(cut_spans(spans, start, end))


def _styled(spans: Sequence[Span], start: int, length: int, style: str) -> list[Span]:
    """`spans` moved to `start`, inside `style` if there is one."""
    if not style:
        return cut_spans(spans, 0, length, start)
    moved, position = [], 0
    for span in cut_spans(spans, 0, length):
        moved += [Span(start + position, start + span.start, (style,))] if span.start > position else []
        moved.append(Span(start + span.start, start + span.end, (style, *span.styles)))
        position = span.end
    return [*moved, Span(start + position, start + length, (style,))] if position < length else moved


def _margins(space: int, align: str) -> tuple[int, int]:
    space = max(0, space)
    if align == "right":
        return space, 0
    return (space // 2, space - space // 2) if align == "center" else (0, space)


def _joined(name: Text, value: Text) -> Text:
    text = f"{name[0]}: {value[0]}" if name[0] else value[0]
    shift = len(text) - len(value[0])
    head = _styled(name[1], 0, len(name[0]), "table-head")
    return text, (*head, *cut_spans(value[1], 0, len(value[0]), shift))
