"""F3: a full page of gauges, over minutes, with the figures behind them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll

from tui import meters, reply_table
from tui.chat_session import ChatSession
from tui.commands import BY_ID
from tui.compat import SafeClicks
from tui.figures import gigabytes, rate
from tui.keys import key_word, keys_of
from tui.meters import Bus, Memory
from tui.placement_words import limit_word
from tui.plan_table import short_lines
from tui.readings import KEPT, Readings, Series
from tui.widgets.bus_panel import bus_top
from tui.widgets.gauges import speed_top
from tui.widgets.graph_panel import GraphPanel
from tui.widgets.header import Header
from tui.widgets.memory_panel import MemoryPanel
from tui.widgets.plain import PlainStatic, plain
from tui.widgets.plain_line import PlainLine
from tui.widgets.status_line import StatusLine

_PERIOD_S = 1.0
_NARROW = 60  # columns
_NO_GPU = "no GPU: VRAM n/a, PCIe n/a"
_NO_TAU_BITS = 16.0  # the end of the range where Mirostat steers nothing; few tokens surprise more


class GaugesScreen(SafeClicks):
    """Draws what the chat samples anyway, once a second and only while it shows. The reply goes on behind it.

    `readings` are the meters over time; the rest is the session's.
    """

    def __init__(self, session: ChatSession, readings: Readings, model_name: str) -> None:
        super().__init__()
        self._session, self._readings, self._model_name = session, readings, model_name
        self._written: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        """Header, memory, bus, disk, reply, figures; then what is going on, and how to leave."""
        readings = self._readings
        yield Header(self._model_name, simulated=self._session.options.device == "sim", id="header")
        with VerticalScroll(id="page"):
            yield PlainStatic(_NO_GPU, id="page-no-gpu")
            with Horizontal(classes="page-memory"):
                yield MemoryPanel("VRAM", id="page-vram")
                yield MemoryPanel("RAM", id="page-ram")
            with Horizontal(classes="page-graphs", id="page-over-time"):
                yield GraphPanel("VRAM", "graph-vram", readings=readings.vram.values)
                yield GraphPanel("RAM", "graph-ram", readings=readings.ram.values)
            with Horizontal(classes="page-graphs", id="page-bus"):
                yield GraphPanel("PCIe to GPU", "graph-to", readings=readings.to_gpu.values)
                yield GraphPanel("PCIe from GPU", "graph-from", readings=readings.from_gpu.values)
            with Horizontal(classes="page-graphs", id="page-disk"):
                yield GraphPanel("disk", "graph-disk", readings=readings.disk.values)
            with Horizontal(classes="page-graphs"):
                yield GraphPanel("tok/s", "graph-speed", readings=readings.speed.values)
                yield GraphPanel("surprise", "graph-surprise", line=True)
            with Horizontal(classes="page-texts"):
                yield PlainStatic(id="page-replies")
                yield PlainStatic(id="page-plan")
        with Horizontal(id="status-row"):
            yield StatusLine(id="status")
        keys = f"{key_word('back')} back  PgUp PgDn scroll  {key_word('log')} log"
        yield PlainLine(keys, id="page-keys")

    def on_mount(self) -> None:
        """The arrows scroll at once, and everything shows its present state."""
        self.query_one("#page-replies").border_title = "last replies"
        self.query_one("#page-plan").border_title = "plan and rates"
        self.query_one("#page").focus()
        self.call_after_refresh(self._paint)
        self.set_interval(_PERIOD_S, self._paint)

    def on_resize(self, event: events.Resize) -> None:
        """Set the size's classes, and fill the new width."""
        self.set_class(event.size.width < 100, "-narrow")
        self.set_class(event.size.height < 30, "-low")
        self.set_class(event.size.height >= 55, "-tall")
        self.call_after_refresh(self._paint)

    def on_key(self, event: events.Key) -> None:
        """Back to the chat."""
        if event.key in (*keys_of(BY_ID["back"]), *keys_of(BY_ID["interrupt"]), "q"):
            event.stop()
            self.dismiss(None)

    # --- painting -------------------------------------------------------------------------------

    def _paint(self) -> None:
        """Show the present state, if anybody sees it."""
        if not self.is_current:
            return
        self._paint_header()
        self._paint_memory()
        self._paint_bus()
        self._paint_reply()
        self._paint_texts()
        session = self._session
        busy = session.busy or session.model is None or bool(session.placement.progress())
        state = session.state(hint=False, brief=self.size.width < _NARROW)
        self.query_one("#status", StatusLine).state(state, busy=busy)

    def _paint_header(self) -> None:
        session, header = self._session, self.query_one("#header", Header)
        if session.model is not None:
            header.loaded(session.model)
        if session.placement.plan is not None:
            header.placed(session.placement.plan)
        header.talk(session.title)
        header.used(session.context_used)

    def _paint_memory(self) -> None:
        readings, snapshot = self._readings, self._readings.snapshot
        self.set_class(not meters.has_gpu(snapshot), "-no-gpu")
        for key, memory, series in (
            ("vram", meters.vram(snapshot), readings.vram),
            ("ram", meters.ram(snapshot), readings.ram),
        ):
            self.query_one(f"#page-{key}", MemoryPanel).read(memory)
            self._paint_used(key, memory, series)

    def _paint_used(self, key: str, memory: Memory | None, series: Series) -> None:
        """What was used over time, in the range of what there is."""
        graph = self.query_one(f"#graph-{key}", GraphPanel)
        if memory is None:
            graph.read([meters.NA], 0.0, meters.NA)
            return
        figures = [f"{gigabytes(memory.used)} GB", f"peak {gigabytes(series.peak or memory.used)}"]
        if memory.simulated:
            figures.append("simulated")
        graph.read(figures, float(memory.limit), f"0 to {gigabytes(memory.limit)} GB")

    def _paint_bus(self) -> None:
        readings, plan = self._readings, self._session.placement.plan
        bus, top = meters.bus(readings.snapshot), bus_top(readings)
        scale = f"0 to {meters.speed(top)} GB/s{'' if readings.link else ', link n/a'}"
        for key, series in (("to", readings.to_gpu), ("from", readings.from_gpu)):
            beside = bus.exact and not bus.simulated and key == "to"
            counter = f"device counter {meters.speed(bus.counter)}" if beside else ""
            figures = _bus_figures(series, readings.link, bus)
            self.query_one(f"#graph-{key}", GraphPanel).read(figures, top, scale, counter)
        self.query_one("#page-disk").display = plan is not None and plan.disk > 0
        if plan is not None and plan.disk:
            series, top = readings.disk, max(plan.rates.disk.gb_s * 1e9, readings.disk.peak or 0.0)
            figures = [f"{meters.speed(series.last)} GB/s", f"peak {meters.speed(series.peak)}"]
            self.query_one("#graph-disk", GraphPanel).read(figures, top, f"0 to {meters.speed(top)} GB/s")

    def _paint_reply(self) -> None:
        session, speed = self._session, self._readings.speed
        plan = session.placement.plan
        top = speed_top(self._readings, 0.0 if plan is None else plan.predicted_tok_s)
        figures = [meters.NA if speed.last is None else rate(speed.last)]
        if speed.peak is not None:
            figures.append(f"peak {rate(speed.peak)}")
        if plan is not None:
            figures.append(f"predicted {rate(plan.predicted_tok_s)}")
        self.query_one("#graph-speed", GraphPanel).read(figures, top, f"0 to {top:g}")

        bits = session.surprises[-KEPT:]
        tau = session.settings.tau
        panel = self.query_one("#graph-surprise", GraphPanel)
        figures = [f"mean {sum(bits) / len(bits):.2f} bits" if bits else meters.NA]
        figures.append("Mirostat off" if tau is None else f"tau {tau:.1f} dotted")
        top = 2 * tau if tau else _NO_TAU_BITS
        panel.read(figures, top, f"0 to {top:g} bits")
        panel.show(bits, tau)

    def _paint_texts(self) -> None:
        width = self.query_one("#page-replies").content_size.width
        self._write("#page-replies", reply_table.lines(self._session.conversation.exchanges, width))
        self._write("#page-plan", self._plan_lines())

    def _write(self, part: str, lines: Iterable[str]) -> None:
        """Show a text whose number of lines may change."""
        text = "\n".join(lines)
        if self._written.get(part) != text:
            self._written[part] = text
            self.query_one(part, PlainStatic).update(plain(text))

    def _plan_lines(self) -> Iterator[str]:
        """The context, what limits the speed, the plan, and the rates that were measured at load."""
        model, plan = self._session.model, self._session.placement.plan
        if model is not None:
            used = self._session.context_used
            yield f"context: {used} of {model.context} tokens"
        if plan is None:
            yield "no plan yet: the model is not loaded"
            return
        moved = f", {gigabytes(plan.streamed_per_token)} GB per token" if plan.streamed_per_token else ""
        yield f"limited by: {limit_word(plan)}{moved}"
        yield from short_lines(plan)


def _bus_figures(series: Series, link: float | None, bus: Bus) -> list[str]:
    """Rate, share of the link, peak, and whose figures these are."""
    now = " ".join(filter(None, (f"{meters.speed(series.last)} GB/s", meters.share(series.last, link))))
    whose = "simulated" if bus.simulated else "engine" if bus.exact else "device counter"
    return [now, f"peak {meters.speed(series.peak)}", whose]
