"""The bottom line: the keys that matter now."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.widget import Widget

from tui.commands import BY_ID
from tui.keys import key_word

_APPLY = ("apply",)
_CHAT = (
    *(("settings",), ("map",), ("chats",), ("command_palette",), ("help",)),  # which 80 columns hold
    *(("copy",), ("messages",), ("new_chat",), ("quit",)),
)


class KeyBar(Widget):
    """Keys with a word each, as many as fit. A click does the same as the key."""

    COMPONENT_CLASSES = {"key-bar--key"}

    def __init__(self, id: str, shown: tuple[tuple[str, ...], ...] = ()) -> None:
        super().__init__(id=id)
        self._shown = shown
        self._back = ""
        self._ends: list[tuple[int, str]] = []  # where each entry ends in the line, and its action

    def show(self, *, busy: bool, pending: bool, row_keys: tuple[tuple[str, ...], ...] | None) -> None:
        """Choose the keys for what is going on; `row_keys` are those of where the cursor is."""
        back = "back" if row_keys is not None else "stop" if busy else ""
        shown = _CHAT if row_keys is None else row_keys
        if pending:
            shown = (_APPLY, *shown)
        if (shown, back) != (self._shown, self._back):
            self._shown, self._back = shown, back
            self.refresh()

    def render(self) -> Content:
        """The entries from the left until the line is full."""
        width, line = self.content_size.width, Content("")
        entries = [(ids, BY_ID[ids[0]].bar) for ids in self._shown]
        if self._back:
            entries.insert(0, (("back",), self._back))
        self._ends.clear()
        for ids, word in entries:
            entry = self._entry(ids, word)
            if line.cell_length + entry.cell_length > width:
                break
            line = line + entry + "  "
            self._ends.append((line.cell_length, ids[0]))
        return line

    async def on_click(self, event: events.Click) -> None:
        """Do what the entry under the mouse says; the settings' keys need the keyboard's focus."""
        x = event.get_content_offset_capture(self).x
        id = next((id for end, id in self._ends if x < end), None)
        if id is not None and BY_ID[id].scope != "settings":
            await self.screen.run_action(f"perform('{id}')")

    def _entry(self, ids: tuple[str, ...], word: str) -> Content:
        keys = "/".join(key_word(id) for id in ids)
        return Content.assemble((keys, self.get_visual_style("key-bar--key")), f" {word}")
