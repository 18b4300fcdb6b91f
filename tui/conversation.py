"""The exchanges on screen: the truth that the transcript, the header and the gauges are views of."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.engine.events import Delta, Done, Prefill, Reason


@dataclass(slots=True)
class Exchange:
    """A user message and what came back."""

    run: int
    user: str
    reply: str = ""
    surprises: list[float] = field(default_factory=list)
    prefill: Prefill | None = None
    done: Done | None = None

    @property
    def user_key(self) -> int:
        """The user message's key in the transcript."""
        return 2 * self.run

    @property
    def reply_key(self) -> int:
        """The reply's key in the transcript."""
        return 2 * self.run + 1

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
        self.unfinished: list[int] = []
        self._next_run = 1

    def submit(self, text: str) -> Exchange:
        """A new exchange at the end, under the next run number."""
        exchange = Exchange(self._next_run, text)
        self._next_run += 1
        self.exchanges.append(exchange)
        self.unfinished.append(exchange.run)
        return exchange

    def find(self, run: int) -> Exchange | None:
        """The exchange of this run, or None where it was dropped."""
        return next((exchange for exchange in self.exchanges if exchange.run == run), None)

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
        return exchange

    def drop(self, exchange: Exchange) -> None:
        """Take this exchange and all after it off the screen."""
        del self.exchanges[self.exchanges.index(exchange) :]

    @property
    def running(self) -> Exchange | None:
        """The exchange that the engine works on, if it is still on screen."""
        return self.find(self.unfinished[0]) if self.unfinished else None

    @property
    def queued(self) -> int:
        """Messages that wait behind the running one."""
        return max(0, len(self.unfinished) - 1)

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
