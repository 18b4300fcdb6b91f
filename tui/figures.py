"""Numbers as the interface writes them. GB are 10^9 bytes."""

from __future__ import annotations

from core.engine.events import CacheRead, Cut, Done, Loading, Prefill
from core.sizes import format_size
from tui.conversation import Exchange


def gigabytes(count: float) -> str:
    """Bytes in GB with as many digits as mean anything: "0.27", "5.6", "128"."""
    value = count / 1e9
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def change(before: str, after: str) -> str:
    """Two figures with an arrow between them; one where they read the same."""
    return after if before == after else f"{before}→{after}"


def rate(tokens_per_second: float) -> str:
    """Tokens per second: "0.38", "2.5", "41"."""
    if tokens_per_second >= 99.5:
        return f"{tokens_per_second:.0f}"
    return f"{tokens_per_second:.1f}" if tokens_per_second >= 1 else f"{tokens_per_second:.2f}"


def seconds(value: float) -> str:
    """A duration: "0.23 s", "1.9 s", "84 s", "3 min 05 s"."""
    if value >= 100:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest:02d} s"
    if value >= 9.95:
        return f"{value:.0f} s"
    return f"{value:.1f} s" if value >= 0.995 else f"{value:.2f} s"


def load_progress(loading: Loading) -> str:
    """A load in one line: stage, share, bytes, speed, time left, each where it is known."""
    parts = [loading.stage]
    if loading.total_bytes:
        parts[0] += f" {100 * loading.done_bytes // loading.total_bytes} %"
        parts.append(f"{gigabytes(loading.done_bytes)} of {gigabytes(loading.total_bytes)} GB")
    if loading.bytes_per_s is not None:
        parts.append(f"{gigabytes(loading.bytes_per_s)} GB/s")
    if loading.seconds_left is not None:
        parts.append(f"{seconds(loading.seconds_left)} left")
    return " · ".join(parts)


def prefill_progress(prefill: Prefill, tok_s: float | None, left: float | None) -> str:
    """A prompt on its way through the model: the share of what is not in the cache, speed, time left."""
    done, total = prefill.done - prefill.cached, prefill.total - prefill.cached
    parts = [f"prefill {100 * done // total if total else 100} %"]
    if tok_s is not None:
        parts.append(f"{rate(tok_s)} tok/s")
    if left is not None:
        parts.append(f"{seconds(left)} left")
    parts.append(f"{done}/{total} tok")
    if prefill.cached:
        parts.append(f"cached {prefill.cached}")
    return " · ".join(parts)


def summary(exchange: Exchange) -> list[str]:
    """What is worth knowing of a reply at a glance: tokens, speed, time to the first token, what of its
    prompt was in the cache.
    """
    done = exchange.done
    parts = [f"{exchange.tokens} tok"]
    if done is not None and done.stats.decode_tok_s is not None:
        parts.append(f"{rate(done.stats.decode_tok_s)} tok/s")
    if done is not None and done.stats.ttft_s is not None:
        parts.append(f"first {seconds(done.stats.ttft_s)}")
    if done is not None and done.reply is not None and done.reply.cached_tokens:
        parts.append(f"cached {done.reply.cached_tokens}")
    return parts


def cut_words(cut: Cut) -> str:
    """What a full context costs: who leaves, and what has to be run anew for it."""
    who = "oldest exchange leaves" if cut.exchanges == 1 else f"{cut.exchanges} oldest exchanges leave"
    time = "" if cut.seconds is None else f", about {seconds(cut.seconds)}"
    return f"{who} the context, {cut.tokens} tokens run anew{time}"


def cache_words(read: CacheRead) -> str:
    """What the KV cache holds, and what of it the next message runs anew."""
    share = 100 * read.tokens / read.capacity
    used, whole = (format_size(count * read.token_bytes) for count in (read.tokens, read.capacity))
    said = f"KV cache: {read.tokens} of {read.capacity} tokens ({share:.0f} %), {used} of {whole}"
    if read.anew is None:
        return said
    return f"{said}; the next message runs {read.anew} tokens anew beside its own"


def footer(exchange: Exchange, done: Done, *, debug: bool, place: str = "") -> str:
    """The line under a finished reply; `debug` adds time, mean surprise and perplexity.

    `place` says where it stands among its siblings.
    """
    parts = summary(exchange) if exchange.tokens else []
    if debug and exchange.surprises:
        stats = done.stats
        if stats.decode_tok_s is not None and stats.ttft_s is not None:
            parts.append(f"time {seconds(stats.ttft_s + (exchange.tokens - 1) / stats.decode_tok_s)}")
        mean = sum(exchange.surprises) / len(exchange.surprises)
        parts.append(f"surprise {mean:.2f} bits")
        parts.append(f"perplexity {2**mean:.2f}")
        if done.reply is not None:
            parts.append(f"seed {done.reply.seed}")
    parts.append(str(done.reason))
    if place:
        parts.append(place)
    return " · ".join(parts)
