"""Traffic between host and card over time."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content

from tui import meters
from tui.meters import Bus
from tui.widgets.history_graph import HistoryGraph, nice_ceiling
from tui.widgets.plain import PlainStatic

_BETWEEN = " · "


class BusPanel(Vertical):
    """Both ways, in the range of the link: the engine's own figures first, the device's beside them."""

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

    def read(self, bus: Bus, disk: float | None) -> None:
        """Show a reading; `disk` is the speed of a disk that weights come from."""
        for key, value in (("to", bus.to_gpu), ("from", bus.from_gpu)):
            self._peak = max(self._peak, value or 0.0)
            graph = self.query_one(f"#{key}-graph", HistoryGraph)
            graph.top = bus.link or nice_ceiling(self._peak)
            graph.push(value)
            share = bus.share if key == "to" else ""
            self.query_one(f"#{key}-value", PlainStatic).show(f"{meters.speed(value)} {share}".rstrip())
        self._entitle(bus)
        self.query_one("#bus-figures", PlainStatic).show(self._figures(bus, disk))

    def _entitle(self, bus: Bus) -> None:
        link = meters.speed(bus.link)
        if bus.simulated:
            forms = [f"PCIe simulated · GB/s · link {link}", "PCIe simulated · GB/s"]
        elif bus.exact:
            forms = [f"PCIe GB/s · link {link} · engine", f"PCIe · link {link} · engine"]
        else:
            forms = [f"PCIe GB/s · link {link}"]
        room = self.content_size.width - 2  # a blank on each side
        title = next((form for form in forms if len(form) <= room), forms[-1])
        if self.border_title != title:
            self.border_title = Content(title)

    def _figures(self, bus: Bus, disk: float | None) -> str:
        """As many as fit: what the device counted, the disk, the peak."""
        parts = []
        if bus.simulated:
            parts.append(f"link {meters.speed(bus.link)}")
        elif bus.exact:
            parts.append(f"device counter {meters.speed(bus.counter)}")
        if disk is not None:
            parts.append(f"disk {meters.speed(disk)}")
        parts.append(f"peak {meters.speed(self._peak)}")
        if not bus.exact:
            parts.append("device counter")
        line = parts[0]
        for part in parts[1:]:
            if len(line) + len(_BETWEEN) + len(part) <= self.content_size.width:
                line += _BETWEEN + part
        return line
