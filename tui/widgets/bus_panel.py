"""Traffic between host and card over time."""

from __future__ import annotations

from collections.abc import Iterator

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from tui import meters
from tui.meters import Bus
from tui.readings import Readings
from tui.widgets.history_graph import HistoryGraph, nice_ceiling
from tui.widgets.plain import PlainStatic
from tui.widgets.titles import entitle

_BETWEEN = " · "


def bus_top(readings: Readings) -> float:
    """Where the range of the bus ends: what the link carries, else a round number above all there was."""
    return readings.link or nice_ceiling(readings.bus_peak or 0.0)


def bus_titles(bus: Bus, link: float | None) -> Iterator[str]:
    """Whose figures these are and what the link carries, from the longest form to the shortest."""
    most = f"link {meters.speed(link)}"
    if bus.simulated:
        yield f"PCIe simulated · GB/s · {most}"
        yield "PCIe simulated · GB/s"
    elif bus.exact:
        yield f"PCIe GB/s · {most} · engine"
        yield f"PCIe · {most} · engine"
    else:
        yield f"PCIe GB/s · {most}"


class BusPanel(Vertical):
    """Both ways, in the range of the link: the engine's own figures first, the device's beside them."""

    def __init__(self, readings: Readings, id: str) -> None:
        super().__init__(id=id)
        self._readings = readings
        self.border_title = "PCIe GB/s"

    def compose(self) -> ComposeResult:
        """A line each way, and one of figures."""
        ways = (("to", "to GPU", self._readings.to_gpu), ("from", "from", self._readings.from_gpu))
        for key, label, series in ways:
            with Horizontal(classes="graph-line"):
                yield PlainStatic(label, classes="label")
                yield HistoryGraph(id=f"{key}-graph", readings=series.values)
                yield PlainStatic(id=f"{key}-value", classes="value")
        yield PlainStatic(id="bus-figures")

    def read(self, bus: Bus, disk: float | None) -> None:
        """Show the newest reading; `disk` is the speed of a disk that weights come from."""
        top = bus_top(self._readings)
        for key, value in (("to", bus.to_gpu), ("from", bus.from_gpu)):
            graph = self.query_one(f"#{key}-graph", HistoryGraph)
            graph.top = top
            graph.moved()
            share = meters.share(value, self._readings.link) if key == "to" else ""
            self.query_one(f"#{key}-value", PlainStatic).show(f"{meters.speed(value)} {share}".rstrip())
        entitle(self, bus_titles(bus, self._readings.link))
        self.query_one("#bus-figures", PlainStatic).show(self._figures(bus, disk))

    def _figures(self, bus: Bus, disk: float | None) -> str:
        """As many as fit: what the device counted, the disk, the peak."""
        parts = []
        if bus.simulated:
            link = f"link {meters.speed(bus.link)}"
            parts += [] if link in str(self.border_title) else [link]
        elif bus.exact:
            parts.append(f"device counter {meters.speed(bus.counter)}")
        if disk is not None:
            parts.append(f"disk {meters.speed(disk)}")
        parts.append(f"peak {meters.speed(self._readings.bus_peak or 0.0)}")
        if not bus.exact:
            parts.append("device counter")
        line = parts[0]
        for part in parts[1:]:
            if len(line) + len(_BETWEEN) + len(part) <= self.content_size.width:
                line += _BETWEEN + part
        return line
