"""Conversations out of documents, which anybody may have written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from core.engine.conversation import Message
from core.engine.events import Reason, Reply, Stats
from core.errors import UserError
from core.history.checked import Checked
from core.history.launch import usable
from core.history.records import Chat, SavedMessage
from core.options import BY_KEY, Sampling
from core.text.sanitize import sanitize

FORMAT, VERSION = "llama-tui chat", 1

_MOST_MESSAGES = 100_000  # in one chat
_SAMPLING = tuple(field.name for field in fields(Sampling))


def documents(data: bytes) -> list[Any]:
    """The documents in a file: one, a list of them, or one a line. UserError where it is no JSON.

    What they hold is for `from_json` to check.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"byte {error.start} is {data[error.start]:#x}, which is not UTF-8") from None
    try:
        found = _parsed(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise _no_json(error) from None
        return [_parsed_line(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return found if isinstance(found, list) else [found]


def _parsed(text: str) -> Any:
    """The value that `text` is. Raises JSONDecodeError, and UserError where there is no way on."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise _no_json("nested too deeply" if isinstance(error, RecursionError) else error) from None


def _parsed_line(number: int, line: str) -> Any:
    try:
        return _parsed(line)
    except json.JSONDecodeError as error:
        raise UserError(f"line {number}: {_no_json(error)}") from None


def _no_json(reason: object) -> UserError:
    return UserError(f"not valid JSON ({reason!s:.80})")


def from_json(document: object) -> Chat:
    """The chat that `to_json` made `document` of. Its number is 0, and those of its messages count from 1.

    UserError, in a line, for the first thing that is wrong; keys that are not known are left out, and of
    `launch` all but what `usable` takes, and of replies what no terminal should get.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f'not a chat of llama-tui: "format" is not "{FORMAT}"')
    chat = Checked(document)
    if chat.whole("version") != VERSION:
        raise UserError(f"version {document['version']}, but this llama-tui reads {VERSION}; update it")
    tree = _Tree()
    for item in chat.parts("messages"):
        tree.add(item)
    return Chat(
        id=0,
        title=chat.text("title"),
        created=chat.time("created"),
        updated=chat.time("updated"),
        head=tree.known(chat, "head"),
        model=chat.text("model"),
        launch=usable(chat.part("launch").values),
        messages=tuple(tree.messages),
    )


class _Tree:
    """The messages that were read so far, under their new numbers."""

    def __init__(self) -> None:
        self.messages: list[SavedMessage] = []
        self._numbers: dict[int, int] = {}
        self._last = -1

    def add(self, item: Checked) -> None:
        """The next message, which stands behind one of those before it."""
        if len(self.messages) == _MOST_MESSAGES:
            raise UserError(f"more than {_MOST_MESSAGES} messages in one chat")
        id = item.whole("id")
        if id <= self._last:
            raise item.wrong("id", f"more than {self._last}, that of the message before")
        parent, role = self.known(item, "parent"), item.text("role")
        if role not in ("user", "assistant"):
            raise item.wrong("role", "user or assistant")
        above = None if parent is None else self.messages[parent - 1].message.role
        if (above == "user") != (role == "assistant"):
            raise item.wrong("parent", "a message of the user" if role == "assistant" else "a reply, or null")
        number = len(self.messages) + 1
        self._numbers[id], self._last = number, id
        if role == "user":
            message = Message(number, parent, "user", item.text("text"))
            self.messages.append(SavedMessage(message, item.time("created")))
        else:
            assert parent is not None
            self.messages.append(_reply(item, number, parent, self._start(item)))

    def known(self, item: Checked, key: str) -> int | None:
        """The new number of an earlier message that is named, or None."""
        id = item.optional_whole(key)
        if id is not None and id not in self._numbers:
            raise item.wrong(key, "the id of an earlier message, or null")
        return None if id is None else self._numbers[id]

    def _start(self, item: Checked) -> int | None:
        start = self.known(item, "start")
        if start is not None and self.messages[start - 1].message.role != "user":
            raise item.wrong("start", "a message of the user")
        return start


def _reply(item: Checked, number: int, parent: int, start: int | None) -> SavedMessage:
    tokens, surprise = item.tokens("tokens"), item.surprises("surprise")
    if len(surprise) not in (0, len(tokens)):
        raise item.wrong("surprise", f"one of {len(tokens)}, as there are tokens")
    reason = item.optional_text("reason")
    if reason not in (None, *Reason):
        raise item.wrong("reason", f"null or one of {', '.join(Reason)}")
    message = Message(
        number,
        parent,
        "assistant",
        sanitize(item.text("text")),  # as the engine does while a reply is made: it is shown as it is
        tokens,
        surprise,
        item.optional_number("mu"),
        None if reason is None else Reason(reason),
        start,
        item.optional_text("vocabulary"),
    )
    return SavedMessage(
        message,
        item.time("created"),
        item.text("model"),
        item.text("chat_format"),
        _settings(item.part("settings")),
        _figures(item, message),
    )


def _settings(item: Checked) -> Mapping[str, Any]:
    """The known ones among the settings, checked as if they had been given now."""
    found: dict[str, Any] = {}
    for key in _SAMPLING:
        if key not in item.values:
            continue
        param, value = BY_KEY[key], item.values[key]
        if value is not None or param.none is None:
            value = item.number(key) if param.kind == "float" else item.whole(key)
            if param.choices and value not in param.choices:
                raise item.wrong(key, f"one of {', '.join(map(str, param.choices))}")
            try:
                param.check(value)
            except UserError:
                raise item.wrong(key, param.range_text()) from None
        found[key] = value
    if "system" in item.values:
        found["system"] = item.optional_text("system")
    return found


def _figures(item: Checked, message: Message) -> Reply | None:
    if "figures" not in item.values or item.values["figures"] is None:
        return None
    if message.reason is None:
        raise item.wrong("figures", "null, though the reply has not ended")
    found = item.part("figures")
    times = found.part("stats")
    return Reply(
        message.text,
        message.tokens,
        message.surprise,
        message.reason,
        found.whole("seed"),
        message.mu,
        found.whole("prompt_tokens"),
        found.whole("cached_tokens"),
        Stats(**{field.name: times.optional_number(field.name) for field in fields(Stats)}),  # type: ignore[arg-type]
    )
