"""Bytes in motion: units that take turns in slots of the device, each copied while others compute.

A slot begins to load the next unit of its ring when the one in it has been computed. Copies wrap past the
last unit into the next pass. A ring of one is loaded once and stays. No slot ever loads past a unit that
was not used, and a pass that is abandoned half-way heals itself, because to load what is there costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol, TypeVar

from torch import Tensor

from core.errors import Cancelled
from core.weights.lane import Lane, Source, Transfer
from core.weights.ledger import Ledger, SlotCount


class Named(Protocol):
    """What is computed in turn."""

    @property
    def name(self) -> str:
        """The name under which its bytes are known."""
        ...


_AHEAD = 2  # units beyond those that are sent, whose bytes the disk may already bring


N = TypeVar("N", bound=Named)


class Slot:
    """Memory of the device, and the unit that is in it or on its way; `count` says which for the meters."""

    def __init__(self, memory: Tensor, lane: Lane) -> None:
        self.memory = memory
        self.count = SlotCount()
        self._lane = lane
        self._tenant: str | None = None
        self._transfer: Transfer | None = None

    def load(self, name: str, source: Source) -> None:
        """Begin to copy a unit, unless it is here already."""
        if name != self._tenant:
            self._tenant = None
            self._transfer = self._lane.send(name, source, self.memory)
            self.count.latest = self._transfer.passage
            self._tenant = name

    def wait(self, cancelled: Callable[[], bool]) -> int:
        """Until the tenant has arrived; how many bytes did since the last call. Raises Cancelled."""
        transfer = self._transfer
        if transfer is None:
            return 0
        try:
            self._lane.wait(transfer, cancelled)
        except Cancelled:
            raise
        except BaseException:
            self._tenant = self.count.latest = None  # what is in the slot is of no use
            raise
        self._transfer = None
        return transfer.moved


@dataclass(frozen=True, slots=True)
class Ride:
    """One unit of a ring: its name, and where its bytes wait."""

    name: str
    source: Source


@dataclass(frozen=True, slots=True)
class _Turn:
    """`after` is what will be sent next but one, once the heir is."""

    slot: Slot
    ride: Ride
    heir: Ride
    after: Source


class Stream:
    """All slots and whose turn it is in which. `rings` are (slot, its units in order of computation)."""

    def __init__(self, lane: Lane, ledger: Ledger, rings: Sequence[tuple[Slot, Sequence[Ride]]]) -> None:
        self._lane, self._ledger = lane, ledger
        self._rings = rings
        ledger.slots = tuple(slot.count for slot, _ in rings)
        self._turns: dict[str, _Turn] = {}
        self.arrived = 0
        """Bytes that units in slots have brought, counted by the lane, when they were first used."""
        order = [ride for group in zip_longest(*(rides for _, rides in rings)) for ride in group if ride]
        place = {ride.name: i for i, ride in enumerate(order)}
        for slot, rides in rings:
            for ride, heir in zip(rides, [*rides[1:], rides[0]], strict=True):
                after = order[(place[heir.name] + _AHEAD) % len(order)]
                self._turns[ride.name] = _Turn(slot, ride, heir, after.source)

    def prime(self) -> None:
        """Begin to load the first unit of every ring, in the order of computation."""
        for slot, rides in self._rings:
            slot.load(rides[0].name, rides[0].source)

    def walk(self, units: Iterable[N], cancelled: Callable[[], bool]) -> Iterator[N]:
        """The units in turn, each once its weights are on the device.

        Raises Cancelled when the flag is seen, before a unit or while its bytes are on their way, and
        whatever went wrong with a copy.
        """
        ledger = self._ledger
        try:
            for unit in units:
                if cancelled():
                    raise Cancelled
                turn = self._turns.get(unit.name)
                if turn is not None:
                    turn.slot.load(turn.ride.name, turn.ride.source)  # there, unless the last pass was cut
                    ledger.computing = False
                    self.arrived += turn.slot.wait(cancelled)
                ledger.computed, ledger.computing = unit.name, True
                yield unit
                if turn is not None:
                    turn.slot.load(turn.heir.name, turn.heir.source)
                    self._lane.hint(turn.after)
        finally:
            ledger.computing = False
