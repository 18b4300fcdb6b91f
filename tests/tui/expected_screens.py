"""What the main screens show at every size, beside the text that is kept of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SAID = " far"
"""The end of what the reply has said when it is looked at."""


@dataclass(frozen=True)
class Expected:
    """Who has the keyboard, by its id, and what is shown: at every size, from some width on, or only at 40.

    These are labels, and figures as the fake backend supplies them.
    """

    focus: str
    always: tuple[str, ...]
    at_80: tuple[str, ...] = ()
    at_120: tuple[str, ...] = ()
    at_40: tuple[str, ...] = ()

    def parts(self, width: int) -> Iterator[str]:
        """All that is shown in so many columns."""
        yield from self.always
        if width == 40:
            yield from self.at_40
        if width >= 80:
            yield from self.at_80
        if width >= 120:
            yield from self.at_120


AT_EDGES = {
    *(".1", ".3", ".4", ".5", ".7", "1.1", "5.0", "12", "17", "2.0", "3.0", "6.3", "14.6"),  # memory
    *("0.1", "5", "10", "2048", "68", "4.0", "22.6", "2.8"),  # graphs, the context
    *("9", "512", "16", "2", "30", "0"),  # F9, tokens, float16, llama2, layers, cuda:0
    *("03", "04", "05"),  # dates
}
"""Numbers with which a line may end."""

LINE = ("VRAM", "6.3/9.0G")
PANELS = (
    *("VRAM 6.3 of 9.0 GB", "R resident 4.3", "S slots .5", "K kv 1.1", "w work .1", "free 17"),
    *("RAM 14.6 of 32.0 GB", "# pinned 8.9", "link 25.2", "to GPU", "from"),
)
SETTINGS = (
    *("SETTINGS", "temperature", "top-p", "top-k", "min-p", "repetition", "Mirostat", "tau"),
    *("ignored by Mirostat", "off  1 [2]", "5.00", "preset: mirostat F9"),
)
PLACEMENT = ("9.00 GB", "VRAM 6.5 of 9.0 · 8.9 GB/token", "2.8 tok/s predicted", "[x]wq", "[ ]w3")
EXPECTED = {
    "chat": Expected(
        "prompt",
        ("llama-2-7b-chat", "you ▸ Why do foxes hunt alone?", "○ idle", "24/2048", "Message", "F1 help"),
        ("4 tok · 4.0 tok/s · first 0.20 s · stop", "8.9 GB/token", "ctrl+t settings"),
        (*PANELS, *SETTINGS, *PLACEMENT, "0.0 0 %", "device counter 0.5 · peak 0.1"),
        (*LINE, "4 tok · 4.0 tok/s · first 0.20 s", "PCIe 0.0 0%"),
    ),
    "streaming": Expected(
        "prompt",
        (SAID, "Esc stop", "68/2048"),
        ("replying 4.0 tok/s · token 48/512 · limited by PCIe · Esc stop", "1. Prey", "def hunt"),
        (*PANELS, "2.5 10 %", "device counter 3.0 · peak 22.6", "tok/s 4.0", "4.8 tau 5.0", "0 to 5"),
        (*LINE, "4.0 tok/s · 48/512 tok", "PCIe 2.5 10%"),
    ),
    "settings": Expected(
        "set-temperature",
        SETTINGS,
        ("Enter type  Backspace default", "0 to 5.", "eta", "0.10", "max tokens", "512"),
        ("0.60", "0.90", *PLACEMENT),
        ("Esc back",),
    ),
    "gauges": Expected(
        "page",
        ("VRAM 6.3 of 9.0 GB", "R resident 4.3", "x others .7", "free 5.0", "RAM 14.6 of 32.0 GB"),
        (
            *("PCIe to GPU · 2.5 GB/s 10 % · peak 22.6 · engine", "device counter 3.0", "0 to 25.2 GB/s"),
            "replying 4.0 tok/s · token 48/512 · limited by PCIe",
        ),
        (
            *("VRAM · 6.3 GB · peak 6.3", "0 to 32.0 GB", "PCIe from GPU · 0.1 GB/s", "peak 0.1"),
            *("tok/s · 4.0 · peak 4.0 · predicted 2.8", "mean 4.80 bits", "0 to 10 bits"),
        ),
        ("4.0 tok/s · 48/512 tok",),
    ),
    "map": Expected(
        "map-cells",
        ("wq", "wk", "wv", "wo", "w1", "w2", "w3", "norms", "33.6 MB", "VRAM 6.5 of 9.0 · 8.9 GB/token"),
        (
            *("MEMORY MAP", "13.5 GB · sampled 10/s", "G GPU 4.3 GB", "S streamed 8.92 GB", "90.2 pinned"),
            *("2.5 of 25.2 GB/s 10 % (engine)", "354 ms per token", "2.8 tok/s predicted", "g keep"),
        ),
        at_40=("F1 help", "4.0 tok/s · 48/512 tok"),
    ),
    "log": Expected("log-lines", ("LOG  llama-tui.log", "2001-11-03 12:00:04,000 INFO", "ctrl+c copy")),
    "help": Expected(
        "help-rows", ("Keys and commands", "Enter", "ctrl+j, shift+Enter, alt+Enter", "Esc closes")
    ),
    "chats": Expected(
        "chats-search",
        ("Search titles and messages", "Foxes", "2001-11-05", "Hens and", "2001-11-03", "Enter open"),
        ("4 msg", "2 msg", "ctrl+z undo"),
    ),
    "messages": Expected(
        "transcript",
        ("you ▸ Give me reasons.", "llama ▸ Three reasons:"),
        ("4 tok · 4.0 tok/s · first 0.20 s · stop", "e edit  r answer again"),
        at_40=("Esc back",),
    ),
    "start": Expected(
        "start-path",
        ("which model?", "Path of a Llama: folder or .gguf", "llama-7b", "2001-11-05", "F1 help"),
        ("random weights, speaks in token ids", "Synthetic 13b", "--vram 9GB", "small, 98 MB, fetched once"),
        at_40=("98 MB", "Llama 2 7B"),
    ),
}  # fmt: skip
