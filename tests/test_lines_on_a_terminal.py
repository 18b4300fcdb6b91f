"""`--script -` on a terminal: a chat line by line, of which every byte is text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.history.store import History
from tests.terminal import LLAMA_TUI, Terminal

Launch = Callable[..., Terminal]
CTRL_C, CTRL_D = "\x03", "\x04"
GREEDY = ("--device", "cpu", "--temperature", "0")


@pytest.fixture
def launch(tmp_path: Path, stories: Path) -> Iterator[Launch]:
    terminals: list[Terminal] = []

    def start(*arguments: object) -> Terminal:
        argv = [*LLAMA_TUI, str(stories), "--script", "-", *GREEDY, *map(str, arguments)]
        environment = {"XDG_STATE_HOME": str(tmp_path), "LLAMA_TUI_DATA": str(tmp_path)}
        terminals.append(Terminal(argv, 200, 40, **environment))
        prompts(terminals[-1], 1)
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def prompts(terminal: Terminal, count: int) -> None:
    """Wait for the n-th prompt."""
    terminal.wait(lambda: len(re.findall(rb"(?:^|\n)> ", bytes(terminal.raw))) >= count)


def text(terminal: Terminal) -> str:
    """All that came, after a check that none of it is a control sequence."""
    raw = bytes(terminal.raw).replace(b"\r\n", b"\n")  # the terminal's own ends of lines
    assert [byte for byte in raw if (byte < 0x20 and byte != 0x0A) or byte == 0x7F] == []
    return raw.decode()


def test_a_conversation_of_plain_lines_that_ctrl_c_stops_and_ctrl_d_ends(
    launch: Launch, stories: Path, tmp_path: Path
) -> None:
    stats = tmp_path / "stats.jsonl"
    terminal = launch("--max-tokens", 12, "--stats", stats)
    terminal.send("Once upon a\n")
    prompts(terminal, 2)
    terminal.send("/set max_tokens 3000\n")
    prompts(terminal, 3)
    terminal.send("Once\n")
    terminal.wait(lambda: len(text(terminal).partition("> Once\n")[2]) > 40)
    terminal.send(CTRL_C)
    prompts(terminal, 4)
    terminal.send("half a line" + CTRL_C)
    prompts(terminal, 5)
    terminal.send("/set max_tokens 4\n")
    prompts(terminal, 6)
    terminal.send("/regenerate\n")
    prompts(terminal, 7)
    assert terminal.process.poll() is None
    terminal.send(CTRL_D)
    assert terminal.wait_exit() == 0
    replies = [json.loads(line) for line in stats.read_text().splitlines()]
    assert [reply["finish_reason"] for reply in replies] == ["length", "cancelled", "length"]
    said = text(terminal)
    assert "> Once upon a\n time, there was a little girl named" in said
    assert "max tokens is now 3000" in said
    assert "12 tok · " in said
    assert replies[1]["text"].rstrip() in said.replace("^C", "")
    assert replies[2]["text"] in said.rpartition("/regenerate")[2]
    assert "ctrl+d leaves" in said.rpartition("half a line")[2]
    assert terminal.modes() == terminal.before
    [row] = History(tmp_path / "history.db").rows()
    assert row.messages == 5  # two messages, three replies


def test_commands_are_those_of_the_table_that_make_sense_here(launch: Launch) -> None:
    terminal = launch("--chat-format", "llama2", "--max-tokens", 4)
    lines = ("/system Be brief.", "/help", "/settings", "/nonsense", "/mirostat 2 3", "/cache", "Hello")
    lines += ("/unload", "/cache", "And then?")
    for number, line in enumerate(lines, 2):
        terminal.send(f"{line}\n")
        prompts(terminal, number)
    terminal.send("/quit\n")
    assert terminal.wait_exit() == 0
    said = text(terminal)
    assert "system prompt is now Be brief.; acts on the next message" in said
    assert "/set KEY VALUE: Sets a parameter" in said
    assert "/settings: Goes" not in said
    assert "/settings needs the full screen; /help lists what works here" in said
    assert "/nonsense: unknown command, not sent" in said
    assert "Mirostat is now 2, tau 3.00 bits, eta 0.10" in said
    assert "KV cache: 0 of 4096 tokens" in said
    assert "> /unload\nthe model is unloaded" in said
    assert "> /cache\nthe model is unloaded; the next message loads it again" in said
    assert "it is loaded again for this message" in said
    assert said.count("4 tok · ") == 2
