"""Text as it is."""

from __future__ import annotations

from textual.content import Content
from textual.visual import VisualType
from textual.widgets import Static

from core.text.sanitize import sanitize


def plain(text: str) -> Content:
    """Text from a model, a file or a user as content: no markup is read, no control character left."""
    return Content(sanitize(text))


class PlainStatic(Static):
    """A Static that never reads markup: what looks like a tag is shown, not obeyed.

    `show` repaints only when the text differs, and never lays out anew: for lines of fixed size.
    """

    def __init__(
        self, content: str | Content = "", *, id: str | None = None, classes: str | None = None
    ) -> None:
        content = _content(content)
        super().__init__(content, markup=False, id=id, classes=classes)
        self._shown = content

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        """Replace the text."""
        super().update(plain(content) if isinstance(content, str) else content, layout=layout)

    def show(self, content: str | Content) -> None:
        """Replace the text in place."""
        content = _content(content)
        if not self._shown.is_same(content):
            self._shown = content
            self.update(content, layout=False)


def _content(text: str | Content) -> Content:
    return plain(text) if isinstance(text, str) else text
