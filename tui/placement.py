"""Where the weights are, what the user wants instead, and what that would give. No Textual."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from core.engine.commands import Apply
from core.engine.events import Placed, Placing
from core.errors import UserError
from core.sizes import parse_size
from core.weights.names import select, split_names
from core.weights.plan import Place, Plan
from tui.figures import gigabytes
from tui.groups import Group, Mark, exclusions, groups_of, kept_by, mark_among, mark_of, weights_at
from tui.placement_words import figures, limit_word
from tui.wish import Mode, Wish, predict, rebased, wish_of

BUDGET_STEP = 250_000_000  # bytes
_ON_CPU = "--cpu-layers"


class Placement:
    """The plan in force and a change to it that is not applied yet.

    Empty until the first Placed. `placing` is how far a change under way has come.
    """

    def __init__(self) -> None:
        self.in_force: Placed | None = None
        self.placing: Placing | None = None
        self._wanted: Wish | None = None  # None: what is in force
        self._before: list[Wish | None] = []  # what was wanted before each change
        self._fulfilled: Wish | None = None  # by what is in force; None where nothing can be placed
        self._sent: tuple[Wish, Plan] | None = None  # what the engine has not answered yet
        self._last_choice = frozenset[str]()  # what was kept before the user went to another mode
        self._groups: tuple[Group, ...] = ()
        self._forecast: tuple[Plan, Wish, Plan | str] | None = None  # in force, asked for, answer

    # --- what the engine says -------------------------------------------------------------------

    def gone(self) -> None:
        """The model is not loaded any more, and nothing is in force."""
        self.in_force = self.placing = None
        self._wanted = self._fulfilled = self._sent = self._forecast = None
        self._groups = ()
        self._before.clear()

    def moved(self, placing: Placing) -> None:
        """Weights are on their way."""
        self.placing = placing

    def placed(self, placed: Placed) -> None:
        """A plan is in force. What it does not fulfil of a wish stays pending."""
        self._before.clear()
        sent, self._sent = self._sent, None
        before, wanted, self._wanted = self._fulfilled, self._wanted, None
        self.in_force, self.placing = placed, None
        self._fulfilled = wish_of(placed.plan) if self.available else None
        self._groups = groups_of(placed.plan.needs)
        fulfilled = sent is not None and sent == (wanted, placed.plan)
        if wanted is not None and before is not None and self._fulfilled is not None and not fulfilled:
            self._want(rebased(wanted, before, self._fulfilled))

    # --- what is in force and what would be --------------------------------------------------------

    @property
    def plan(self) -> Plan | None:
        """The plan in force."""
        return None if self.in_force is None else self.in_force.plan

    @property
    def available(self) -> bool:
        """True where there is a device, so that weights can be kept there or streamed to it."""
        return self.plan is not None and self.plan.vram is not None

    @property
    def offloads(self) -> bool:
        """True where something is streamed, or computed beside the device."""
        plan = self.plan
        if plan is None:
            return False
        return plan.streamed_per_token > 0 or (self.available and plan.ram_cpu > 0)

    @property
    def pending(self) -> bool:
        """True where the user wants something else than what is in force."""
        return self._wanted is not None

    @property
    def under_way(self) -> bool:
        """True where the engine was asked for the wish as it is and has not answered yet."""
        return self._sent is not None and self._sent[0] == self._wanted

    @property
    def card(self) -> int | None:
        """Bytes of the card, where they are known."""
        return self._plan().budget.card

    @property
    def mode_changed(self) -> bool:
        """True where the wish is for another mode."""
        return self.wanted.mode is not self._now().mode

    @property
    def budget_changed(self) -> bool:
        """True where the wish is for another VRAM budget."""
        return self.wanted.vram != self._now().vram

    @property
    def cpu_changed(self) -> bool:
        """True where the wish is for other CPU layers."""
        return self.wanted.cpu != self._now().cpu

    @property
    def can_apply(self) -> bool:
        """True where the wish can be had."""
        return self.pending and isinstance(self.forecast(), Plan)

    @property
    def wanted(self) -> Wish:
        """The wish; what is in force where there is none. Only where `available`."""
        return self._now() if self._wanted is None else self._wanted

    @property
    def shown(self) -> Plan:
        """The plan that the wish would give, or the one in force where it cannot be had."""
        forecast = self.forecast()
        return self._plan() if isinstance(forecast, str) else forecast

    def forecast(self) -> Plan | str:
        """What the wish would give, or the planner's refusal. Only where `available`."""
        plan, wanted = self._plan(), self._wanted
        if wanted is None:
            return plan
        if self._forecast is None or self._forecast[0] is not plan or self._forecast[1] != wanted:
            self._forecast = (plan, wanted, predict(plan, wanted))
        return self._forecast[2]

    def groups(self) -> list[tuple[Group, Mark, bool]]:
        """Every group, where it is or would be, and whether that is a change."""
        plan = self._plan()
        forecast = self.forecast()
        entries = []
        for group in self._groups:
            before = mark_of(group, plan)
            if isinstance(forecast, Plan):
                mark = mark_of(group, forecast)
            else:  # what was asked for must be seen to be taken back
                mark = before if self.wanted.auto else mark_among(group, self.wanted.kept)
            entries.append((group, mark, mark is not before))
        return entries

    def _plan(self) -> Plan:
        plan = self.plan
        if plan is None or plan.vram is None:
            raise ValueError(f"no device to place weights on: {plan and plan.budget}")
        return plan

    def _now(self) -> Wish:
        if self._fulfilled is None:
            raise ValueError("no device to place weights on")
        return self._fulfilled

    # --- what the user wants --------------------------------------------------------------------

    def undo(self) -> bool:
        """Forget the wish; False where there was none."""
        self._before.clear()
        pending, self._wanted = self.pending, None
        return pending

    def step_back(self) -> bool:
        """Take back the last change of the wish; False where there was none."""
        if not self._before:
            return False
        self._wanted = self._before.pop()
        return True

    def toggle(self, group: Group) -> None:
        """Keep a group on the device, or stream it if it is kept there whole.

        Raises UserError for what the user named to be computed on the CPU, which goes before.
        """
        wanted = self.wanted
        if wanted.cpu and set(group.weights) <= select(wanted.cpu, self._plan().needs):
            raise UserError(f"{group.label} is computed on the CPU; take it out of the CPU layers first")
        kept = kept_by(self.shown) if wanted.auto else wanted.kept
        if set(group.weights) <= kept:
            kept -= set(group.weights)
        else:
            kept |= set(group.weights)
        self._want(replace(wanted, auto=False, kept=kept))

    def put(self, names: Collection[str], place: Place) -> None:
        """Have these weights on the device, streamed (RAM), or computed on the CPU; the others stay.

        What the planner chose is the user's choice from then on.
        """
        kept, on_cpu = named = self.named()
        kept = kept.union(names) if place is Place.GPU else kept.difference(names)
        on_cpu = on_cpu.union(names) if place is Place.CPU else on_cpu.difference(names)
        plan, wanted = self._plan(), self.wanted
        if (kept, on_cpu) == (weights_at(plan, Place.GPU), weights_at(plan, Place.CPU)):
            self._want(replace(self._now(), vram=wanted.vram))  # as it is, whoever chose it
        elif (kept, on_cpu) != named:
            cpu = exclusions(on_cpu, plan.needs) if on_cpu != named[1] or wanted.auto else wanted.cpu
            self._want(replace(wanted, auto=False, kept=kept, cpu=cpu))

    def named(self) -> tuple[frozenset[str], frozenset[str]]:
        """What the wish keeps on the device and has computed on the CPU, weight by weight."""
        wanted, shown = self.wanted, self.shown
        if wanted.auto:
            return weights_at(shown, Place.GPU), weights_at(shown, Place.CPU)
        return wanted.kept, select(wanted.cpu, shown.needs, _ON_CPU)

    def set_mode(self, mode: Mode) -> None:
        """Leave the choice to the planner, stream everything, or keep what is (or was) kept.

        Raises UserError where there is nothing to keep.
        """
        wanted = self.wanted
        if wanted.auto:
            self._last_choice = self._last_choice or kept_by(self.shown)
        else:
            self._last_choice = wanted.kept or self._last_choice
        chosen = self._last_choice if mode is Mode.CHOSEN else frozenset[str]()
        if mode is Mode.CHOSEN and not chosen:
            raise UserError("chosen: nothing is; turn a toggle below")
        self._want(replace(wanted, auto=mode is Mode.AUTO, kept=chosen))

    def enter_kept(self, text: str) -> None:
        """Keep exactly what `text` names, as `--offload-exclusion` does; "auto" leaves it to the planner.

        Raises UserError for an unknown name.
        """
        if text.strip().lower() == "auto":
            self.set_mode(Mode.AUTO)
            return
        flag = "--offload-exclusion"
        kept = select(_split(text, flag), self._plan().needs, flag)
        self._want(replace(self.wanted, auto=False, kept=kept))

    def enter_cpu(self, text: str) -> None:
        """Compute on the CPU what `text` names. Raises UserError for an unknown name."""
        names = _split(text, _ON_CPU)
        select(names, self._plan().needs, _ON_CPU)
        self._want(replace(self.wanted, cpu=names))

    def enter_vram(self, text: str) -> None:
        """Cap device memory at the size that `text` spells.

        Raises UserError for what is no size, and for more than the card has.
        """
        vram, card = parse_size(text, "VRAM budget"), self.card
        if card is not None and vram > card:
            raise UserError(
                f"VRAM budget {gigabytes(vram)} GB: the card has {gigabytes(card)} GB; give that or less"
            )
        self._want(replace(self.wanted, vram=vram))

    def step_vram(self, steps: int) -> None:
        """Move the budget by steps of 0.25 GB, to whole ones; it stays on the card."""
        vram, card = self.wanted.vram, self.card
        at = vram // BUDGET_STEP if steps > 0 else -(-vram // BUDGET_STEP)
        moved = max(BUDGET_STEP, (at + steps) * BUDGET_STEP)
        self._want(replace(self.wanted, vram=moved if card is None else min(card, moved)))

    def apply(self) -> Apply:
        """The command that makes the wish come true. Raises UserError with the planner's refusal."""
        forecast = self.forecast()
        if isinstance(forecast, str):
            raise UserError(forecast)
        self._sent = (self.wanted, forecast)
        return Apply(forecast)

    def _want(self, wanted: Wish) -> None:
        after = None if wanted == self._now() else wanted
        if after != self._wanted:
            self._before.append(self._wanted)
            self._wanted = after

    # --- in words -------------------------------------------------------------------------------

    def figures(self) -> tuple[str, ...]:
        """What the wish takes and gives beside what is in force, or the planner's refusal."""
        forecast = self.forecast()
        if isinstance(forecast, str):
            return (forecast,)
        return figures(self._plan(), forecast)

    def progress(self) -> str:
        """How far the weights have come that move; empty where none do."""
        if self.placing is None:
            return "moving weights" if self.under_way else ""
        done, total = gigabytes(self.placing.done_bytes), gigabytes(self.placing.total_bytes)
        return f"moving weights {done} of {total} GB"

    def limit(self) -> str:
        """What limits the speed, where something is streamed or computed elsewhere; else empty."""
        plan = self.plan
        return limit_word(plan) if plan is not None and self.offloads else ""


def _split(text: str, flag: str) -> tuple[str, ...]:
    return () if text.strip().lower() == "none" else split_names(text, flag)
