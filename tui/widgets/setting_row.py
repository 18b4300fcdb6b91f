"""One parameter in the sidebar: its label, its value, and where it lies in its range."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.message import Message
from textual.style import Style
from textual.widget import Widget

from core.options import Param
from tui.commands import bindings
from tui.settings import Settings
from tui.widgets.bars import level
from tui.widgets.plain import plain

_LABEL, _VALUE = 12, 6  # cells; the rest of the row is for the bar


class SettingRow(Widget, can_focus=True):
    """Shows a parameter and takes the keys that change it. What happens to it, others decide.

    While a value is typed, `typed` holds what is there so far.
    """

    BINDINGS = bindings("settings")
    COMPONENT_CLASSES = {"setting--value", "setting--mark", "setting--bar", "setting--typed"}

    class Stepped(Message):
        """The user asked for so many steps up or down."""

        def __init__(self, row: SettingRow, steps: int) -> None:
            super().__init__()
            self.row, self.steps = row, steps

    class Entered(Message):
        """The user typed a value."""

        def __init__(self, row: SettingRow, text: str) -> None:
            super().__init__()
            self.row, self.text = row, text

    class Cleared(Message):
        """The user asked for the default."""

        def __init__(self, row: SettingRow) -> None:
            super().__init__()
            self.row = row

    class Opened(Message):
        """The user wants to edit a text that has no room in a row."""

        def __init__(self, row: SettingRow) -> None:
            super().__init__()
            self.row = row

    class Focused(Message):
        """The cursor came to this row."""

        def __init__(self, row: SettingRow) -> None:
            super().__init__()
            self.row = row

    def __init__(self, param: Param, settings: Settings) -> None:
        super().__init__(id=f"set-{param.key}")
        self.param = param
        self.typed: str | None = None
        self._settings = settings
        self.sync()

    def sync(self) -> None:
        """Show the present value."""
        self.set_class(self._settings.inert_reason(self.param) is not None, "-inert")
        self.refresh()

    # --- keys -----------------------------------------------------------------------------------

    def action_perform(self, id: str) -> None:
        """One of the settings' keys."""
        getattr(self, f"action_{id}")()

    def action_field_up(self) -> None:
        """To the row above."""
        self.cancel()
        self.screen.focus_previous(SettingRow)

    def action_field_down(self) -> None:
        """To the row below."""
        self.cancel()
        self.screen.focus_next(SettingRow)

    def action_less(self) -> None:
        """One step down."""
        self._step(-1)

    def action_more(self) -> None:
        """One step up."""
        self._step(1)

    def action_much_less(self) -> None:
        """Ten steps down."""
        self._step(-10)

    def action_much_more(self) -> None:
        """Ten steps up."""
        self._step(10)

    def action_type(self) -> None:
        """Begin to type a value, or take what was typed."""
        if self.param.kind == "text":
            self.post_message(self.Opened(self))
        elif self.typed is None:
            self._type("")
        else:
            text = self.typed
            self.cancel()
            if text:
                self.post_message(self.Entered(self, text))

    def action_default(self) -> None:
        """The default; while typing, the last character goes."""
        if self.typed is None:
            self.post_message(self.Cleared(self))
        else:
            self._type(self.typed[:-1])

    def cancel(self) -> None:
        """Forget what was typed."""
        if self.typed is not None:
            self.typed = None
            self.refresh()

    def _step(self, steps: int) -> None:
        self.cancel()
        self.post_message(self.Stepped(self, steps))

    def _type(self, text: str) -> None:
        self.typed = text
        self.refresh()

    def on_key(self, event: events.Key) -> None:
        """Printable characters go into the value; a digit begins one."""
        character = event.character
        if character is None or not event.is_printable or self.param.kind == "text":
            return
        if self.typed is not None or character.isdigit() or character in ".-":
            event.stop()
            self._type((self.typed or "") + character)

    def on_focus(self) -> None:
        """Tell the sidebar which help to show."""
        self.post_message(self.Focused(self))

    def on_blur(self) -> None:
        """Whoever leaves in the middle of a number did not mean it."""
        self.cancel()

    # --- looks ----------------------------------------------------------------------------------

    def render(self) -> Content:
        """The row in the width there is."""
        style, settings, param = self.get_visual_style, self._settings, self.param
        width = self.content_size.width
        label = param.label.ljust(_LABEL - 1)
        mark = ("*" if settings.is_changed(param) else " ", style("setting--mark"))
        if self.typed is not None:
            return Content.assemble(label, mark, (f"{self.typed}▏", style("setting--typed")))
        shown = plain(settings.shown(param).replace("\n", " "))
        reason = settings.inert_reason(param)
        if reason is not None:
            room = width - _LABEL - len(reason)
            value = f"{shown.plain:>{_VALUE}} " if room > _VALUE else ""
            return Content.assemble(label, mark, value, reason).truncate(width, ellipsis=True)
        if param.kind == "choice":
            return Content.assemble(label, mark, *self._choices(style("setting--value")))
        if param.kind == "text":
            line = Content.assemble(param.label, " ", mark, shown)
            return line.truncate(width, ellipsis=True)
        tail = width - _LABEL - _VALUE - 3
        return Content.assemble(
            label,
            mark,
            (f"{shown.plain:>{_VALUE}}", style("setting--value")),
            " ",
            (self._bar(tail), style("setting--bar")),
        )

    def _choices(self, chosen: Style) -> list[str | tuple[str, Style]]:
        value = self._settings.values[self.param.key]
        parts: list[str | tuple[str, Style]] = []
        for choice in self.param.choices:
            text = self.param.format(choice)
            parts.append((f"[{text}]", chosen) if choice == value else f" {text} ")
        return parts

    def _bar(self, width: int) -> str:
        """Where the value lies; only for parameters whose whole range people use."""
        param, value = self.param, self._settings.values[self.param.key]
        bounded = param.kind == "float" and param.min is not None and param.max is not None
        if not bounded or not isinstance(value, (int, float)) or width < 4:
            return ""
        low, high = float(param.min or 0), float(param.max or 1)
        left, right = ("◂", "▸") if self.has_focus else (" ", " ")
        return left + level((value - low) / (high - low), width) + right
