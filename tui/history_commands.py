"""Saved conversations on the command line: listed, exported, imported, and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.folders import history_file
from core.history.launch import MODEL, NAMES, PATHS, PLACEMENT, usable
from core.text.sanitize import one_line
from tui.arguments import build
from tui.console import with_status

if TYPE_CHECKING:
    from core.history.records import Chat, ChatRow
    from core.history.store import History

_GOES_WITH = {"list_chats": {"json"}, "export": {"format"}, "import": set[str]()}
"""What else may be typed beside each of the modes that load no model."""

_NO_CONVERSATION = ("plan", "bench", "perplexity")
_PAGE = 50
_LARGEST = 256 * 2**20  # bytes of an import; it is checked as a whole, and takes several times that in memory


def asked(argv: Sequence[str]) -> bool:
    """Whether one of the modes that load no model is among the arguments."""
    return any(arg.partition("=")[0] in ("--list-chats", "--export", "--import") for arg in argv)


def run(argv: Sequence[str]) -> int:
    """List, export or import; the exit status. Raises UserError."""
    typed = vars(build().parse_args(argv))
    mode = next(mode for mode in _GOES_WITH if mode in typed)
    for key, value in typed.items():
        if key != mode and key not in _GOES_WITH[mode]:
            raise UserError(
                f"{_flag(mode)} loads no model and does nothing else; "
                f"leave out {value if key in ('checkpoint', 'tokenizer') else _flag(key)}"
            )
    with_json = typed.get("format") == "json"
    if typed.get("export") == "all" and not with_json:
        raise UserError("--export all goes with --format json; give both, or the number of one chat")
    return _run(mode, typed, with_json)


@with_status
def _run(mode: str, typed: dict[str, Any], with_json: bool) -> int:
    history = open_history()
    try:
        match mode:
            case "list_chats":
                _list(history, as_json="json" in typed)
            case "export":
                _export(history, typed["export"], as_json=with_json)
            case "import":
                _import(history, typed["import"])
        sys.stdout.flush()  # here, where a reader that has left is understood
    finally:
        history.close()
    return 0


def open_history() -> History:
    """The user's conversations. What the database has to say of itself goes to stderr."""
    from core.history.store import History  # sqlite, which most starts do without

    return History(history_file(), lambda text: print(f"llama-tui: {text}", file=sys.stderr))


def _flag(key: str) -> str:
    no = "no-" if key in ("history", "mouse") else ""
    return f"--{no}{key.replace('_', '-')}"


# --- the list -----------------------------------------------------------------------------------


def _list(history: History, *, as_json: bool) -> None:
    rows = 0
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in _rows(history):
        rows += 1
        print(_row_json(row) if as_json else _fitted(_row_line(row), width))
    if rows == 0:
        _say_nothing_saved()


def _rows(history: History) -> Iterator[ChatRow]:
    """All lines, each once, even where another program adds some meanwhile."""
    seen: set[int] = set()
    skip = 0
    while page := history.rows(skip, _PAGE):
        skip += len(page)
        for row in page:
            if row.id not in seen:
                seen.add(row.id)
                yield row


def _row_json(row: ChatRow) -> str:
    keys = ("id", "title", "created", "updated", "messages", "model")
    return json.dumps({key: getattr(row, key) for key in keys})


def _row_line(row: ChatRow) -> str:
    from core.history.archive import date_text

    count = f"{row.messages:>4} {'message ' if row.messages == 1 else 'messages'}"
    return f"{row.id:>5}  {date_text(row.updated)}  {count}  {one_line(row.model)}  {_title(row.title)}"


def _fitted(line: str, width: int | None) -> str:
    """`line` cut to the cells of the terminal, where there is one."""
    if width is None:
        return line
    from rich.cells import cell_len, set_cell_size

    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"


def _title(title: str) -> str:
    return one_line(title) or "untitled"


def _say_nothing_saved() -> None:
    print("no conversation is saved yet", file=sys.stderr)


# --- documents ----------------------------------------------------------------------------------


def _export(history: History, chat: int | str, *, as_json: bool) -> None:
    """One chat, or all of them, a document a line."""
    from core.history.archive import json_line, markdown

    if isinstance(chat, int):
        found = load(history, chat)
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        sys.stdout.write(f"{json_line(found)}\n" if as_json else markdown(found))
        return
    count = 0
    for row in _rows(history):
        count += 1
        try:
            print(json_line(history.load(row.id)))
        except KeyError:
            continue  # deleted in this moment
    if count == 0:
        _say_nothing_saved()


def load(history: History, chat: int) -> Chat:
    """A saved chat. UserError where there is none of that number."""
    try:
        return history.load(chat)
    except KeyError:
        raise UserError(f"there is no chat {chat}; llama-tui --list-chats shows which there are") from None


def _import(history: History, source: str) -> None:
    """Save what a file holds, all of it or nothing, and say under which numbers."""
    from core.history.documents import documents, from_json

    try:
        found = documents(_read(source))
        chats = []
        for number, document in enumerate(found, 1):
            try:
                chats.append(from_json(document))
            except UserError as error:
                raise UserError(f"{f'chat {number}: ' if len(found) > 1 else ''}{error}") from None
        if not chats:
            raise UserError("there is no chat in it")
    except UserError as error:
        raise UserError(f"--import {source}: {error}; nothing was imported") from None
    now = time.time()
    # A date to come would keep a chat the last conversation, whatever else is said.
    numbers = history.add_all([replace(chat, updated=min(chat.updated, now)) for chat in chats])
    for number, chat in zip(numbers, chats, strict=True):
        print(f"{number:>5}  {_title(chat.title)}")


def _read(source: str) -> bytes:
    try:
        if source == "-":
            data = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with open(os.path.expanduser(source), "rb") as file:
                data = file.read(_LARGEST + 1)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})") from None
    if len(data) > _LARGEST:
        raise UserError(f"more than {_LARGEST >> 20} MiB; split it at the ends of lines")
    return data


# --- going on -----------------------------------------------------------------------------------


def resumed(typed: dict[str, Any]) -> Chat | None:
    """The chat that is to be gone on with; None without --continue and --resume. Raises UserError."""
    if "format" in typed:
        raise UserError("--format goes with --export ID; give both, or neither")
    flag = next((key for key in ("continue", "resume") if key in typed), None)
    if flag is None:
        return None
    for key in ("resume", *_NO_CONVERSATION):
        if key in typed and key != flag:
            raise UserError(f"--{flag} and --{key} are both given; leave one out")
    history = open_history()
    try:
        number = history.latest() if flag == "continue" else int(typed["resume"])
        if number is None:
            raise UserError("--continue: no conversation is saved yet; start one")
        return load(history, number)
    finally:
        history.close()


def with_chat(typed: dict[str, Any], chat: Chat) -> dict[str, Any]:
    """`typed` with what is taken over from `chat`: its system prompt, and its model where none is typed.

    Raises UserError where that model cannot be started any more.
    """
    if any(saved.settings for saved in chat.messages):
        typed = {"system": chat.system, **typed}
    return typed if not typed.keys().isdisjoint(MODEL) else with_launch(typed, _launch(chat))


def with_launch(typed: dict[str, Any], launch: Mapping[str, Any]) -> dict[str, Any]:
    """`typed` with how a model was started; where it is for another device, without the placement on that."""
    stored = {key: tuple(value) if isinstance(value, list) else value for key, value in launch.items()}
    if typed.get("device", stored.get("device")) != stored.get("device"):
        stored = {key: value for key, value in stored.items() if key not in PLACEMENT}
    return stored | typed


def _launch(chat: Chat) -> dict[str, Any]:
    """What the chat's model was last started with."""
    way_out = f"give one (llama-tui CKPT --resume {chat.id})"
    launch = usable(chat.launch)
    if launch.keys().isdisjoint(MODEL):
        raise UserError(f"chat {chat.id} does not say which model it was held with; {way_out}")
    for key in chat.launch.keys() - launch.keys():
        value = one_line(chat.launch[key], 60)
        raise UserError(
            f"the model of chat {chat.id} was started with {one_line(key, 40)} {value!r}, "
            f"which this llama-tui does not know; {way_out}"
        )
    for key in PATHS:
        if key in launch and not os.path.exists(launch[key]):
            what = "tokenizer" if key == "tokenizer" else "model"
            raise UserError(f"{launch[key]}: the {what} of chat {chat.id} is not there any more; {way_out}")
    return launch


def launch_of(typed: dict[str, Any]) -> dict[str, Any]:
    """What the model is started with, as it is kept beside each of its conversations."""
    found = {key: value for key, value in typed.items() if key in NAMES}
    for key in PATHS:
        if key in found:
            found[key] = os.path.abspath(os.path.expanduser(found[key]))
    return found


def check_headless(chat: Chat, *, raw: bool) -> None:
    """Refuse a run without a screen in which the model would not see what was said in `chat` before."""
    if raw:
        raise UserError(
            f"--raw completes every text alone, without what was said in chat {chat.id} before; "
            "go on with it in the full-screen chat, or give a model (CKPT) without --raw"
        )
