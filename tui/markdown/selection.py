"""The text of a selection, which knows lines by their numbers and is thus independent of wrapping."""

from __future__ import annotations

from textual.selection import Selection

from tui.markdown.document import Document, line_number
from tui.markdown.pieces import Fold


def selected_text(document: Document, selection: Selection) -> str:
    """The selected text without labels, indentation and wrapping.

    A message that is selected as a whole is copied as it was written, otherwise the lines as shown.
    """
    start, end = selection
    parts = []
    for index, section in enumerate(document.sections):
        first, beyond = line_number(section.serial, 0, 0), line_number(section.serial + 1, 0, 0)
        if (start is not None and start.y >= beyond) or (end is not None and end.y < first):
            continue
        whole = (start is None or start.y < first) and (end is None or end.y >= beyond)
        parts.append(section.text if whole and section.text else _lines(document, index, selection))
    return "\n\n".join(part for part in parts if part)


def _lines(document: Document, at: int, selection: Selection) -> str:
    document.flush(at)
    section = document.sections[at]
    found = []
    for index, piece in enumerate(section.pieces):
        if isinstance(piece, Fold):
            continue  # what it hides is copied in its place
        for number, line in enumerate(piece.lines(document.frame)):
            span = selection.get_span(line_number(section.serial, index, number))
            if span is not None:
                start, end = max(0, span[0]), span[1] if span[1] >= 0 else len(line.text)
                found.append((line.copied if start == 0 else "") + line.text[start:end])
    return "\n".join(found).strip("\n")
