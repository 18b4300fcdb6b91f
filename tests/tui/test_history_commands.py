"""Saved conversations on the command line: listed, exported, imported, gone on with."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from core.errors import UserError
from core.folders import history_file
from core.history import store
from core.history.archive import json_line, markdown
from core.history.records import Chat
from core.history.store import History
from core.options import LoadOptions
from tests.core.saved_chats import chat, reply, user
from tui import cli, history_commands, opening

Run = Callable[..., tuple[int, str, str]]
GREEDY = ("--dtype", "float32", "--temperature", 0, "--max-tokens", 12, "--json")


class Input(io.TextIOWrapper):
    """A stdin that is, or is not, a terminal."""

    def __init__(self, data: bytes = b"", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data))
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(autouse=True)
def _own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_TUI_DATA", str(tmp_path / "data"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*argv: object, stdin: bytes | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", Input(stdin or b"", terminal=stdin is None))
        code = cli.main([str(arg) for arg in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def saved(*chats: Chat) -> list[int]:
    """Their numbers."""
    history = History(history_file())
    numbers = [history.add(chat) for chat in chats]
    history.close()
    return numbers


def loaded(number: int) -> Chat:
    history = History(history_file())
    found = history.load(number)
    history.close()
    return found


def hello(**changes: Any) -> Chat:
    return replace(chat(user(1, None, "Hello"), reply(2, 1, "Hi there"), title="Greetings"), **changes)


def contents(chat: Chat) -> tuple[object, ...]:
    """All of a chat but its numbers."""
    numbers: dict[int | None, int | None] = {None: None}
    numbers |= {item.message.id: place for place, item in enumerate(chat.messages)}
    messages = [
        replace(item, message=replace(item.message, id=0, parent=None, start=None)) for item in chat.messages
    ]
    places = [(numbers[item.message.parent], numbers[item.message.start]) for item in chat.messages]
    return chat.title, chat.created, chat.model, chat.launch, numbers[chat.head], messages, places


# --- the list -----------------------------------------------------------------------------------


def test_nothing_saved_is_no_mistake(run: Run) -> None:
    for argv in (("--list-chats",), ("--list-chats", "--json"), ("--export", "all", "--format", "json")):
        assert run(*argv) == (0, "", "no conversation is saved yet\n")


def test_the_list_is_newest_first_and_has_everything(run: Run) -> None:
    numbers = saved(*(hello(title=f"chat {i}", updated=1000.0 * i) for i in range(120)))
    code, out, err = run("--list-chats")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert [int(line.split()[0]) for line in lines] == numbers[::-1]
    assert lines[0].split("  ")[-2:] == ["llama", "chat 119"]
    assert "   2 messages  " in lines[0]
    assert time.strftime("%Y-%m-%d %H:%M", time.localtime(119_000)) in lines[0]
    code, out, _ = run("--list-chats", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["id"] for row in rows] == numbers[::-1]
    assert rows[0] == {
        "id": numbers[-1], "title": "chat 119", "created": 0.0, "updated": 119_000.0, "messages": 2,
        "model": "llama",
    }  # fmt: skip


def test_the_list_fits_the_terminal_and_passes_nothing_on_to_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(hello(title="\u6771\u4eac" * 40), hello(title="short", model="\x1b[31mred\x07"))
    code, out, _ = run("--list-chats")
    assert code == 0
    assert max(map(cell_len, out.splitlines())) > 160
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, _ = run("--list-chats")
    short, long = out.splitlines()
    assert "[31mred" in short
    assert "\x1b" not in out
    assert "\x07" not in out
    assert 48 <= cell_len(long) <= 50
    assert long.endswith("\u2026")


def test_a_reader_that_leaves_is_no_traceback() -> None:
    saved(*(hello(title=f"chat {i} {'x' * 180}") for i in range(60)))
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; from tui.cli import main; sys.exit(main())", "--list-chats"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=20) == 1


# --- documents ----------------------------------------------------------------------------------


def test_an_export_is_the_chat_and_comes_back_in(run: Run, tmp_path: Path) -> None:
    first, second = saved(
        hello(updated=1.0), chat(user(5, None, "\u6771\u4eac?"), title="other", updated=2.0)
    )
    code, out, err = run("--export", first)
    assert (code, out, err) == (0, markdown(loaded(first)), "")
    assert run("--export", first, "--format", "md")[1] == out
    code, single, err = run("--export", first, "--format", "json")
    assert (code, single, err) == (0, json_line(loaded(first)) + "\n", "")
    code, every, err = run("--export", "all", "--format", "json")
    assert [json.loads(line)["title"] for line in every.splitlines()] == ["other", "Greetings"]

    file = tmp_path / "chats.jsonl"
    file.write_text(every)
    code, out, err = run("--import", file)
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"{second + 1:>5}  other", f"{second + 2:>5}  Greetings"]
    for before, after in ((second, second + 1), (first, second + 2)):
        assert contents(loaded(before)) == contents(loaded(after))
    assert run("--import", "-", stdin=single.encode())[:2] == (0, f"{second + 3:>5}  Greetings\n")
    file.write_text(f"[{single},\n{single}]")
    assert len(run("--import", file)[1].splitlines()) == 2


def test_an_import_is_all_or_nothing(run: Run, tmp_path: Path) -> None:
    good = json_line(hello())
    bad = json.dumps(json.loads(good) | {"head": 77})
    file = tmp_path / "chats.jsonl"
    file.write_text(f"{good}\n{bad}\n{good}\n")
    code, out, err = run("--import", file)
    assert (code, out) == (2, "")
    assert err == (
        f"llama-tui: --import {file}: chat 2: head is 77, not the id of an earlier message, or null; "
        "nothing was imported\n"
    )
    assert run("--list-chats")[1] == ""


def test_an_import_that_cannot_be_saved_takes_back_what_was(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert, inserted = store.insert_chat, []

    def second_fails(*values: Any) -> int:
        if inserted:
            raise UserError("the disk is full")
        inserted.append(insert(*values))
        return inserted[0]

    monkeypatch.setattr(store, "insert_chat", second_fails)
    code, out, err = run("--import", "-", stdin=f"{json_line(hello())}\n{json_line(hello())}".encode())
    assert (code, out, err) == (2, "", "llama-tui: the disk is full\n")
    assert inserted
    assert run("--list-chats")[1] == ""


def test_a_chat_of_tomorrow_does_not_stay_the_last_one(run: Run) -> None:
    run("--import", "-", stdin=json_line(hello(updated=9e9)).encode())
    assert loaded(1).updated <= time.time()


IMPORTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not valid JSON (Expecting value: line 1 column 1 (char 0))"),
    "no chat": (b"[]", "there is no chat in it"),
    "another file": (b'{"a": 1}', 'not a chat of llama-tui: "format" is not "llama-tui chat"'),
    "no UTF-8": (b"\xff", "byte 0 is 0xff, which is not UTF-8"),
    "deep": (b"[" * 100_000, "not valid JSON (nested too deeply)"),
    "large": (b" " * 2000, "more than 0 MiB; split it at the ends of lines"),
}


@pytest.mark.parametrize("case", IMPORTS)
def test_what_cannot_be_imported_is_a_line(run: Run, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    data, message = IMPORTS[case]
    if case == "large":
        monkeypatch.setattr(history_commands, "_LARGEST", 1000)
    assert run("--import", "-", stdin=data) == (
        2, "", f"llama-tui: --import -: {message}; nothing was imported\n",
    )  # fmt: skip


MISTAKES: dict[str, tuple[list[str], str]] = {
    "unknown chat": (["--export", "99"], "there is no chat 99; llama-tui --list-chats shows which there are"),
    "no number": (["--export", "one"], "--export one: give a number that --list-chats shows, or all"),
    "all as text": (["--export", "all"], "--export all goes with --format json"),
    "a format": (["--export", "1", "--format", "pdf"], "--format pdf: give md or json"),
    "format of what": (["--demo", "--prompt", "x", "--format", "md"], "--format goes with --export ID"),
    "format of the list": (["--list-chats", "--format", "md"], "does nothing else; leave out --format"),
    "json of an export": (["--export", "1", "--json"], "does nothing else; leave out --json"),
    "list and model": (["STORIES", "--list-chats"], "--list-chats loads no model and does nothing else;"),
    "two of them": (["--list-chats", "--export", "1"], "does nothing else; leave out --export"),
    "list and history": (["--list-chats", "--no-history"], "leave out --no-history"),
    "no file": (["--import", "/no/file"], "--import /no/file: cannot be read (No such file or directory)"),
    "a folder": (["--import", "STORIES"], "cannot be read (Is a directory)"),
    "unknown resume": (["--resume", "99", "--prompt", "x"], "there is no chat 99; llama-tui --list-chats"),
    "zero": (["--resume", "0", "--prompt", "x"], "--resume 0: give a whole number of at least 1"),
    "both": (["--resume", "1", "--continue"], "--continue and --resume are both given; leave one out"),
    "plan": (["--continue", "--plan"], "--continue and --plan are both given; leave one out"),
    "bench": (["STORIES", "--resume", "1", "--bench"], "--resume and --bench are both given; leave one out"),
    "perplexity": (
        ["STORIES", "--continue", "--perplexity", "/no/text"],
        "--continue and --perplexity are both given; leave one out",
    ),
    "raw": (
        ["STORIES", "--resume", "1", "--raw", "--prompt", "x"],
        "--raw completes every text alone, without what was said in chat 1 before",
    ),
    "gone": (
        ["--resume", "1", "--prompt", "x"],
        "/models/llama: the model of chat 1 is not there any more; give one (llama-tui CKPT --resume 1)",
    ),
    "no model": (
        ["--resume", "2", "--prompt", "x"],
        "chat 2 does not say which model it was held with; give one (llama-tui CKPT --resume 2)",
    ),
    "unknown kernels": (
        ["--resume", "3", "--prompt", "x"],
        "the model of chat 3 was started with kernels 'quantum', which this llama-tui does not know;",
    ),
    "empty prompt": (["STORIES", "--resume", "1", "--prompt", " "], "--prompt is empty"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_on_stderr_and_status_2(run: Run, stories: Path, case: str) -> None:
    saved(hello(), hello(launch={}), hello(launch={"demo": True, "kernels": "quantum"}))
    argv, message = MISTAKES[case]
    code, out, err = run(*(str(stories) if arg == "STORIES" else arg for arg in argv), stdin=b"")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("llama-tui: ")
    assert message in err


def test_there_is_nothing_to_continue_yet(run: Run) -> None:
    assert run("--continue", "--prompt", "x") == (
        2, "", "llama-tui: --continue: no conversation is saved yet; start one\n",
    )  # fmt: skip


# --- what a resumed chat starts -----------------------------------------------------------------


def parsed(*argv: str) -> cli.Request:
    return cli.parse([*argv, "--prompt", "x"])


def test_the_model_of_a_chat_is_started_again_as_it_was(stories: Path) -> None:
    launch = {
        "checkpoint": str(stories), "tokenizer": str(stories / "tokenizer.model"), "device": "sim",
        "dtype": "float32", "quant": "int8", "context": 512, "chat_format": "llama2", "vram": 2 * 10**9,
        "offload": True, "offload_exclusion": ["w1", "w2"], "cpu_layers": ["output"], "sim_vram": 3 * 10**9,
        "sim_link": 2.5, "kernels": "torch", "kv": "int8",
    }  # fmt: skip
    saved(hello(launch=launch))
    same = LoadOptions(
        str(stories), str(stories / "tokenizer.model"), device="sim", dtype="float32", quant="int8",
        kv="int8", kernels="torch", context=512, chat_format="llama2", offload=True, keep=("w1", "w2"),
        cpu_layers=("output",), vram=2 * 10**9, sim_vram=3 * 10**9, sim_link=2.5,
    )  # fmt: skip
    request = parsed("--resume", "1")
    assert request.options == same
    assert request.chat is not None
    assert request.chat.id == 1
    assert json.loads(json.dumps(request.launch)) == launch  # and is kept so again
    assert parsed("--continue", "--quant", "none", "--context", "auto").options == replace(
        same, quant="none", context=None
    )
    # What was meant for the device of then is not taken over by another one.
    assert parsed("--resume", "1", "--cpu").options == LoadOptions(
        str(stories), str(stories / "tokenizer.model"), device="cpu", dtype="float32", quant="int8",
        kv="int8", kernels="torch", context=512, chat_format="llama2",
    )  # fmt: skip
    for model in ([str(stories)], ["--synthetic", "1b"]):  # another model takes nothing over
        assert parsed(*model, "--resume", "1").options == parsed(*model).options


def test_a_demo_chat_goes_on_with_the_demo() -> None:
    saved(hello(launch={"demo": True, "dtype": "float32"}))
    request = parsed("--continue")
    assert request.options is None
    assert request.launch == {"demo": True, "dtype": "float32"}
    assert parsed("--demo", "--continue").launch == {"demo": True}


def test_what_is_kept_of_a_start_names_the_same_files_anywhere(
    stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stories.parent)
    request = parsed(
        stories.name, f"{stories.name}/tokenizer.model", "--f16", "--seed", "7", "--cpu_layers", "output"
    )
    assert request.launch == {
        "checkpoint": str(stories), "tokenizer": str(stories / "tokenizer.model"), "dtype": "float16",
        "cpu_layers": ("output",),
    }  # fmt: skip
    assert parsed("--synthetic", "1B", "--raw").launch == {"synthetic": "1b", "raw": True}


def test_the_system_prompt_of_a_chat_stays_unless_one_is_typed(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unanswered = chat(user(1, None, "Hello"))
    plain = hello(messages=(user(1, None, "Hello"), replace(reply(2, 1, "Hi"), settings={"system": None})))
    saved(hello(), plain, unanswered)
    config = tmp_path / "config.toml"
    config.write_text('[defaults]\nsystem = "From the file."\n')
    monkeypatch.setenv("LLAMA_TUI_CONFIG", str(config))

    def system(*argv: str) -> object:
        return parsed(str(stories), *argv).start.values["system"]

    assert system() == "From the file."
    assert system("--resume", "1") == "Be kind."
    assert system("--resume", "1", "--system", "Be brief.") == "Be brief."
    assert system("--resume", "2") is None  # that of the format, as it was
    assert system("--resume", "3") == "From the file."  # nothing was said with any


# --- real conversations -------------------------------------------------------------------------


def test_a_conversation_goes_on_in_a_second_process_as_if_it_had_not_ended(
    run: Run, stories: Path, tmp_path: Path
) -> None:
    lines = ["Once upon a time", "And then?", "Who was there?", "The end"]
    script = tmp_path / "script.txt"
    script.write_text("\n".join(lines))
    model = (stories, "--chat-format", "llama2", "--system", "Be brief.")
    code, out, _ = run(*model, "--script", script, *GREEDY, "--no-history")
    whole = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert not history_file().exists()
    script.write_text("\n".join(lines[:3]))
    code, out, _ = run(*model, "--script", script, *GREEDY)
    assert [json.loads(line)["tokens"] for line in out.splitlines()] == [it["tokens"] for it in whole[:3]]

    program = [sys.executable, "-c", "import sys; from tui.cli import main; sys.exit(main())"]
    argv = ["--continue", "--prompt", lines[3], *map(str, GREEDY[2:])]  # the type comes with the model
    result = subprocess.run([*program, *argv], capture_output=True, stdin=subprocess.DEVNULL, timeout=100)
    assert result.returncode == 0, result.stderr
    last = json.loads(result.stdout)
    for key in ("text", "tokens", "prompt_tokens", "finish_reason"):
        assert last[key] == whole[3][key], key
    assert last["surprise"] == pytest.approx(whole[3]["surprise"], abs=1e-3)
    assert last["cached_tokens"] == 0

    [row] = [json.loads(line) for line in run("--list-chats", "--json")[1].splitlines()]
    assert (row["messages"], row["title"]) == (8, lines[0])
    messages = [item.message for item in loaded(row["id"]).messages]
    assert [message.text for message in messages[::2]] == lines
    assert [list(message.tokens) for message in messages[1::2]] == [it["tokens"] for it in whole]
    assert [message.parent for message in messages] == [None, *(message.id for message in messages[:-1])]


def test_replies_in_another_vocabulary_are_encoded_anew_and_that_is_said(run: Run, stories: Path) -> None:
    run(stories, "--prompt", "Once upon a time", *GREEDY, "--chat-format", "llama2")
    document = json.loads(run("--export", 1, "--format", "json")[1])
    foreign = document | {"messages": [*document["messages"]]}
    foreign["messages"][1] = document["messages"][1] | {
        "vocabulary": "another",
        "tokens": [9],
        "surprise": [],
    }
    hostile = json.loads(json.dumps(document))
    hostile["messages"][1]["tokens"][0] = 2**31 - 1  # no row of the embedding, whatever the file says
    texts = json.dumps([foreign, hostile]).encode()
    assert run("--import", "-", stdin=texts)[0] == 0
    replies = []
    for number, said in ((1, False), (2, True), (3, True)):
        code, out, err = run("--resume", number, "--prompt", "And then?", *GREEDY)
        assert code == 0, err
        assert ("1 reply of this chat came from a model with another vocabulary" in err) == said
        replies.append(json.loads(out))
    assert replies[1]["prompt_tokens"] == replies[2]["prompt_tokens"]
    assert replies[0]["tokens"] == replies[1]["tokens"]  # the text is the same, and so are its tokens


def test_what_is_no_conversation_is_not_kept(run: Run, stories: Path) -> None:
    for argv in (("--prompt", "Once", "--no-history"), ("--prompt", "Once", "--raw")):
        code, _, err = run(stories, *argv, *GREEDY)
        assert code == 0, err
    assert not history_file().exists()
    assert opening._recorder(Nowhere(), parsed("--synthetic", "1b")) is None
    assert opening._recorder(Nowhere(), parsed("--demo")) is not None


class Nowhere:
    def start(self, sink: object) -> None: ...
    def submit(self, command: object) -> None: ...
    def close(self, timeout: float) -> bool:
        return True


def test_no_history_goes_on_without_keeping_it(run: Run, stories: Path) -> None:
    run(stories, "--prompt", "Once", *GREEDY, "--chat-format", "llama2")
    before = loaded(1)
    code, out, _ = run("--continue", "--prompt", "And then?", *GREEDY, "--no-history")
    assert code == 0
    assert json.loads(out)["prompt_tokens"] > 12
    assert loaded(1) == before


def test_what_could_not_be_saved_is_said_at_the_end(run: Run, stories: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    code, out, err = run(stories, "--prompt", "Once", *GREEDY)
    assert code == 0
    assert json.loads(out)["text"]
    assert "llama-tui: the end of the conversation is not saved: the history" in err


def test_the_command_line_starts_without_the_database() -> None:
    code = (
        "import sys; from tui.cli import parse; import tui.app, tui.headless; "
        "parse(['--demo', '--prompt', 'x']); print('sqlite3' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "False\n"), result.stderr
