"""How long a token takes when copies and kernels overlap: a discrete simulation. No torch.

It follows `core.weights.streaming`: a slot begins to load the next unit of its ring when the one in it has
been computed; copies are carried out one after the other, in the order in which they were begun; a unit is
computed when the one before it is and its own copy has arrived. Copies wrap into the next token.
"""

from __future__ import annotations

from collections.abc import Sequence

_MOST_TOKENS = 40
_SAME = 1e-9  # of a token's time; two tokens that differ by less are alike


def token_seconds(copies: Sequence[float], computes: Sequence[float], slots: int) -> float:
    """The time of one token in the steady state, in seconds.

    For each unit in order of computation: how long its copy takes (0 where nothing of it is streamed) and
    how long it computes. Units with a copy are dealt to `slots` rings; a ring of one is never copied.
    """
    streamed = [i for i, copy in enumerate(copies) if copy > 0]
    count, total = len(streamed), sum(computes)
    if count <= slots:
        return total
    own = [computes[i] for i in streamed]
    ends = [*streamed[1:], len(computes)]
    gaps = [sum(computes[i + 1 : end]) for i, end in zip(streamed, ends, strict=True)]
    gaps[-1] += sum(computes[: streamed[0]])
    heirs = [j + slots if j + slots < count else j % slots for j in range(count)]
    heir_copies = [0.0 if heir == j else copies[streamed[heir]] for j, heir in enumerate(heirs)]
    steps = list(zip(range(count), own, gaps, heirs, heir_copies, strict=True))

    arrived = [0.0] * count
    now = link = 0.0
    starts: list[float] = []
    before: list[float] = []
    for _ in range(_MOST_TOKENS):
        starts.append(now)
        for j, compute, gap, heir, copy in steps:
            if arrived[j] > now:
                now = arrived[j]
            now += compute
            if copy:
                link = (link if link > now else now) + copy
                arrived[heir] = link
            now += gap
        # What the next token finds, seen from its own start; the past does not matter to it.
        after = [max(0.0, time - now) for time in (link, *arrived[:slots])]
        taken = now - starts[-1]
        if before and all(abs(x - y) <= _SAME * taken for x, y in zip(before, after, strict=True)):
            return taken
        before = after
    half = len(starts) // 2
    return (now - starts[half]) / (len(starts) - half)


def crowded_seconds(
    copies: Sequence[float], computes: Sequence[float], slots: int, link_share: float, compute_share: float
) -> float:
    """`token_seconds` where copies and kernels slow each other down, as they do in one memory.

    While both are under way, the link keeps `link_share` of its rate and the kernels `compute_share`.
    """
    seconds = token_seconds(copies, computes, slots)
    streamed = [copy for copy in copies if copy > 0]
    if (link_share >= 1 and compute_share >= 1) or len(streamed) <= slots:
        return seconds
    moving = sum(sum(streamed[k::slots]) for k in range(min(slots, len(streamed) - slots)))
    slower = slower_link = 1.0
    for _ in range(3):
        copying, computing = moving * slower_link / seconds, sum(computes) * slower / seconds
        slower = 1 + min(1.0, copying) * (1 / compute_share - 1)
        slower_link = 1 + min(1.0, computing) * (1 / link_share - 1)
        seconds = token_seconds(
            [copy * slower_link for copy in copies], [compute * slower for compute in computes], slots
        )
    return seconds


def deal(count: int, slots: int) -> list[range]:
    """Which of `count` streamed units, by their positions, share each slot."""
    return [range(k, count, slots) for k in range(min(slots, count))]
