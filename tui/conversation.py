"""The exchanges on screen: the truth that the transcript, the header and the gauges are views of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from core.engine.context import exchanges
from core.engine.conversation import Conversation as Tree
from core.engine.conversation import Message
from core.engine.events import Begun, Delta, Done, Prefill, Reason, Stats
from core.history.records import SavedMessage
from core.text.sanitize import sanitize


@dataclass(slots=True)
class Exchange:
    """A user message and what came back. `run` is the run that works on it, or did last.

    The ids are those of the messages in the engine's conversation, None until it tells them.
    """

    run: int
    user: str
    reply: str = ""
    surprises: list[float] = field(default_factory=list)
    prefill: Prefill | None = None
    done: Done | None = None
    user_id: int | None = None
    reply_id: int | None = None
    parent_id: int | None = None
    key: int = field(init=False)

    def __post_init__(self) -> None:
        """The first run gives the keys, whatever others follow."""
        self.key = self.run

    @property
    def cut_off(self) -> bool:
        """Whether the reply ended before its end, so that the model can go on with it."""
        done = self.done
        return done is not None and done.reply_id is not None and done.reason is not Reason.STOP

    @property
    def user_key(self) -> int:
        """The user message's key in the transcript."""
        return 2 * self.key

    @property
    def reply_key(self) -> int:
        """The reply's key in the transcript."""
        return 2 * self.key + 1

    @property
    def tokens(self) -> int:
        """Tokens of the reply so far."""
        return len(self.surprises)

    @property
    def context_used(self) -> int | None:
        """Tokens in the context after this exchange; None before anything is known of it."""
        if self.done is not None and self.done.reply is not None:
            return self.done.reply.prompt_tokens + len(self.done.reply.tokens)
        if self.prefill is not None:
            return self.prefill.total + self.tokens
        return None


class Conversation:
    """Exchanges in order, and the runs that the engine still owes an end.

    The engine works through the runs in the order of their numbers, so the first unfinished one is the
    one it works on. A run can outlive its exchange: a new chat drops the exchanges at once.
    """

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.tree = Tree()
        """All messages, as the engine has them."""
        self._ends: dict[int, Done] = {}  # of the replies in the tree
        self.unfinished: list[int] = []
        self._next_run = 1

    def submit(self, text: str) -> Exchange:
        """A new exchange at the end, under the next run number."""
        exchange = Exchange(self._next_run, text)
        self._next_run += 1
        self.exchanges.append(exchange)
        self.unfinished.append(exchange.run)
        return exchange

    def resume(self, exchange: Exchange, *, again: bool) -> None:
        """A new run for an exchange: it goes on with the reply, or replies once more where `again`."""
        exchange.run, exchange.done, exchange.prefill = self._next_run, None, None
        self._next_run += 1
        self.unfinished.append(exchange.run)
        if again:
            exchange.reply, exchange.reply_id = "", None
            exchange.surprises.clear()

    def clear(self) -> None:
        """An empty conversation; runs that go on are still owed an end."""
        self.exchanges.clear()
        self.tree = Tree()
        self._ends.clear()

    def open(self, saved: Sequence[SavedMessage], head: int | None) -> None:
        """A saved conversation in place of this one. ValueError where its messages are no tree."""
        tree = Tree((one.message for one in saved), head)
        self.clear()
        self.tree = tree
        self._ends = {one.message.id: _end_of(one) for one in saved if one.message.role == "assistant"}
        self.go_to(head)

    def find(self, run: int) -> Exchange | None:
        """The exchange of this run, or None where it was dropped."""
        return next((exchange for exchange in self.exchanges if exchange.run == run), None)

    def note_begun(self, begun: Begun) -> Exchange | None:
        """Record where a run stands in the tree; the exchange, if it is still on screen."""
        exchange = self.find(begun.run)
        if exchange is None:
            return None
        user, reply, parent = begun.user_id, begun.reply_id, begun.parent_id
        exchange.user_id, exchange.reply_id, exchange.parent_id = user, reply, parent
        self.tree.put(Message(user, parent, "user", begun.text))
        self.tree.put(Message(reply, user, "assistant", exchange.reply, start=begun.start))
        self.tree.rewind(reply)
        return exchange

    def note_prefill(self, prefill: Prefill) -> Exchange | None:
        """Record progress on a prompt; the exchange, if it is still on screen."""
        exchange = self.find(prefill.run)
        if exchange is not None:
            exchange.prefill = prefill
        return exchange

    def note_delta(self, delta: Delta) -> Exchange | None:
        """Record new text of a reply; the exchange, if it is still on screen."""
        exchange = self.find(delta.run)
        if exchange is not None:
            exchange.reply += delta.text
            exchange.surprises.extend(delta.surprises)
        return exchange

    def note_done(self, done: Done) -> Exchange | None:
        """Record the end of a run; the exchange, if it is still on screen."""
        if done.run in self.unfinished:
            self.unfinished.remove(done.run)
        exchange = self.find(done.run)
        if exchange is not None:
            exchange.done = done
            if exchange.reply_id is not None:
                self._end(exchange, exchange.reply_id, done)
        return exchange

    def _end(self, exchange: Exchange, reply_id: int, done: Done) -> None:
        """Take the end of a run into the tree; a reply without a token leaves it."""
        if done.reply_id is not None and done.reply is not None:
            placed, reply = self.tree.messages[reply_id], done.reply
            self.tree.put(replace(placed, text=reply.text, surprise=reply.surprise, reason=done.reason))
            self._ends[reply_id] = done
        self.tree.rewind(done.head)
        if done.reply_id is None:
            exchange.reply_id = None
            self.tree.discard(reply_id)

    # --- the tree -------------------------------------------------------------------------------

    def fork(self, message_id: int | None = None) -> tuple[int, list[int]] | None:
        """The place of a message among its siblings, and their ids; None where it has none.

        Without a message it is the one nearest the head that has any.
        """
        path = self.tree.path() if message_id is None else [self.tree.messages[message_id]]
        for message in reversed(path):
            ids = [sibling.id for sibling in self.tree.siblings(message.id)]
            if len(ids) > 1:
                return ids.index(message.id), ids
        return None

    def place(self, exchange: Exchange) -> str:
        """Where an exchange stands among its siblings, in words; "" where it has none."""
        words = []
        for name, id in (("message", exchange.user_id), ("reply", exchange.reply_id)):
            if id is not None and len(ids := [m.id for m in self.tree.siblings(id)]) > 1:
                words.append(f"{name} \u25c2 {ids.index(id) + 1}/{len(ids)} \u25b8")
        return " · ".join(words)

    def go_to(self, head: int | None) -> None:
        """Have the exchanges be those on the way to `head`."""
        self.tree.rewind(head)
        known = {(e.user_id, e.reply_id): e for e in self.exchanges}
        self.exchanges = []
        for user, reply in exchanges(self.tree.path()):
            found = known.get((user.id, reply.id if reply else None))
            self.exchanges.append(found or self._restored(user, reply))

    def _restored(self, user: Message, reply: Message | None) -> Exchange:
        """An exchange that was saved: whatever the database holds, only text is shown and copied."""
        exchange = Exchange(self._next_run, sanitize(user.text), user_id=user.id, parent_id=user.parent)
        self._next_run += 1
        if reply is not None:
            exchange.reply, exchange.reply_id = sanitize(reply.text), reply.id
            exchange.surprises, exchange.done = list(reply.surprise), self._ends.get(reply.id)
        return exchange

    @property
    def left(self) -> Exchange | None:
        """The first exchange that the model still sees, where older ones have left the context."""
        start = self.tree.start
        return next((e for e in self.exchanges[1:] if start is not None and e.user_id == start), None)

    def drop(self, exchange: Exchange) -> None:
        """Take this exchange and all after it off the screen."""
        del self.exchanges[self.exchanges.index(exchange) :]

    def drop_after(self, exchange: Exchange) -> None:
        """Take all after this exchange off the screen."""
        del self.exchanges[self.exchanges.index(exchange) + 1 :]

    @property
    def running(self) -> Exchange | None:
        """The exchange that the engine works on, if it is still on screen."""
        return self.find(self.unfinished[0]) if self.unfinished else None

    @property
    def queued(self) -> int:
        """Messages that wait behind the running one."""
        return max(0, len(self.unfinished) - 1)

    def waiting(self, *, all: bool) -> list[Exchange]:
        """Messages that have not begun: those behind the running one, or with it where `all` wait."""
        runs = self.unfinished if all else self.unfinished[1:]
        found = (self.find(run) for run in runs)
        return [exchange for exchange in found if exchange is not None and exchange.user_id is None]

    @property
    def last(self) -> Exchange | None:
        """The newest exchange."""
        return self.exchanges[-1] if self.exchanges else None

    @property
    def last_reply(self) -> Exchange | None:
        """The newest exchange with any text in its reply."""
        return next((exchange for exchange in reversed(self.exchanges) if exchange.reply), None)

    @property
    def context_used(self) -> int:
        """Tokens in the context."""
        known = (exchange.context_used for exchange in reversed(self.exchanges))
        return next((used for used in known if used is not None), 0)

    def as_text(self, assistant: str) -> str:
        """The whole conversation as plain text, for a pager."""
        parts = []
        for exchange in self.exchanges:
            parts.append(f"you: {exchange.user}")
            stopped = exchange.done is not None and exchange.done.reason is Reason.CANCELLED
            if exchange.reply or exchange.done is not None:
                parts.append(f"{assistant}: {exchange.reply}{' [stopped]' if stopped else ''}")
        return "\n\n".join(parts) + "\n"


def _end_of(saved: SavedMessage) -> Done:
    """The end of a run as it was told when the reply was new; one that never came counts as a stop."""
    message, reply = saved.message, saved.reply
    return Done(
        run=0,
        reason=message.reason or Reason.CANCELLED,
        stats=Stats() if reply is None else reply.stats,
        reply=reply,
        user_id=message.parent,
        reply_id=message.id,
        head=message.id,
    )
