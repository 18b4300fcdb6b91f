"""What a user wants of the placement of the weights. No Textual."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from core.errors import UserError
from core.weights import placement
from core.weights.plan import Choice, Plan
from tui.groups import exclusions, kept_by


class Mode(StrEnum):
    """Who says what stays on the device; the value is the word for it."""

    AUTO = "auto"
    STREAMED = "all streamed"
    CHOSEN = "chosen"


@dataclass(frozen=True, slots=True)
class Wish:
    """A wish: `kept` are short names of weights, empty under `auto`; `cpu` names as the user gave them."""

    auto: bool
    kept: frozenset[str]
    cpu: tuple[str, ...]
    vram: int

    @property
    def mode(self) -> Mode:
        """Who says what stays on the device."""
        if self.auto:
            return Mode.AUTO
        return Mode.CHOSEN if self.kept else Mode.STREAMED


def wish_of(plan: Plan) -> Wish:
    """The wish that `plan` fulfils."""
    auto = not plan.choice.offload and plan.choice.keep is None
    kept = frozenset[str]() if auto else kept_by(plan)
    return Wish(auto, kept, plan.choice.cpu, plan.budget.vram or 0)


def rebased(wish: Wish, before: Wish, after: Wish) -> Wish:
    """`wish`, made when `before` was fulfilled, where `after` is: what it did not change follows."""
    same = (wish.auto, wish.kept) == (before.auto, before.kept)
    chosen = after if same else wish
    return Wish(
        chosen.auto,
        chosen.kept,
        after.cpu if wish.cpu == before.cpu else wish.cpu,
        after.vram if wish.vram == before.vram else wish.vram,
    )


def predict(plan: Plan, wish: Wish) -> Plan | str:
    """The plan that `wish` would give in place of `plan`, or the planner's refusal."""
    if wish.auto:
        choice = Choice(cpu=wish.cpu)
    else:
        choice = Choice(offload=True, keep=exclusions(wish.kept, plan.needs), cpu=wish.cpu)
    try:
        return placement.plan(plan.needs, replace(plan.budget, vram=wish.vram), choice, plan.rates)
    except UserError as error:
        return str(error)
