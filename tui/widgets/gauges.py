"""The row of gauges: VRAM, RAM, PCIe, tokens per second; one line of them where room is scarce."""

from __future__ import annotations

from collections.abc import Iterator

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from core.engine.events import Snapshot
from tui import meters
from tui.figures import gigabytes, rate
from tui.meters import Memory
from tui.widgets.bus_panel import BusPanel
from tui.widgets.history_graph import HistoryGraph, nice_ceiling
from tui.widgets.memory_panel import KIND_CLASSES, MemoryPanel, memory_bar
from tui.widgets.plain import PlainStatic

_ROOMY = 19  # cells from which the speed panel spells words out


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

    COMPONENT_CLASSES = KIND_CLASSES

    _MIN_BAR, _MAX_BAR = 6, 20

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._snapshot: Snapshot | None = None
        self._disk: float | None = None
        self._figures: tuple[str, ...] = ()

    def read(self, snapshot: Snapshot, disk: float | None) -> None:
        """Show a reading; repaints only if it differs in what can be seen."""
        self._snapshot, self._disk = snapshot, disk
        memories = [memory for memory in (meters.ram(snapshot), meters.vram(snapshot)) if memory]
        figures = (
            *(meters.span(memory) for memory in memories),
            *(kind.letter + gigabytes(kind.amount) for memory in memories for kind in memory.kinds),
            *self._tails(snapshot),
        )
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
            vram = meters.vram(snapshot)
            memories.insert(0, ("sim VRAM" if vram and vram.simulated else "VRAM", vram))
        width = self.content_size.width
        for shown in (memories, memories[:1]):
            for tail in self._tails(snapshot):
                texts = [f"{name} " + meters.span(memory) + " " for name, memory in shown]
                room = width - sum(len(text) + 2 for text in texts) - len(tail)
                bar = min(self._MAX_BAR, room // len(shown))
                if bar >= self._MIN_BAR:
                    return self._assemble(shown, bar, tail)
        return self._assemble(memories[:1], self._MIN_BAR, "")

    def _tails(self, snapshot: Snapshot) -> Iterator[str]:
        """The rest of the line, from the longest form to the shortest."""
        disk = "" if self._disk is None else f"  disk {meters.speed(self._disk)}"
        if not meters.has_gpu(snapshot):
            yield f"no GPU: VRAM n/a, PCIe n/a{disk}"
            yield f"no GPU{disk}"
            return
        bus = meters.bus(snapshot)
        name = "sim PCIe" if bus.simulated else "PCIe"
        to, back, share = meters.speed(bus.to_gpu), meters.speed(bus.from_gpu), bus.share.replace(" ", "")
        yield f"{name} to {to} from {back} GB/s {share}".rstrip() + disk
        if disk:
            yield f"{name} {to} {share}".rstrip() + disk
        yield f"{name} {to}/{back} GB/s {share}".rstrip()
        yield f"{name} {to} {share}".rstrip()
        yield ""

    def _assemble(self, memories: list[tuple[str, Memory | None]], bar: int, tail: str) -> Content:
        parts: list[str | tuple[str, Style]] = []
        for name, memory in memories:
            parts.append(f"{name} ")
            if memory is not None:
                parts.extend(memory_bar(memory, bar, self.get_visual_style))
                parts.append(" ")
            parts.append(f"{meters.span(memory)}  ")
        return Content.assemble(*parts, tail)


class Gauges(Horizontal):
    """All gauges. TCSS decides whether the panels or the line are seen.

    `disk` says that weights are read from disk, whose speed is shown then.
    """

    disk = False

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
        disk = meters.disk(snapshot) if self.disk else None
        self.set_class(not gpu, "-no-gpu")
        self.query_one("#ram", MemoryPanel).read(meters.ram(snapshot))
        if gpu:
            self.query_one("#vram", MemoryPanel).read(meters.vram(snapshot))
            self.query_one("#bus", BusPanel).read(meters.bus(snapshot), disk)
        else:
            last = "PCIe n/a" if disk is None else f"disk {meters.speed(disk)}"
            self.query_one("#no-gpu", PlainStatic).show(f"no GPU\nVRAM n/a\n{last}")
        self.query_one("#gauge-line", GaugeLine).read(snapshot, disk)

    def speed(self, speed: float | None, surprise: float | None, tau: float | None) -> None:
        """Show the speed of the running reply."""
        self.query_one("#speed", SpeedPanel).read(speed, surprise, tau)
