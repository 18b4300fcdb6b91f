"""A bar of disjoint kinds of memory, and its legend."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from tui.figures import gigabytes
from tui.meters import FREE, NA, OURS, Kind, Memory
from tui.widgets.bars import shares
from tui.widgets.titles import entitle

BUDGET = "|"
KIND_CLASSES = {
    f"gauge--{name}"
    for name in (
        *OURS, "others", "cache", "free", "pinned", "pageable", "computed", "budget",
    )
}  # fmt: skip


def memory_bar(memory: Memory, width: int, style: Callable[[str], Style]) -> Iterator[tuple[str, Style]]:
    """A bar of letters as parts of a Content, with a mark where the budget ends."""
    marked = memory.budget is not None
    amounts = [kind.amount for kind in memory.kinds]
    # In a short bar a cell for each would leave no room to tell much from little.
    cells = shares(amounts, memory.total, width - marked, all_seen=width >= 3 * len(amounts))
    mark = _mark_cell(memory, cells, width - 1) if marked else width
    at = 0
    for kind, count in zip(memory.kinds, cells, strict=True):
        before = max(0, min(count, mark - at))
        look = style(f"gauge--{kind.style}")
        yield kind.letter * before, look
        if marked and at <= mark < at + count:
            yield BUDGET, style("gauge--budget")
        yield kind.letter * (count - before), look
        at += count
    if marked and mark >= at:
        yield BUDGET, style("gauge--budget")


def _mark_cell(memory: Memory, cells: list[int], width: int) -> int:
    """Where the mark stands; what is within the budget never looks beyond it, however little it is."""
    budget = memory.budget or 0
    ours = sum(
        count for kind, count in zip(memory.kinds, cells, strict=True) if kind.style in OURS and kind.amount
    )
    mark = round(width * budget / memory.total) if memory.total else width
    return min(width, max(mark, ours)) if memory.used <= budget else min(mark, width)


def _short(amount: float) -> str:
    """GB for a legend, which has room for three characters."""
    return f"{amount / 1e9:.0f}" if amount >= 9.95e9 else f"{amount / 1e9:.1f}".removeprefix("0")


def _titles(name: str, memory: Memory) -> Iterator[str]:
    """The title, from the longest form to the shortest."""
    start = f"{name} simulated" if memory.simulated else name
    used, limit = gigabytes(memory.used), gigabytes(memory.limit)
    if memory.budget is not None:
        card = _short(memory.total)
        yield f"{start} {used} of {limit} GB budget · card {card}"
        yield f"{start} {used} of {limit} GB · card {card}"
    yield f"{start} {used} of {limit} GB"
    yield f"{start} {used}/{limit}G"


class MemoryPanel(Widget):
    """A bar of disjoint kinds and its legend, in as many lines as there are."""

    COMPONENT_CLASSES = KIND_CLASSES

    def __init__(self, name: str, id: str) -> None:
        super().__init__(id=id)
        self._name_shown = name
        self._memory: Memory | None = None
        self._figures: tuple[str, ...] | None = None  # None: nothing was read yet
        self.border_title = Content(name)

    def read(self, memory: Memory | None) -> None:
        """Show a reading; repaints only if it differs in what can be seen."""
        figures: tuple[str, ...] = ()
        if memory is not None:
            figures = (*(gigabytes(kind.amount) for kind in memory.kinds), gigabytes(memory.limit))
            figures += tuple(kind.letter for kind in memory.kinds)
        if figures == self._figures:
            return
        self._figures, self._memory = figures, memory
        self._entitle()
        self.refresh()

    def on_resize(self) -> None:
        """As much of a title as fits."""
        self._entitle()

    def _entitle(self) -> None:
        memory, name = self._memory, self._name_shown
        entitle(self, [name] if memory is None else _titles(name, memory))

    def render(self) -> Content:
        """The bar on the first line, the legend below it."""
        memory = self._memory
        if memory is None:
            return Content("" if self._figures is None else NA)
        style, width = self.get_visual_style, self.content_size.width
        bar = Content.assemble(*memory_bar(memory, width, style))
        return Content("\n").join([bar, *self._legend(memory, width)])

    def _legend(self, memory: Memory, width: int) -> Iterator[Content]:
        """Letters, names and GB of the kinds that exist."""
        style = self.get_visual_style
        for line in _legend(memory, width, self.content_size.height - 1):
            entries = (
                Content.assemble((kind.letter, style(f"gauge--{kind.style}")), text) for kind, text in line
            )
            yield Content(" ").join(entries)


Entry = tuple[Kind, str]  # what stands behind the letter


def _legend(memory: Memory, width: int, most: int) -> list[list[Entry]]:
    """At most so many lines of entries: names give way from the end, before them what the title and the bar
    tell too.
    """
    kinds = [kind for kind in memory.kinds if kind.amount and kind.letter != FREE]
    free = sum(kind.amount for kind in memory.kinds if kind.letter == FREE)
    extras: list[Entry] = [(Kind(FREE, "free", "free", free), f" free {_short(free)}")]
    if memory.budget is not None:
        extras.insert(0, (Kind(BUDGET, "budget", "budget", memory.budget), " budget"))
    lines: list[list[Entry]] = []
    for named in range(len(kinds), -1, -1):
        entries = [
            (kind, f" {kind.name} {_short(kind.amount)}" if index < named else f" {_short(kind.amount)}")
            for index, kind in enumerate(kinds)
        ]
        for more in range(len(extras), -1, -1):
            lines = _packed(entries + extras[:more], width)
            if len(lines) <= most:
                return lines
    return lines[:most]


def _packed(entries: list[Entry], width: int) -> list[list[Entry]]:
    """Entries in lines of `width`, a blank between them."""
    lines: list[list[Entry]] = [[]]
    room = width
    for kind, text in entries:
        needed = len(kind.letter) + len(text)
        if lines[-1] and needed + 1 > room:
            lines.append([])
            room = width
        room -= needed + (1 if lines[-1] else 0)
        lines[-1].append((kind, text))
    return lines
