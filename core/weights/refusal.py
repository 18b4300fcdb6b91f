"""What to tell a user whose model cannot be placed: how much is missing, and what really helps. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from core.errors import UserError
from core.weights.account import Account, account, fits
from core.weights.frame import frame_of
from core.weights.needs import Needs
from core.weights.plan import Budget, Choice, Rates
from core.weights.search import smallest

_CONTEXT_STEPS = (256, 64, 8)
Question = tuple[Needs, Budget, Choice]


def refusal(needs: Needs, budget: Budget, choice: Choice, rates: Rates) -> UserError:
    """One line for what no layout of `needs` fits: the bytes that are missing, and each way out alone."""
    memory = _least(needs, budget, choice, rates)
    lacks = []
    if budget.vram is not None and memory.taken > budget.vram:
        lacks.append(_lack(_memory_name(budget), memory.taken, budget.vram))
    if memory.ram > budget.ram:
        lacks.append(_lack("RAM", memory.ram, budget.ram))
    ways = _ways(needs, budget, choice, memory)
    helps = [text for text, question in ways if _possible(question, rates)]
    context = _context(needs, budget, choice, rates)
    if context is not None:
        helps.insert(0, f"--context {context}")
    way = f"what helps: {', or '.join(helps)}" if helps else "only a smaller model helps"
    return UserError(f"the model does not fit: {' and '.join(lacks)}; {way}")


def with_context(needs: Needs, context: int) -> Needs:
    """The needs with a smaller context, never less than they really are: a cache grows with its context."""
    return replace(needs, context=context, kv=-(-needs.kv * context // needs.context))


def _possible(question: Question, rates: Rates) -> bool:
    needs, budget, choice = question
    try:
        frame = frame_of(needs, budget, choice, rates)
    except UserError:
        return False
    return any(fits(frame, layout) for layout in smallest(frame))


def _least(needs: Needs, budget: Budget, choice: Choice, rates: Rates) -> Account:
    """What the layout takes that comes closest to fitting."""
    frame = frame_of(needs, budget, choice, rates)
    accounts = [account(frame, layout) for layout in smallest(frame)]
    vram = budget.vram
    return min(
        accounts,
        key=lambda a: max(0, a.ram - budget.ram) + (0 if vram is None else max(0, a.taken - vram)),
    )


def _ways(needs: Needs, budget: Budget, choice: Choice, memory: Account) -> Iterator[tuple[str, Question]]:
    """Changes of one flag, or of both sizes at once, that may help. What is said is what is tried."""
    vram, ram = _up(memory.taken), _up(memory.ram)
    if budget.vram is not None and memory.taken > budget.vram and vram <= (budget.card or vram):
        larger = replace(budget, vram=vram)
        yield f"--vram {_spelled(vram)}", (needs, larger, choice)
        if memory.ram > budget.ram:
            both = replace(larger, ram=ram)
            yield f"--vram {_spelled(vram)} with --ram {_spelled(ram)}", (needs, both, choice)
    if budget.simulated and budget.card is not None and budget.vram == budget.card < vram:
        yield f"--sim-vram {_spelled(vram)}", (needs, replace(budget, vram=vram, card=vram), choice)
    if memory.ram > budget.ram:
        yield f"--ram {_spelled(ram)}", (needs, replace(budget, ram=ram), choice)
    if choice.keep:
        streamed = replace(choice, keep=None, offload=True)
        yield "--offload without --offload-exclusion", (needs, budget, streamed)
    if choice.cpu:
        yield "no --cpu-layers", (needs, budget, replace(choice, cpu=()))
    if budget.vram is not None:
        cpu = Budget("cpu", None, budget.ram)
        plain = "" if choice == Choice() else " without the flags of placement"
        yield f"--device cpu{plain}", (needs, cpu, Choice())


def _context(needs: Needs, budget: Budget, choice: Choice, rates: Rates) -> int | None:
    """The largest round context with which the model fits; None where none does."""

    frame = frame_of(needs, budget, choice, rates)

    def fit(context: int) -> bool:
        shorter = replace(frame, needs=with_context(needs, context))
        return any(fits(shorter, layout) for layout in smallest(shorter))

    for step in _CONTEXT_STEPS:
        low, high = 0, (needs.context - 1) // step  # in steps; `high` included
        if high < 1 or not fit(step):
            continue
        low = 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fit(middle * step) else (low, middle - 1)
        return low * step
    return None


def _lack(what: str, needed: int, given: int) -> str:
    missing = _spelled(_up(needed - given, digits=3), " ")
    return f"it needs {_spelled(needed, ' ')} of {what} and has {_spelled(given, ' ')}, {missing} too little"


def _memory_name(budget: Budget) -> str:
    return "simulated VRAM" if budget.simulated else "VRAM"


def _up(nbytes: int, digits: int = 2) -> int:
    """To a round number that is not smaller: so many digits, and no coarser than 0.1 GB."""
    step = 10 ** max(3, min(8, len(str(nbytes)) - digits))
    return -(-nbytes // step) * step


def _spelled(nbytes: int, blank: str = "") -> str:
    """In GB or MB, as flags take it; nothing is rounded up."""
    unit, factor = ("GB", 10**9) if nbytes >= 10**9 else ("MB", 10**6)
    return f"{nbytes * 100 // factor / 100:g}{blank}{unit}"
