"""A backend that saves the conversations of another as they pass, on a thread of its own."""

from __future__ import annotations

import logging
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from core.engine.backend import Backend, Sink
from core.engine.commands import Command, Configure
from core.engine.conversation import Conversation, Message
from core.engine.events import Begun, Delta, Done, Event, ModelInfo, Moved, Notice, Opened, Ready, Saved
from core.errors import UserError
from core.history.database import Database, NewerDatabase
from core.history.records import SavedMessage
from core.history.rows import read_chat
from core.history.writing import Talk, purge, save
from core.options import Sampling

log = logging.getLogger(__name__)

EVERY_S = 1.5
"""How old a growing reply gets at most before it is written again."""
_PAUSES_S = (2.0, 5.0, 15.0, 30.0)
"""After a failure, until the next try; the last one again and again."""
_SETTLE_S = 0.05
"""How long the end of a reply is held back at most until it is saved: what is seen to be over is there."""
_END_S = 2.0
"""How long `close` waits for the last write at most, however little time it is given."""


class Recorder:
    """Saves every conversation of `backend` in the database at `path`, from its first message on.

    What cannot be written is kept in memory and tried again; a Notice says so once, and once more when it
    is saved. Nothing here holds up the engine or ends the chat. `launch` is what the model is started with,
    kept beside each conversation. A Saved event tells a conversation's number.
    """

    def __init__(
        self,
        backend: Backend,
        path: Path,
        launch: Mapping[str, Any],
        *,
        clock: Callable[[], float] = time.time,
        every: float = EVERY_S,
    ) -> None:
        self._backend, self._launch, self._clock, self._every = backend, launch, clock, every
        self._database = Database(path, self._warn)
        self._writer = secrets.token_hex(8)
        self._settings = Configure(Sampling())
        self._sink: Sink = lambda event: None
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._model: ModelInfo | None = None
        self._talk = Talk()
        self._left: list[Talk] = []  # conversations that were left before they could be saved
        self._growing: _Growing | None = None
        self._due: float | None = None  # on the monotonic clock: when to write next
        self._failures = 0
        self._off = False
        self.failure: str | None = None
        """Why something is not saved, for whoever leaves; None where all of it is."""

    # --- the protocol ---------------------------------------------------------------------------

    def start(self, sink: Sink) -> None:
        """Begin to deliver events to `sink`, and to save."""
        self._sink = sink
        self._thread.start()
        self._backend.start(self._pass)

    def submit(self, command: Command) -> None:
        """Hand over a command."""
        if isinstance(command, Configure):
            self._settings = command
        self._backend.submit(command)

    def close(self, timeout: float) -> bool:
        """Stop everything and save the rest; True if the engine ended within `timeout` seconds."""
        ended = self._backend.close(timeout)
        if self._thread.ident is not None:
            self._queue.put(None)
            self._thread.join(max(timeout, _END_S))
            if self._thread.is_alive():
                self.failure = "the history could not be written in time"
        return ended

    def _pass(self, event: Event) -> None:
        if isinstance(event, (Ready, Opened, Moved, Begun, Delta, Done)):
            item = _Item(event, self._settings)
            self._queue.put(item)
            if isinstance(event, Done):
                item.written.wait(_SETTLE_S)
        self._sink(event)

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        self._try(self._look)  # what is wrong with the database is said before it matters
        while True:
            wait = None if self._due is None else max(0.0, self._due - time.monotonic())
            try:
                item = self._queue.get(timeout=wait)
            except queue.Empty:
                self._write()
                continue
            if item is None:
                self._write()
                self._database.close()
                return
            try:
                self._note(item.event, item.settings)
            except Exception as error:  # a fault of ours must not end the saving of what comes after
                log.error("the history missed an event", exc_info=error)
                self._warn(f"the history missed something: {type(error).__name__}: {error}")
            if isinstance(item.event, Done) and not self._failures:
                self._write()
            item.written.set()

    def _note(self, event: Event, settings: Configure) -> None:
        match event:
            case Ready(model):
                self._model = model
            case Opened(chat, head, messages):
                self._opened(chat, head, messages)
            case Moved(head):
                self._talk.tree.rewind(head)
                self._talk.moved = True
                self._soon(0.0)
            case Begun():
                self._begun(event, settings)
            case Delta(run) if self._growing is not None and run == self._growing.run:
                self._growing.add(event)
                self._soon(self._every)
            case Done(run) if self._growing is not None and run == self._growing.run:
                self._done(event, settings)

    def _opened(self, chat: int | None, head: int | None, messages: tuple[Message, ...]) -> None:
        """Another conversation; what could not be saved of the one before is not given up."""
        if self._talk.unsaved:
            self._left.append(self._talk)
        self._growing = None
        talk = Talk(chat, tree=Conversation(messages, head))
        talk.saved = {message.id: SavedMessage(message, self._clock()) for message in messages}
        self._talk = talk
        if chat is None:
            talk.dirty = set(talk.saved)
            return
        talk.rows = {message.id: message.id for message in messages}
        with suppress(UserError, KeyError):  # what is wrong will be said when it is written
            known = self._database.read(lambda db: read_chat(db, chat))
            talk.title = known.title
            for saved in known.messages:
                number = saved.message.id
                if number in talk.saved:
                    talk.known[number] = len(saved.message.tokens)
                    talk.saved[number] = replace(saved, message=talk.saved[number].message)

    def _begun(self, begun: Begun, settings: Configure) -> None:
        talk, now = self._talk, self._clock()
        if begun.user_id not in talk.tree.messages:
            talk.put(SavedMessage(Message(begun.user_id, begun.parent_id, "user", begun.text), now))
        earlier = talk.tree.messages.get(begun.reply_id)
        reply = earlier or Message(begun.reply_id, begun.user_id, "assistant", "")
        model = self._model
        reply = replace(
            reply, start=begun.start, reason=None, tokenizer=model.tokenizer if model else reply.tokenizer
        )
        talk.put(self._described(reply, settings, talk.saved.get(reply.id)))
        talk.tree.rewind(reply.id)
        talk.moved = talk.began = True
        talk.spoken, talk.launch, talk.model = now, self._launch, model.name if model else ""
        self._growing = _Growing(begun.run, reply)
        self._soon(0.0)

    def _done(self, done: Done, settings: Configure) -> None:
        talk, growing = self._talk, self._growing
        assert growing is not None
        self._growing = None
        reply, said = growing.message, done.reply
        if done.reply_id is None or said is None:
            talk.tree.rewind(done.head)
            talk.discard(reply.id)
        else:
            reply = replace(
                reply,
                text=said.text,
                tokens=said.tokens,
                surprise=said.surprise,
                mu=said.mu,
                reason=done.reason,
            )
            talk.put(replace(self._described(reply, settings, talk.saved[reply.id]), reply=said))
        talk.moved, talk.spoken = True, self._clock()
        self._soon(0.0)

    def _described(self, reply: Message, settings: Configure, before: SavedMessage | None) -> SavedMessage:
        model = self._model
        return SavedMessage(
            reply,
            self._clock() if before is None else before.created,
            model.name if model else "",
            model.chat_format if model else "",
            asdict(settings.sampling) | {"system": settings.system},
        )

    # --- writing --------------------------------------------------------------------------------

    def _soon(self, seconds: float) -> None:
        """Write after so many seconds, or when it is due before; no failure's pause is shortened."""
        due = time.monotonic() + seconds
        if self._due is None or (due < self._due and not self._failures):
            self._due = due

    def _write(self) -> None:
        """Save all that is not saved, or say once that it cannot be."""
        if self._off:
            self._due = None
            return
        if self._growing is not None:
            self._talk.put(
                replace(self._talk.saved[self._growing.message.id], message=self._growing.so_far())
            )
        self._try(self._save_all)

    def _look(self) -> None:
        self._database.write(lambda db: purge(db, self._clock()))

    def _save_all(self) -> None:
        if self._failures:
            self._look()
        while self._left:
            if self._left[0].unsaved:
                self._save(self._left[0])
            del self._left[0]
        if self._talk.unsaved:
            before = self._talk.chat
            self._talk = self._save(self._talk)
            if self._talk.chat is not None and self._talk.chat != before:
                self._sink(Saved(self._talk.chat, self._talk.title, before))

    def _try(self, work: Callable[[], None]) -> None:
        """Do `work`; where it fails, say so once and come back to it."""
        try:
            work()
        except NewerDatabase as error:
            self._off = True
            self._fail(error)
        except UserError as error:
            self._fail(error)
        except Exception as error:  # a fault of ours: the conversation stays, and is tried again
            log.error("the history was not written", exc_info=error)
            self._fail(error)
        else:
            if self._failures:
                self._sink(Notice("the conversation is saved again"))
            self._failures, self.failure, self._due = 0, None, None

    def _save(self, talk: Talk) -> Talk:
        try:
            return self._database.write(lambda db: save(db, talk, self._writer))
        except (LookupError, sqlite3.IntegrityError):
            # It was removed for good meanwhile, or lost to a damaged page: all of it is here still.
            talk.forget()
            return self._database.write(lambda db: save(db, talk, self._writer))

    def _fail(self, error: Exception) -> None:
        if not self._failures:
            rest = "" if self._off else "; it is kept in memory and saved when that is possible"
            self._warn(f"this conversation is not saved: {error}{rest}")
        self.failure = str(error)
        pause = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._failures += 1
        self._due = time.monotonic() + pause

    def _warn(self, text: str) -> None:
        self._sink(Notice(text, "warning"))


@dataclass(frozen=True, slots=True)
class _Item:
    """An event with the settings at its time, and whether it has been dealt with."""

    event: Event
    settings: Configure
    written: threading.Event = field(default_factory=threading.Event)


class _Growing:
    """A reply while it grows: pieces, since joining them for every event would cost ever more."""

    def __init__(self, run: int, message: Message) -> None:
        self.run, self.message = run, message
        self._text = [message.text]
        self._tokens, self._surprise = list(message.tokens), list(message.surprise)

    def add(self, delta: Delta) -> None:
        """More of it."""
        self._text.append(delta.text)
        self._tokens += delta.ids
        self._surprise += delta.surprises

    def so_far(self) -> Message:
        """What there is of it."""
        return replace(
            self.message, text="".join(self._text), tokens=tuple(self._tokens), surprise=tuple(self._surprise)
        )
