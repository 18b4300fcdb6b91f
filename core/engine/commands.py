"""What goes into the engine: frozen commands, free of torch. What comes out: `core.engine.events`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.options import LoadOptions, Sampling
from core.weights.plan import Plan

if TYPE_CHECKING:
    from core.engine.conversation import Message


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model; answered by Loading events and then Ready or Failed(fatal)."""

    options: LoadOptions


@dataclass(frozen=True, slots=True)
class Submit:
    """A user message at the head of the conversation. Runs are numbered upwards by the sender.

    Accepted before Ready and while another run is going on: it waits its turn.
    """

    run: int
    text: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Have the model speak at the head: answer the message there, beside what it said to it before, or go
    on with the reply there, which was cut off. Numbered like a Submit.
    """

    run: int


@dataclass(frozen=True, slots=True)
class Score:
    """Measure the perplexity of a text: Scoring events and then Scored. Numbered like a Submit.

    Only the first `tokens` of it are taken (None: all), with `rows` of them in one call of the model
    (None: whole windows).
    """

    run: int
    text: str
    tokens: int | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """End this run and every earlier one, waiting ones included. Acts within a unit's time."""

    run: int


@dataclass(frozen=True, slots=True)
class Configure:
    """The settings from now on: sampling reaches the next token, `system` the next message.

    `system` None means the chat format's own.
    """

    sampling: Sampling
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """Move the weights to where `plan` has them, between two tokens; only the difference moves.

    Acts at once, also in the middle of a reply, which goes on; answered by Placing events and then
    Placed, or by Failed(not fatal) and the Placed of what is in force. The latest one wins.
    """

    plan: Plan


@dataclass(frozen=True, slots=True)
class Rewind:
    """Make this message the head of the conversation; None is its empty start. Answered by Moved.

    The next Submit adds a sibling of what followed; nothing is deleted.
    """

    message_id: int | None


@dataclass(frozen=True, slots=True)
class OpenChat:
    """Another conversation in place of this one; without messages a new one. Answered by Opened.

    Their ids grow from parent to child. Replies whose tokens are those of another vocabulary are encoded
    anew, and a Notice says so. `chat` is the number under which it is saved, None where it is not yet.
    """

    messages: tuple[Message, ...] = ()
    head: int | None = None
    chat: int | None = None


@dataclass(frozen=True, slots=True)
class Unload:
    """Give the model's memory back, or give up its load; answered by Unloaded. The conversation stays.

    The next Submit or Resume loads the model again, as it was loaded and with its weights where they were.
    """


@dataclass(frozen=True, slots=True)
class ReadCache:
    """Tell what the KV cache holds; answered by CacheRead, or by Failed where no model is loaded."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Send an Activity whenever it is another one, looking ten times a second, until told otherwise.

    For as long as somebody sees it, and no longer. Acts at once.
    """

    shown: bool


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Stop whatever runs and end the worker."""


Command = (
    Load
    | Submit
    | Resume
    | Score
    | Stop
    | Configure
    | Apply
    | Rewind
    | OpenChat
    | Unload
    | ReadCache
    | Watch
    | Shutdown
)
