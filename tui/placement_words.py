"""Plans in words: what they take, what they give, what limits them. No Textual."""

from __future__ import annotations

from core.weights.plan import Plan
from tui.figures import change, gigabytes, rate
from tui.groups import exclusions, kept_by
from tui.wish import wish_of

_MOST_NAMES = 12


def limit_word(plan: Plan) -> str:
    """What limits a plan's speed, as the interface calls it."""
    words = {"link": "PCIe", "gpu": "GPU", "cpu": "CPU", "disk": "disk"}
    if plan.budget.simulated:
        words |= {"link": "simulated link", "gpu": "simulated GPU"}
    return words[plan.limit]


def figures(before: Plan, after: Plan) -> tuple[str, ...]:
    """What a change takes and gives, in parts; one value where it stays the same."""
    taken = change(gigabytes(before.vram or 0), gigabytes(after.vram or 0))
    moved = change(gigabytes(before.streamed_per_token), gigabytes(after.streamed_per_token))
    speed = change(rate(before.predicted_tok_s), rate(after.predicted_tok_s))
    word = "simulated" if after.budget.simulated else "predicted"
    parts = [
        f"VRAM {taken} of {gigabytes(after.budget.vram or 0)}",
        f"{moved} GB/token",
        f"{speed} tok/s {word}",
    ]
    if before.disk or after.disk:
        parts.append(f"disk {change(gigabytes(before.disk), gigabytes(after.disk))} GB")
    return tuple(parts)


def announcement(plan: Plan) -> str:
    """A new plan in one line."""
    if plan.streamed_per_token:
        moved = f"{gigabytes(plan.streamed_per_token)} GB per token"
    else:
        moved = "nothing is streamed"
    word = "predicted (simulated)" if plan.budget.simulated else "predicted"
    return f"now {moved}, {rate(plan.predicted_tok_s)} tok/s {word}"


def unpinned_note(nbytes: int) -> str:
    """What it means that so many streamed bytes could not be pinned."""
    return (
        f"the system did not let us pin {gigabytes(nbytes)} GB of the streamed weights: "
        "they move through staging buffers, at half speed or less (see ulimit -l)"
    )


def kept_words(plan: Plan) -> str:
    """What stays on the device, as exclusions, and who says so."""
    names = exclusions(kept_by(plan), plan.needs)
    shown = ", ".join(names[:_MOST_NAMES]) or "none"
    more = len(names) - _MOST_NAMES
    return f"{shown}{f' and {more} more' if more > 0 else ''} ({wish_of(plan).mode})"


def value_words(plan: Plan, key: str) -> str:
    """What is in force of the parameter `key` of the placement."""
    match key:
        case "vram":
            return f"{gigabytes(plan.budget.vram or 0)} GB"
        case "cpu_layers":
            return ", ".join(plan.choice.cpu) or "none"
        case _:
            return kept_words(plan)
