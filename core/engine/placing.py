"""The plan in force, and what carries it out: homes, slots, the stream, and changes between two tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.engine.backend import Sink
from core.engine.bind import Binder, Memory
from core.engine.events import Notice, Placed, Placing
from core.errors import UserError
from core.sizes import format_size
from core.weights.host import Registrar
from core.weights.lane import Lane
from core.weights.ledger import Ledger
from core.weights.packed import PackedFile
from core.weights.placement import smaller
from core.weights.plan import Place, Plan
from core.weights.store import Fill, Store
from core.weights.streaming import Ride, Slot, Stream

if TYPE_CHECKING:
    from core.gpu.units import FastUnits


@dataclass(frozen=True, slots=True)
class Machine:
    """What carries a plan out: the way to the device, what pins memory, and what is counted."""

    lane: Lane
    ledger: Ledger
    registrar: Registrar | None


class Placement:
    """The weights of one model on one machine.

    `pack` makes the packed file when a plan wants weights on disk. `emit` is told of every change.
    """

    def __init__(self, machine: Machine, binder: Binder, pack: Callable[[], PackedFile], emit: Sink) -> None:
        self._plan: Plan | None = None
        self._whole = False  # every weight is where the plan has it, and bound
        self.unpinned = 0  # bytes to be streamed that the system did not let us pin
        self.bound = 0
        """How often weights were bound: what was made of their addresses holds until the next time."""
        self._machine, self._binder, self._pack, self._emit = machine, binder, pack, emit
        self._store = Store(machine.lane, machine.ledger, machine.registrar)
        self._stream: Stream | None = None
        self._workspace: Tensor | None = None
        self._arrived = 0  # by streams that are gone, and by rows of the embedding

    @property
    def fast(self) -> FastUnits | None:
        """What makes the units of one row, where the device has kernels for them."""
        return self._binder.fast

    @property
    def plan(self) -> Plan:
        """What is in force."""
        assert self._plan is not None, "nothing was placed yet"
        return self._plan

    @property
    def arrived(self) -> int:
        """Bytes of weights that came to the device for the passes so far, as the lane counted them."""
        return self._arrived + (self._stream.arrived if self._stream else 0)

    @property
    def streams(self) -> bool:
        """False where nothing can move: there is no device, and no weight on disk."""
        return self.plan.vram is not None or self.plan.disk > 0

    def install(self, plan: Plan, fill: Fill, finish: Callable[[Tensor], None]) -> None:
        """The first placement: `fill` is given memory for every weight, `finish` that of the norms.

        All bytes must be there when `finish` returns. Raises torch.OutOfMemoryError and UserError.
        """
        self.prepare(plan)
        self._cap(plan)
        self._store.place(plan, fill)
        assert self._store.norms is not None
        finish(self._store.norms)
        self._bind(plan)

    def apply(self, plan: Plan, reason: str | None = None) -> None:
        """Move the weights to where `plan` has them; what the device cannot take leads to a smaller plan.

        Raises UserError where host memory or the disk is short: then the plan before is in force again.
        """
        old = self.plan
        try:
            self._move(plan, reason)
        except UserError:
            self._move(old, None)
            raise

    def relieve(self) -> bool:
        """Make room on the device by a smaller plan; False where there is none."""
        plan = smaller(self.plan)
        if plan is None:
            return False
        self._move(plan, "the device ran out of memory")
        return True

    def placed(self, reason: str | None = None) -> Placed:
        """What is in force, as an event."""
        return Placed(self.plan, self.unpinned, reason, self._store.pageable)

    def look(self) -> None:
        """Tell what the lane has found out since, once. Raises UserError where weights are not in place."""
        lane = self._machine.lane
        if not self._whole:
            raise UserError("memory ran out while weights were moved; free some and load the model again")
        if lane.notice is not None:
            self._emit(Notice(lane.notice, "warning"))
            lane.notice = None

    def close(self) -> None:
        """Give all memory back and end the lane's threads."""
        self._machine.lane.close()
        self._binder.release()
        self._stream = self._workspace = None
        self._machine.ledger.slots = ()
        self._store.close()

    def _move(self, plan: Plan, reason: str | None) -> None:
        while True:
            try:
                # Generating runs in inference mode, and a tensor made there could not be bound for later.
                with torch.inference_mode(False):
                    self._try(plan)
                break
            except torch.OutOfMemoryError:
                pass
            less = smaller(plan)
            if less is None:
                raise UserError("the device has too little memory left even for the smallest plan")
            plan, reason = less, "the device ran out of memory"
        self._emit(self.placed(reason))

    def _try(self, plan: Plan) -> None:
        self._whole = False
        self._machine.lane.drain()
        self._arrived = self.arrived
        self._stream = self._workspace = None
        self._machine.ledger.slots = ()
        self._binder.release()
        self.prepare(plan)
        # While weights come and go, as much may be taken as before or after.
        self._cap(self.plan if (self.plan.budget.vram or 0) > (plan.budget.vram or 0) else plan)
        total = sum(nbytes for _, nbytes in self._store.moves(plan))
        done = 0

        def fill(name: str, memory: Tensor) -> None:
            nonlocal done
            self._machine.ledger.placing = name
            if not self._store.copy(name, memory):
                assert self._store.packed is not None
                self._store.packed.read(name, memory)
            self._tell_ledger(name, plan, memory.nbytes)
            done += memory.nbytes
            self._emit(Placing(min(done, total), total))

        self._emit(Placing(0, total))
        try:
            self._store.place(plan, fill)
        finally:
            self._machine.ledger.placing = None
        self._bind(plan)

    def _tell_ledger(self, name: str, plan: Plan, nbytes: int) -> None:
        """A weight has come to the device, or left it."""
        if self._store.homes[name].place is Place.GPU:
            self._machine.ledger.from_device += nbytes
        elif plan.places[name] is Place.GPU:
            self._machine.ledger.to_device += nbytes

    def prepare(self, plan: Plan) -> PackedFile | None:
        """The packed file, made where `plan` needs it and there is none yet."""
        if plan.disk and self._store.packed is None:
            self._store.packed = self._pack()
        return self._store.packed

    def _bind(self, plan: Plan) -> None:
        """Slots, pinned memory, and every parameter a view of where its bytes are."""
        lane, ledger, store = self._machine.lane, self._machine.ledger, self._store
        units = {unit.name: unit for unit in plan.needs.units}
        slots: dict[str, Tensor] = {}
        rings = []
        for ring in plan.rings:
            slot = Slot(lane.empty(ring.slot_bytes), lane)
            rings.append((slot, [Ride(name, store.source(units[name], plan)) for name in ring.units]))
            slots |= dict.fromkeys(ring.units, slot.memory)
        if ledger.simulated:
            self._workspace = lane.empty(plan.workspace)  # taken, so that the simulated card is as full
        self.unpinned = store.pin()
        self._stream = Stream(lane, ledger, rings)
        assert store.norms is not None
        memory = Memory(store.homes, store.norms, slots, store.read, self._row_arrived)
        self._binder.bind(plan, memory, self._stream)
        ledger.device["slots"] = sum(ring.slot_bytes for ring in plan.rings)
        ledger.device["workspace"] = plan.workspace
        ledger.vram_budget = plan.budget.vram
        self._cap(plan)
        self._plan, self._whole = plan, True
        self.bound += 1

    def _cap(self, plan: Plan) -> None:
        """Hold the device to the budget; the driver's context is not ours to allocate."""
        if plan.budget.vram is not None:
            self._machine.lane.cap(plan.budget.vram - plan.budget.context)

    def _row_arrived(self, nbytes: int) -> None:
        """Rows of the embedding have come to the device."""
        if self.plan.vram is not None:
            self._arrived += nbytes
            self._machine.ledger.to_device += nbytes


def summary(plan: Plan) -> Notice | None:
    """What the user should know of a plan before the load; None where every weight stays put."""
    if not plan.streamed_per_token:
        return None
    where = dict.fromkeys(Place, 0)
    for unit in plan.needs.units:
        for weight in unit.weights:
            name = "output" if unit.name.startswith("output.") else weight.name
            where[plan.places[name]] += weight.nbytes
    parts = {
        Place.GPU: "on the device", Place.RAM: "streamed from RAM", Place.DISK: "streamed from disk",
        Place.CPU: "computed on the CPU",
    }  # fmt: skip
    said = [f"{format_size(where[place])} {words}" for place, words in parts.items() if where[place]]
    return Notice(", ".join(said))
