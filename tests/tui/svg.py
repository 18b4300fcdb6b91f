"""Screens as pictures: what of an SVG matters, compared with a file that can be looked at."""

from __future__ import annotations

import difflib
import html
import re
from pathlib import Path

from textual.app import App

FOLDER = Path(__file__).parent / "snapshots"


def essence(svg: str) -> list[str]:
    """Every run of text and every coloured area with place and look, free of the names that Rich makes up."""
    looks = dict(re.findall(r"\.terminal-\d+-(r\d+) \{ ?([^}]*?) ?\}", svg))
    lines = []
    for attributes, text in re.findall(r"<text ([^>]*)>([^<]*)</text>", svg):
        kind = re.search(r'class="terminal-\d+-(r\d+)"', attributes)
        x, y = (re.search(rf'\b{axis}="([\d.]+)"', attributes) for axis in "xy")
        if kind and x and y and (shown := html.unescape(text).replace("\xa0", " ")).strip():
            lines.append(f"{float(y[1]):.0f},{float(x[1]):.0f} {shown.rstrip()} [{looks[kind[1]]}]")
    for fill, x, y, width in re.findall(
        r'<rect fill="(#\w+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', svg
    ):
        lines.append(f"{float(y):.0f},{float(x):.0f} {float(width):.0f} wide {fill}")
    return lines


def differs(app: App[object], name: str, *, update: bool) -> str:
    """What is other than in the file of that name; nothing where `update` has written it."""
    path, svg = FOLDER / f"{name}.svg", app.export_screenshot(title=name, simplify=True)
    if update:
        path.write_text(re.sub(r"terminal-\d+-", "terminal-0-", svg))
        return ""
    kept = essence(path.read_text()) if path.exists() else []
    return "\n".join(difflib.unified_diff(kept, essence(svg), f"{name}.svg", "the screen", lineterm="", n=0))
