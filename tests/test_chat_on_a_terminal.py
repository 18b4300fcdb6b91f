"""The whole program as a user has it: the real worker and a real checkpoint, on a pseudo-terminal."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.terminal import LLAMA_TUI, Terminal

Launch = Callable[..., Terminal]
CTRL_Q, CTRL_T, ESC, RIGHT, DOWN = "\x11", "\x14", "\x1b", "\x1b[C", "\x1b[B"


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    terminals: list[Terminal] = []

    def start(*arguments: object, columns: int = 120, rows: int = 40) -> Terminal:
        argv = [*LLAMA_TUI, *map(str, arguments)]
        terminals.append(Terminal(argv, columns, rows, XDG_STATE_HOME=str(tmp_path)))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def replies(stats: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in stats.read_text().splitlines()] if stats.exists() else []


@pytest.mark.alone
@pytest.mark.parametrize(("columns", "rows"), [(120, 40), (80, 24)])
def test_type_stream_stop_change_a_setting_quit(
    launch: Launch, stories: Path, tmp_path: Path, columns: int, rows: int
) -> None:
    stats = tmp_path / "stats.jsonl"
    terminal = launch(
        stories, "--stats", stats, "--temperature", "0", "--max-tokens", "3000", columns=columns, rows=rows
    )
    terminal.wait_for("starting")
    terminal.send("Once upon a time\r")  # typed while the model loads
    terminal.wait_for("replying")
    terminal.wait(lambda: re.search(r"token [1-9]\d\d/3000", terminal.text()))

    pressed = time.perf_counter()
    terminal.send(ESC)
    terminal.wait_for("cancelled", 5)
    # The key itself waits up to 0.1 s: an escape may be the beginning of a sequence.
    assert time.perf_counter() - pressed < 1.0
    assert replies(stats)[0]["finish_reason"] == "cancelled"

    terminal.send(CTRL_T)
    terminal.wait_for("SETTINGS")
    for _ in range(4):
        terminal.send(RIGHT)
    terminal.wait_for("0.20")
    terminal.send(DOWN)
    terminal.wait_for("smallest set")  # the help of top-p
    terminal.send("0")
    terminal.wait_for("0▏")
    terminal.send("\r")
    terminal.wait_for("0.00")
    terminal.send(CTRL_T)
    terminal.wait_for("F1 help")
    terminal.send("/set max_tokens 5\r")
    terminal.wait_for("max tokens is now 5")
    terminal.send("The end\r")
    terminal.wait(lambda: len(replies(stats)) == 2)
    last = replies(stats)[1]
    assert (last["finish_reason"], len(last["tokens"])) == ("length", 5)  # type: ignore[arg-type]

    terminal.send(CTRL_Q)
    assert terminal.wait_exit(5) == 0
    assert terminal.modes() == terminal.before
    assert b"\x1b[?1049l" in terminal.raw


@pytest.mark.alone
def test_the_first_frame_comes_before_torch(launch: Launch, stories: Path) -> None:
    """Within a second on a quiet machine; the bound leaves room for a loaded one."""
    launch(stories).seconds_to(3000)  # the second launch finds everything compiled
    terminal = launch(stories)
    assert terminal.seconds_to(3000) < 2.0
    terminal.wait_for("starting torch")


def test_a_load_that_fails_leaves_one_line_and_status_2(
    launch: Launch, stories: Path, shared_data: Path
) -> None:
    terminal = launch(stories, shared_data / "llama2" / "tokenizer.model")
    assert terminal.wait_exit(30) == 2
    after = bytes(terminal.raw).rsplit(b"\x1b[?1049l", 1)[1].decode()
    assert "llama-tui: " in after
    assert "32000 tokens, but the embedding of stories260K has 512" in after
    assert terminal.modes() == terminal.before


def test_a_wrong_path_never_opens_the_screen(launch: Launch) -> None:
    terminal = launch("/nowhere")
    assert terminal.wait_exit() == 2
    assert b"\x1b[?1049h" not in terminal.raw
    assert b"/nowhere: no such file or folder" in terminal.raw
