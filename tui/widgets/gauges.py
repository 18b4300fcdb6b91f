"""The row of gauges: VRAM, RAM, PCIe, tokens per second; one line of them where room is scarce."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from core.engine.events import Snapshot
from tui import meters
from tui.figures import gigabytes, rate
from tui.meters import NA, Kind, Memory
from tui.widgets.bars import shares
from tui.widgets.history_graph import HistoryGraph, nice_ceiling
from tui.widgets.plain import PlainStatic

_ROOMY = 19  # cells from which the speed panel spells words out

_KINDS = {f"gauge--{name}" for name in ("ours", "others", "cache", "free")}


def _bar(memory: Memory, width: int, style: Callable[[str], Style]) -> Iterator[tuple[str, Style]]:
    """A bar of letters as parts of a Content."""
    cells = shares([kind.amount for kind in memory.kinds], memory.total, width)
    for kind, count in zip(memory.kinds, cells, strict=True):
        yield kind.letter * count, style(f"gauge--{kind.style}")


def _short(amount: float) -> str:
    """GB for a legend, which has room for three characters."""
    return f"{amount / 1e9:.0f}" if amount >= 9.95e9 else f"{amount / 1e9:.1f}"


class MemoryPanel(Widget):
    """A bar of disjoint kinds and its legend."""

    COMPONENT_CLASSES = _KINDS

    def __init__(self, name: str, id: str) -> None:
        super().__init__(id=id)
        self._name_shown = name
        self._memory: Memory | None = None
        self._figures: tuple[str, ...] | None = None  # None: nothing was read yet
        self.border_title = Content(name)

    def read(self, memory: Memory | None) -> None:
        """Show a reading; repaints only if it differs in what can be seen."""
        figures = () if memory is None else tuple(gigabytes(kind.amount) for kind in memory.kinds)
        if figures == self._figures:
            return
        self._figures, self._memory = figures, memory
        title = self._name_shown
        if memory is not None:
            title += f" {gigabytes(memory.used)} of {gigabytes(memory.total)} GB"
        self.border_title = Content(title)
        self.refresh()

    def render(self) -> Content:
        """The bar on the first line, the legend on the next two."""
        memory = self._memory
        if memory is None:
            return Content("" if self._figures is None else NA)
        style = self.get_visual_style
        half = -(-len(memory.kinds) // 2)
        lines = [
            Content.assemble(*_bar(memory, self.content_size.width, style)),
            self._legend(memory.kinds[:half]),
            self._legend(memory.kinds[half:]),
        ]
        return Content("\n").join(lines)

    def _legend(self, kinds: tuple[Kind, ...]) -> Content:
        style = self.get_visual_style
        entries = (
            Content.assemble(
                (kind.letter, style(f"gauge--{kind.style}")), f" {kind.name} {_short(kind.amount)}"
            )
            for kind in kinds
        )
        return Content(" ").join(entries)


class BusPanel(Vertical):
    """Traffic between host and card, both ways, in the range of the link."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._peak = 0.0
        self.border_title = Content("PCIe GB/s")

    def compose(self) -> ComposeResult:
        """A line each way, and one of figures."""
        for key, label in (("to", "to GPU"), ("from", "from")):
            with Horizontal(classes="graph-line"):
                yield PlainStatic(label, classes="label")
                yield HistoryGraph(id=f"{key}-graph")
                yield PlainStatic(id=f"{key}-value", classes="value")
        yield PlainStatic(id="bus-figures")

    def read(self, snapshot: Snapshot) -> None:
        """Show a reading."""
        link = snapshot.pcie_link
        for key, value in (("to", snapshot.pcie_to_gpu), ("from", snapshot.pcie_from_gpu)):
            self._peak = max(self._peak, value or 0.0)
            graph = self.query_one(f"#{key}-graph", HistoryGraph)
            graph.top = link or nice_ceiling(self._peak)
            graph.push(value)
            share = meters.bus_share(value, link) if key == "to" else ""
            self.query_one(f"#{key}-value", PlainStatic).show(f"{meters.bus(value)} {share}".rstrip())
        self.border_title = Content(f"PCIe GB/s · link {meters.bus(link)}")
        self.query_one("#bus-figures", PlainStatic).show(f"peak {meters.bus(self._peak)} · device counter")


class SpeedPanel(Vertical):
    """Tokens per second over time, and the surprise that Mirostat steers."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._fastest = 0.0
        self.border_title = Content("tok/s")

    def compose(self) -> ComposeResult:
        """The graph of the speed, and a line for the surprise."""
        yield HistoryGraph(id="speed-graph")
        with Horizontal(classes="graph-line"):
            yield PlainStatic(id="surprise", classes="label")
            yield HistoryGraph(id="surprise-graph")

    def read(self, speed: float | None, surprise: float | None, tau: float | None) -> None:
        """Show the speed of the running reply, its mean surprise in bits, and tau where Mirostat runs."""
        self._fastest = max(self._fastest, speed or 0.0)
        graph = self.query_one("#speed-graph", HistoryGraph)
        graph.top = nice_ceiling(self._fastest)
        graph.push(speed)
        figure = f" {rate(speed)}" if speed else ""
        self.border_title = Content(f"tok/s{figure}")
        self.border_subtitle = Content(f"0 to {graph.top:g}" if self._fastest else "")
        text = ""
        if surprise is not None:
            name = "surprise" if self.content_size.width >= _ROOMY else "surpr."
            text = f"{name} {surprise:.1f} " + ("bits" if tau is None else f"τ {tau:.1f}")
        self.query_one("#surprise", PlainStatic).show(text)
        bits = self.query_one("#surprise-graph", HistoryGraph)
        bits.top = 2 * tau if tau else 1.0  # tau is at half height
        bits.push(surprise if tau else None)


class GaugeLine(Widget):
    """All gauges in one line, as much of them as fits."""

    COMPONENT_CLASSES = _KINDS

    _MIN_BAR, _MAX_BAR = 6, 20

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._snapshot: Snapshot | None = None
        self._figures: tuple[str, ...] = ()

    def read(self, snapshot: Snapshot) -> None:
        """Show a reading; repaints only if it differs in what can be seen."""
        self._snapshot = snapshot
        memory = meters.span(meters.ram(snapshot)), meters.span(meters.vram(snapshot))
        figures = (*memory, *self._tails(snapshot))
        if figures != self._figures:
            self._figures = figures
            self.refresh()

    def render(self) -> Content:
        """The richest form that fits."""
        snapshot = self._snapshot
        if snapshot is None:
            return Content("")
        memories = [("RAM", meters.ram(snapshot))]
        if meters.has_gpu(snapshot):
            memories.insert(0, ("VRAM", meters.vram(snapshot)))
        width = self.content_size.width
        for tail in self._tails(snapshot):
            texts = [f"{name} " + meters.span(memory) + " " for name, memory in memories]
            room = width - sum(len(text) + 2 for text in texts) - len(tail)
            bar = min(self._MAX_BAR, room // len(memories))
            if bar >= self._MIN_BAR:
                return self._assemble(memories, bar, tail)
        return self._assemble(memories[:1], self._MIN_BAR, "")

    @staticmethod
    def _tails(snapshot: Snapshot) -> Iterator[str]:
        if not meters.has_gpu(snapshot):
            yield "no GPU: VRAM n/a, PCIe n/a"
            yield "no GPU"
            return
        to, back = meters.bus(snapshot.pcie_to_gpu), meters.bus(snapshot.pcie_from_gpu)
        share = meters.bus_share(snapshot.pcie_to_gpu, snapshot.pcie_link).replace(" ", "")
        yield f"PCIe to {to} from {back} GB/s {share}".rstrip()
        yield f"PCIe {to}/{back} GB/s"
        yield ""

    def _assemble(self, memories: list[tuple[str, Memory | None]], bar: int, tail: str) -> Content:
        parts: list[str | tuple[str, Style]] = []
        for name, memory in memories:
            parts.append(f"{name} ")
            if memory is not None:
                parts.extend(_bar(memory, bar, self.get_visual_style))
                parts.append(" ")
            parts.append(f"{meters.span(memory)}  ")
        return Content.assemble(*parts, tail)


class Gauges(Horizontal):
    """All gauges. TCSS decides whether the panels or the line are seen."""

    def compose(self) -> ComposeResult:
        """Panels and line; what a machine without a GPU shows instead is among them."""
        yield MemoryPanel("VRAM", id="vram")
        yield MemoryPanel("RAM", id="ram")
        yield BusPanel(id="bus")
        yield PlainStatic("no GPU\nVRAM n/a\nPCIe n/a", id="no-gpu")
        yield SpeedPanel(id="speed")
        yield GaugeLine(id="gauge-line")

    def read(self, snapshot: Snapshot) -> None:
        """Show a reading of the meters."""
        gpu = meters.has_gpu(snapshot)
        self.set_class(not gpu, "-no-gpu")
        self.query_one("#ram", MemoryPanel).read(meters.ram(snapshot))
        if gpu:
            self.query_one("#vram", MemoryPanel).read(meters.vram(snapshot))
            self.query_one("#bus", BusPanel).read(snapshot)
        self.query_one("#gauge-line", GaugeLine).read(snapshot)

    def speed(self, speed: float | None, surprise: float | None, tau: float | None) -> None:
        """Show the speed of the running reply."""
        self.query_one("#speed", SpeedPanel).read(speed, surprise, tau)
