"""The row of gauges: VRAM, RAM, PCIe, tokens per second; one line of them where room is scarce."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from core.engine.events import Snapshot
from core.weights.plan import Plan
from tui import meters
from tui.figures import gigabytes, rate
from tui.meters import Memory
from tui.readings import Readings
from tui.widgets.bus_panel import BusPanel
from tui.widgets.history_graph import HistoryGraph, nice_ceiling
from tui.widgets.memory_panel import KIND_CLASSES, MemoryPanel, memory_bar
from tui.widgets.plain import PlainStatic
from tui.widgets.titles import entitle

_MEAN_OF = 32  # tokens


def speed_top(readings: Readings, predicted: float) -> float:
    """Where the range of tokens per second ends: a round number above what was predicted and what there was.

    0 where there is neither.
    """
    most = max(predicted, readings.speed.peak or 0.0)
    return nice_ceiling(most) if most else 0.0


class SpeedPanel(Vertical):
    """Tokens per second over time, and the surprise that Mirostat steers."""

    def __init__(self, readings: Readings, id: str) -> None:
        super().__init__(id=id)
        self._readings = readings
        self.border_title = Content("tok/s")

    def compose(self) -> ComposeResult:
        """The graph of the speed, and a line and a graph for the surprise of each token."""
        yield HistoryGraph(id="speed-graph", readings=self._readings.speed.values)
        yield PlainStatic(id="surprise")
        yield HistoryGraph(id="surprise-graph", line=True)

    def read(self, predicted: float) -> None:
        """Show the newest reading in a range that holds what was predicted."""
        graph = self.query_one("#speed-graph", HistoryGraph)
        graph.top = speed_top(self._readings, predicted)
        graph.moved()
        subtitle = f"0 to {graph.top:g}" if graph.top else ""
        if self.border_subtitle != subtitle:
            self.border_subtitle = Content(subtitle)

    def talk(self, speed: float | None, surprises: Sequence[float], tau: float | None) -> None:
        """Show the speed of the running reply, the surprise of each token in bits and the mean of the last
        ones, and tau where Mirostat runs.
        """
        entitle(self, [f"tok/s {rate(speed)}" if speed else "tok/s"])
        last, text = surprises[-_MEAN_OF:], ""
        if last:
            aim = "bits" if tau is None else f"tau {tau:.1f}"
            text = f"surprise {sum(last) / len(last):.1f} {aim}"
            if len(text) > self.content_size.width:
                text = text.replace("surprise", "surpr.")
        self.query_one("#surprise", PlainStatic).show(text)
        self.set_class(tau is not None, "-steered")
        graph = self.query_one("#surprise-graph", HistoryGraph)
        graph.top, graph.mark = 2 * (tau or 0.0), tau  # tau is at half height
        graph.show(surprises[-2 * graph.size.width :] if tau else ())


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

    `readings` are the meters over time, which the full page draws too.
    """

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.readings = Readings()
        self._disk = False  # weights are read from there, so its speed is shown
        self._predicted = 0.0

    def compose(self) -> ComposeResult:
        """Panels and line; what a machine without a GPU shows instead is among them."""
        yield MemoryPanel("VRAM", id="vram")
        yield MemoryPanel("RAM", id="ram")
        yield BusPanel(self.readings, id="bus")
        yield PlainStatic("no GPU\nVRAM n/a\nPCIe n/a", id="no-gpu")
        yield SpeedPanel(self.readings, id="speed")
        yield GaugeLine(id="gauge-line")

    def placed(self, plan: Plan) -> None:
        """A plan is in force."""
        self._disk, self._predicted = plan.disk > 0, plan.predicted_tok_s

    def read(self, snapshot: Snapshot, speed: float | None = None) -> None:
        """Show a reading of the meters, and of the speed of a reply that runs."""
        self.readings.take(snapshot, speed)
        gpu = meters.has_gpu(snapshot)
        disk = meters.disk(snapshot) if self._disk else None
        self.set_class(not gpu, "-no-gpu")
        self.query_one("#ram", MemoryPanel).read(meters.ram(snapshot))
        if gpu:
            self.query_one("#vram", MemoryPanel).read(meters.vram(snapshot))
            self.query_one("#bus", BusPanel).read(meters.bus(snapshot), disk)
        else:
            last = "PCIe n/a" if disk is None else f"disk {meters.speed(disk)}"
            self.query_one("#no-gpu", PlainStatic).show(f"no GPU\nVRAM n/a\n{last}")
        self.query_one("#speed", SpeedPanel).read(self._predicted)
        self.query_one("#gauge-line", GaugeLine).read(snapshot, disk)

    def talk(self, speed: float | None, surprises: Sequence[float], tau: float | None) -> None:
        """Show how the running reply goes: its speed, the surprise of its tokens, tau where Mirostat runs."""
        self.query_one("#speed", SpeedPanel).talk(speed, surprises, tau)
