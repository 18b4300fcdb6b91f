"""Engine events as Textual messages, one class each, so that handlers are found by type."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from textual.message import Message

from core.engine.events import (
    Activity,
    Begun,
    CacheRead,
    Cut,
    Delta,
    Done,
    Event,
    Failed,
    Loading,
    Notice,
    Placed,
    Placing,
    Prefill,
    Ready,
    Saved,
    Snapshot,
    Unloaded,
)

E = TypeVar("E", bound=Event)


class EngineMessage(Message, Generic[E], bubble=False):
    """An event on its way to the screen, and no further."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        # Textual has every class bubble anew.
        super().__init_subclass__(**{"bubble": False, **arguments})

    def __init__(self, event: E) -> None:
        super().__init__()
        self.event = event


class LoadProgressed(EngineMessage[Loading]):
    """The load went on. The latest wins."""

    def can_replace(self, message: Message) -> bool:
        """True for another reading of the same thing: only the newest is worth handling."""
        return isinstance(message, LoadProgressed)


class ModelReady(EngineMessage[Ready]):
    """The model answers from now on."""


class ModelUnloaded(EngineMessage[Unloaded]):
    """The model is out of memory."""


class CacheTold(EngineMessage[CacheRead]):
    """What the KV cache holds."""


class WeightsMoving(EngineMessage[Placing]):
    """Weights are on their way to other places. The latest wins."""

    def can_replace(self, message: Message) -> bool:
        """True for another reading of the same thing: only the newest is worth handling."""
        return isinstance(message, WeightsMoving)


class WeightsPlaced(EngineMessage[Placed]):
    """Every weight is where a plan says."""


class RunBegun(EngineMessage[Begun]):
    """A run has its place in the conversation."""


class ContextCut(EngineMessage[Cut]):
    """The oldest exchanges have left the context."""


class PrefillProgressed(EngineMessage[Prefill]):
    """More of the prompt is in the cache."""


class TextArrived(EngineMessage[Delta]):
    """A reply grew."""


class RunFinished(EngineMessage[Done]):
    """A reply ended, whatever the reason."""


class MetersRead(EngineMessage[Snapshot]):
    """The meters were read. The latest wins."""

    def can_replace(self, message: Message) -> bool:
        """True for another reading of the same thing: only the newest is worth handling."""
        return isinstance(message, MetersRead)


class ActivityRead(EngineMessage[Activity]):
    """What the engine does at this moment. The latest wins."""

    def can_replace(self, message: Message) -> bool:
        """True for another reading of the same thing: only the newest is worth handling."""
        return isinstance(message, ActivityRead)


class Noticed(EngineMessage[Notice]):
    """The engine has something to say that is no error."""


class ChatSaved(EngineMessage[Saved]):
    """The conversation is saved under a number, with a title."""


class EngineFailed(EngineMessage[Failed]):
    """Something went wrong outside a reply."""


MESSAGE_OF: dict[type, type[EngineMessage[Any]]] = {
    Loading: LoadProgressed,
    Ready: ModelReady,
    Unloaded: ModelUnloaded,
    CacheRead: CacheTold,
    Placing: WeightsMoving,
    Placed: WeightsPlaced,
    Begun: RunBegun,
    Cut: ContextCut,
    Prefill: PrefillProgressed,
    Delta: TextArrived,
    Done: RunFinished,
    Snapshot: MetersRead,
    Activity: ActivityRead,
    Notice: Noticed,
    Saved: ChatSaved,
    Failed: EngineFailed,
}
