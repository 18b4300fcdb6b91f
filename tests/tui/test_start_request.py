"""What is chosen on the start screen, as if it had been typed; and paths as they are completed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.errors import UserError
from core.history.store import History
from tests.core.saved_chats import chat, reply, user
from tests.tui.test_cli import Input
from tui import headless_input, path_completion, request
from tui.path_completion import candidates, common, given_path, verdict
from tui.request import Request, parse
from tui.start_rows import flags_of


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All three streams are a terminal that can be drawn on; nothing is saved yet."""
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), Input(terminal=True))
    for module in (headless_input, request):  # pytest has streams of its own
        monkeypatch.setattr(module, "sys", SimpleNamespace(**streams))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("LLAMA_TUI_DATA", str(tmp_path / "data"))


def compared(asked: Request) -> tuple[object, ...]:
    return asked.options, asked.start, asked.launch, asked.extra, asked.history


def test_nothing_named_asks_for_the_start_screen() -> None:
    asked = parse(["--device", "sim", "--context", "2048"])
    assert not asked.named
    assert asked.options is None
    assert (asked.start.values["device"], asked.start.values["context"]) == ("sim", 2048)


@pytest.mark.parametrize("flags", [["--demo"], ["--synthetic", "7b"], ["--script", "-"]])
def test_whatever_names_a_model_or_a_mode_does_not(flags: list[str]) -> None:
    if flags[0] == "--script":
        with pytest.raises(UserError, match="no checkpoint"):
            parse(flags)
    else:
        assert parse(flags).named


@pytest.mark.parametrize("variable", ["dumb", ""])
def test_where_nothing_can_be_drawn_the_error_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("TERM", variable or "dumb")
    with pytest.raises(UserError, match="no checkpoint; give its folder"):
        parse([])


def test_what_is_wrong_with_the_flags_is_said_before_the_screen() -> None:
    for argv in (
        ["--temperature", "9"],
        ["--preset", "nosuch"],
        ["--offload", "--device", "cpu"],
        ["--json"],
    ):
        with pytest.raises(UserError):
            parse(argv)


def test_a_choice_is_as_if_typed(stories: Path) -> None:
    flags = ["--device", "sim", "--context", "64", "--preset", "precise", "--offload-exclusion", "wq", "wk"]
    chosen = parse(flags, {"checkpoint": str(stories)})
    assert chosen.named
    assert compared(chosen) == compared(parse([str(stories), *flags]))
    synthetic = parse(["--device", "sim"], {"synthetic": "7b"})
    assert compared(synthetic) == compared(parse(["--device", "sim", "--synthetic", "7b"]))
    assert parse(["--device", "cpu"], {"demo": True}).options is None


def test_a_recent_launch_is_what_it_was_but_for_what_is_typed(stories: Path) -> None:
    launch = {
        "checkpoint": str(stories), "device": "sim", "quant": "int8", "offload_exclusion": ["wq"],
        "offload": True,
    }  # fmt: skip
    same = parse([], launch).options
    assert same is not None
    assert (same.device, same.quant, same.keep, same.offload) == ("sim", "int8", ("wq",), True)
    other = parse(["--quant", "none"], launch).options
    assert other is not None
    assert other.quant == "none"
    moved = parse(["--device", "cpu"], launch).options  # the placement was meant for another device
    assert moved is not None
    assert (moved.device, moved.keep, moved.offload) == ("cpu", None, False)


def test_a_wrong_choice_is_refused_as_if_typed() -> None:
    with pytest.raises(UserError, match="/nowhere: no such file or folder"):
        parse([], {"checkpoint": "/nowhere"})
    with pytest.raises(UserError, match="no conversation is saved yet"):
        parse([], {"continue": True})


def test_the_last_conversation_goes_on(stories: Path, tmp_path: Path) -> None:
    history = History(tmp_path / "data" / "history.db")
    talk = chat(user(1, None, "Hi"), reply(2, 1, "yes"), title="Foxes", updated=5.0)
    history.add(replace(talk, launch={"checkpoint": str(stories)}))
    history.close()
    asked = parse(["--device", "cpu"], {"continue": True})
    assert asked.chat is not None
    assert asked.chat.title == "Foxes"
    assert asked.options is not None
    assert asked.options.checkpoint == str(stories)
    assert asked.start.values["system"] == "Be kind."


def test_flags_are_shown_as_they_are_typed() -> None:
    given = {
        "checkpoint": "/m",
        "quant": "int8",
        "vram": 6_000_000_000,
        "offload": True,
        "cpu_layers": ["w1"],
    }
    assert flags_of(given) == "--quant int8 --vram 6GB --offload --cpu-layers w1"


# --- paths --------------------------------------------------------------------------------------


def test_hostile_and_unreadable_names_are_left_out(tmp_path: Path) -> None:
    for name in ("good", "bad\x1b[2J", "bad\nname"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert [one.name for one in candidates(f"{tmp_path}/")] == ["good/"]
    assert candidates("/nowhere/at/all/") == []
    assert candidates("x" * 5000) == []
    assert candidates("a\0b/") == []


def test_the_home_folder_is_completed_and_kept_as_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [one.text for one in candidates("~")] == ["~/"]
    assert [one.text for one in candidates("~/mo")] == ["~/models/"]


def test_at_most_so_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_completion, "_MOST", 5)
    for number in range(9):
        (tmp_path / f"m{number}").mkdir()
    assert len(candidates(f"{tmp_path}/m")) == 5


def test_common_and_quotes() -> None:
    assert common("x", []) == "x"
    assert given_path(" '/a b/c' ") == "/a b/c"
    assert given_path("it's") == "it's"


def test_a_verdict_on_every_kind_of_path(stories: Path, tmp_path: Path) -> None:
    assert verdict(str(stories)) == ("Meta model stories260K", True)
    said, opens = verdict(str(tmp_path))
    assert (opens, "no params.json" in said) == (False, True)
    said, opens = verdict("x" * 5000)
    assert not opens
