"""Replies that a model might send to take over a terminal, to hide something or to break the interface."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

JOINERS = "\u200c\u200d"
"""Invisible, and part of the writing of Persian, of several Indic scripts and of emoji."""


@dataclass(frozen=True, slots=True)
class Case:
    """A reply in the pieces in which it comes. Where it is `marked`, some of it is Markdown and not shown."""

    name: str
    pieces: tuple[str, ...]
    marked: bool = False

    @property
    def clean(self) -> str:
        """What is to be left of it."""
        return clean("".join(self.pieces))

    def seen_in(self, text: str) -> str:
        """What is to be seen in `text`, wherever lines are broken; of Markdown only letters and digits."""
        return "".join(char for char in text if (char.isalnum() if self.marked else not char.isspace()))


def clean(text: str) -> str:
    """`text` as it may reach a terminal, told by Unicode's categories instead of lists of characters."""
    return "".join(map(_clean, text))


def _clean(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Zl", "Zp"):
        return "\n"
    # Controls, what is invisible and directs others, and halves of characters.
    return "" if category in ("Cc", "Cf", "Cs") and char not in f"\t\n{JOINERS}" else char


SEQUENCES = (
    *("\x1b[2J", "\x1b[8m", "\x1b[999;999H", "\x1b[?1049l", "\x1b[?2004l", "\x1b[6n", "\x1b[21t", "\x1b[!p"),
    *("\x1b]8;;http://evil.example\x1b\\", "\x1b]8;;\x1b\\", "\x1b]0;owned\x07", "\x1b]2;owned\x1b\\"),
    *("\x1b]52;c;b3duZWQ=\x07", "\x1b]52;c;?\x07", "\x1b]1337;File=inline=1:AAAA\x07", "\x1b]50;#1\x07"),
    *("\x1bP$q q\x1b\\", "\x1bP+q544e\x1b\\", "\x1b_Ga=T;AAAA\x1b\\", "\x1b^private\x1b\\", "\x1bXall\x1b\\"),
    *("\x1bc", "\x1b(0", "\x1bZ", "\x1b#8", "\x9b2J", "\x9d52;c;b3duZWQ=\x9c", "\x90$q q\x9c", "\x9fA\x9c"),
    *("\x05", "\x0e", "\x0f", "\x07", "\x08\x08\x08", "\x7f"),
)
"""What would erase, hide, ask, copy, rename, paint, reset or switch the alphabet."""

_FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"

CASES = (
    Case(
        "markup", ("a [/x] [bold]b[/bold] [@click=app.quit]", "quit[/] [link='x']y ", "[/", "] :smile: {{x}}")
    ),
    Case("sequences", tuple("".join(f"before {sequence} after\n" for sequence in SEQUENCES))),
    Case("an escape at the end", ("the end", "\x1b")),
    Case("a command without an end", ("text ", "\x1b]", "52;c;", "b3duZWQ=")),
    Case("bidi", ("access = '", "\u202e", "nimda", "\u202c", "' # \u2066\u2069", "\u200f\u061c", " done")),
    Case("html", ("<script>alert(1)</script> <b>bold", "</b> <br/> <!-- gone? --> &lt;tag&gt; List<int>")),
    Case(
        "zero width",
        ("pass\u200bword \ufeffmark \u2060join\u2063er so\u00adft \u180e", "\ufff9a\ufffab\ufffb"),
    ),
    Case("tags", ("flag\U000e0041\U000e0042\U000e007f", " hidden ASCII")),
    Case("combining", ("e\u0301 z", *("\u0335" * 30), "algo ", "\u0301alone n\u0303")),
    Case("emoji", (*_FAMILY, " \u2764\ufe0f \U0001f1ee", "\U0001f1f8 \U0001f44d", "\U0001f3fd")),
    Case("scripts", ("漢字かな한글 ＦＵＬＬ ｶﾅ עברית العربية می\u200cخواهم क्\u200dष",)),
    Case("controls", ("tab\tnul\x00bel\x07bs\x08vt\x0bff\x0ccr\rdel\x7f", "\r\n", "next\r\r\nline")),
    Case("separators", ("one\u2028two\u2029three\x85four\x1cfive",)),
    Case("surrogates", ("half \ud83d", "\ude00 other \udc80 end")),
    Case("an unclosed fence", ("Look:\n\n``", "`\nx = '[bold]'\n\n    y\n# no heading"), marked=True),
    Case("nested fences", ("````\n```\ninner\n```\nstill code\n````\nout\n~~~\n```\nmore",), marked=True),
    Case("code behind a fence", ("```print('x')\ny\n```\n~~~", "漢字 one\n~~~\n"), marked=True),
    Case("unclosed emphasis", ("**bold *both _under `code [link](http://x", " and ~~strike"), marked=True),
    Case("an unfinished table", ("| a | b |\n|---|---|\n| c | **d |\n| e", " |"), marked=True),
    Case("a ragged table", ("| a | b |\n|--|--|\n| c |\n| d | e | f | g |\n|\n",), marked=True),
    Case(
        "links", ("[quit](javascript:x) ![pic](http://y/z.png) <http://v>\n\n[r]: http://w 't'",), marked=True
    ),
    Case("a deep list", tuple(f"{'  ' * depth}- d{depth}\n" for depth in range(60)), marked=True),
    Case("deep quotes", ("> " * 60 + "quoted\n\n", "> - " * 30 + "both"), marked=True),
    Case("nothing but marks", ("# \n\n- \n\n> \n\n***\n\n|\n", "+ "), marked=True),
    Case("a list of five hundred", tuple(f"- item {number}\n" for number in range(1, 501)), marked=True),
    Case("a line of ten thousand tokens", tuple(f"{'word ' * 24}{number} " for number in range(400))),
    Case("a word without an end", ("x" * 5000, "[/]" * 1000)),
)

PAYLOAD = "[/x] [@click=app.quit]q[/] " + " ".join(SEQUENCES) + " \u202eleft\u2066 \ud800 zero\u200bwidth"
"""All of it at once, for a name or a line."""
