"""Titles in borders: as much of one as fits."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content
from textual.widget import Widget


def entitle(widget: Widget, forms: Iterable[str], subtitles: Iterable[str] | None = None) -> None:
    """Give `widget` the first of `forms` that fits, else the last one, and the first subtitle that fits."""
    forms = list(forms)
    room = widget.content_size.width - 2  # a blank on each side
    title = next((form for form in forms if len(form) <= room), forms[-1])
    if widget.border_title != title:
        widget.border_title = Content(title)
    if subtitles is not None:
        subtitle = next((form for form in subtitles if len(form) <= room), "")
        if widget.border_subtitle != subtitle:
            widget.border_subtitle = Content(subtitle)
