"""The figures of the last replies side by side. No Textual."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tui.conversation import Exchange
from tui.figures import rate, seconds

_NONE = "-"


def _tokens(exchange: Exchange) -> str:
    return str(exchange.tokens)


def _speed(exchange: Exchange) -> str:
    speed = exchange.done.stats.decode_tok_s if exchange.done else None
    return rate(speed) if speed else _NONE


def _first(exchange: Exchange) -> str:
    first = exchange.done.stats.ttft_s if exchange.done else None
    return seconds(first) if first is not None else _NONE


def _cached(exchange: Exchange) -> str:
    reply = exchange.done.reply if exchange.done else None
    return f"{reply.cached_tokens}/{reply.prompt_tokens}" if reply else _NONE


def _surprise(exchange: Exchange) -> str:
    bits = exchange.surprises
    return f"{sum(bits) / len(bits):.2f}" if bits else _NONE


def _prefill(exchange: Exchange) -> str:
    speed = exchange.done.stats.prefill_tok_s if exchange.done else None
    return rate(speed) if speed else _NONE


def _end(exchange: Exchange) -> str:
    return str(exchange.done.reason) if exchange.done else "running"


_COLUMNS: tuple[tuple[str, Callable[[Exchange], str]], ...] = (
    ("tok", _tokens),
    ("tok/s", _speed),
    ("first", _first),
    ("cached", _cached),
    ("surprise", _surprise),
    ("end", _end),
    ("prefill tok/s", _prefill),
)
"""Heads and what stands below them, the most telling first."""

_GAP = "  "


def lines(exchanges: Sequence[Exchange], width: int, most: int = 8) -> list[str]:
    """The last replies, newest first, in as many columns as `width` cells hold; a word if there are none."""
    told = [exchange for exchange in exchanges if exchange.tokens or exchange.done is not None]
    told = told[: -most - 1 : -1]
    if not told:
        return ["no reply yet"]
    lines = [""] * (len(told) + 1)
    for head, cell in _COLUMNS:
        cells = [head, *(cell(exchange) for exchange in told)]
        wide = max(map(len, cells))
        if lines[0] and len(lines[0]) + len(_GAP) + wide > width:
            break
        before = _GAP if lines[0] else ""
        lines = [f"{line}{before}{text:>{wide}}" for line, text in zip(lines, cells, strict=True)]
    return lines
