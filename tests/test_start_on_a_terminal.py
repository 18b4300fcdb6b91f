"""`llama-tui` alone, as a user has it: the start screen, a model, a chat, on a pseudo-terminal."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.terminal import LLAMA_TUI, Terminal

Launch = Callable[..., Terminal]
CTRL_Q, ESC, UP = "\x11", "\x1b", "\x1b[A"
MOUSE = b"\x1b[?1003h"  # every movement of it is reported


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    terminals: list[Terminal] = []

    def start(*arguments: object, columns: int = 100, rows: int = 30, **environment: str) -> Terminal:
        environment = {"XDG_STATE_HOME": str(tmp_path), "LLAMA_TUI_DATA": str(tmp_path)} | environment
        terminals.append(Terminal([*LLAMA_TUI, *map(str, arguments)], columns, rows, **environment))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def replies(stats: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in stats.read_text().splitlines()] if stats.exists() else []


def test_a_path_a_chat_and_the_next_time_it_is_a_recent_model(
    launch: Launch, stories: Path, tmp_path: Path
) -> None:
    stats = tmp_path / "stats.jsonl"
    flags = ("--device", "cpu", "--max-tokens", "4", "--stats", stats, "--chat-format", "llama2")
    terminal = launch(*flags)
    terminal.wait_for("Synthetic 70b")
    terminal.send("/nowhere")
    terminal.wait_for("/nowhere: no such file or folder")
    terminal.send(ESC)
    terminal.wait_for("Path of a Llama")
    terminal.send(str(stories)[:-2])
    terminal.wait_for("stories260K/")
    terminal.send("\t")
    terminal.wait_for(f"{stories}/")
    terminal.wait_for("Meta model stories260K")
    terminal.send("\r")
    terminal.wait_for("Message · Enter sends")
    terminal.send("Once upon a time\r")
    terminal.wait(lambda: len(replies(stats)) == 1)
    terminal.wait_for("idle")
    assert terminal.raw.count(b"\x1b[?1049h") == 1  # one screen from the first frame to the last
    assert MOUSE in terminal.raw
    terminal.send(CTRL_Q)
    assert terminal.wait_exit(5) == 0
    assert terminal.modes() == terminal.before
    assert b"llama-tui --resume 1" in terminal.raw

    again = launch(*flags, "--no-mouse")
    again.wait_for("Go on with \u201cOnce upon a time\u201d")
    again.wait_for("--device cpu --chat-format llama2")
    again.send("\r")
    again.wait_for("Once upon a time")
    again.wait_for("idle")
    again.send(UP)
    again.wait_for("\u203a Once upon a time")
    again.send("\r")
    again.wait(lambda: len(replies(stats)) == 2)
    first, second = replies(stats)
    assert second["prompt_tokens"] > first["prompt_tokens"]  # type: ignore[operator]
    assert MOUSE not in again.raw
    again.send(CTRL_Q)
    assert again.wait_exit(5) == 0


@pytest.mark.parametrize("key", [ESC, CTRL_Q])
def test_it_is_left_with_status_0(launch: Launch, key: str) -> None:
    terminal = launch()
    terminal.wait_for("Synthetic 70b")
    terminal.send(key)
    assert terminal.wait_exit(5) == 0
    assert terminal.modes() == terminal.before


@pytest.mark.alone
def test_the_first_frame_needs_no_torch(launch: Launch) -> None:
    """Within a second on a quiet machine; the bound leaves room for a loaded one."""
    launch().wait_for("which model?")  # the second launch finds everything compiled
    terminal = launch()
    assert terminal.seconds_to(1500) < 2.0
    terminal.wait_for("Synthetic 70b")
    modules = Path(f"/proc/{terminal.process.pid}/maps")
    if modules.exists():
        assert "torch" not in modules.read_text()


def test_a_load_that_fails_comes_back_with_its_line(launch: Launch, stories: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in stories.iterdir():
        data = file.read_bytes()
        (broken / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".pth" else data)
    terminal = launch("--device", "cpu")
    terminal.wait_for("Synthetic 70b")
    terminal.send(f"{broken}\r")
    terminal.wait_for("starting torch")
    terminal.wait_for("which model?")
    terminal.wait_for("truncated, or written by torch")  # behind the path, however that is wrapped
    terminal.send(ESC)
    terminal.wait_for("Path of a Llama")
    terminal.send(f"{stories}\r")
    terminal.wait_for("idle")
    terminal.send(CTRL_Q)
    assert terminal.wait_exit(5) == 0


def test_an_unloaded_model_is_loaded_again_by_the_next_message(
    launch: Launch, stories: Path, tmp_path: Path
) -> None:
    stats = tmp_path / "stats.jsonl"
    terminal = launch(stories, "--device", "cpu", "--max-tokens", "4", "--stats", stats)
    terminal.wait_for("idle")
    terminal.send("Once\r")
    terminal.wait(lambda: len(replies(stats)) == 1)
    terminal.wait_for("idle")
    terminal.send("/unload\r")
    terminal.wait_for("the next message loads it again")
    terminal.send("Again\r")
    terminal.wait(lambda: len(replies(stats)) == 2)
    terminal.wait_for("loaded again for this message")
    terminal.wait_for("idle")
    terminal.send(CTRL_Q)
    assert terminal.wait_exit(5) == 0


def test_without_a_terminal_the_error_is_as_it_was() -> None:
    ended = subprocess.run(LLAMA_TUI, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert ended.returncode == 2
    assert ended.stderr == (
        "llama-tui: no checkpoint; give its folder (llama-tui CKPT TOKENIZER), or --demo to try a small one\n"
    )
