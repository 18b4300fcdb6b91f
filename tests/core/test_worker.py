"""The engine thread on a real small model: events, live settings, stop, errors, the dialogue's cache."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from core.engine.commands import Configure, Load, Rewind, Stop, Submit
from core.engine.events import Delta, Done, Event, Failed, Loading, Prefill, Ready, Reason
from core.engine.worker import LocalBackend
from core.options import LoadOptions, Sampling
from tests.core.engine import GREEDY, Engine


def test_a_message_sent_before_ready_is_answered_after_it(start: Callable[..., Engine]) -> None:
    engine = start()
    order: list[type] = []
    done = engine.ask("Once upon a time", lambda event: order.append(type(event)))
    assert order.index(Loading) < order.index(Ready) < order.index(Prefill) < order.index(Delta)
    assert done.reason is Reason.LENGTH


def test_deltas_add_up_to_the_reply_and_are_not_too_many(start: Callable[..., Engine]) -> None:
    engine = start(replace(GREEDY, max_tokens=400))
    engine.until(Ready)
    deltas: list[Delta] = []
    started = time.perf_counter()
    done = engine.ask("Once", lambda event: deltas.append(event) if isinstance(event, Delta) else None)
    took = time.perf_counter() - started
    assert done.reply is not None
    assert "".join(delta.text for delta in deltas) == done.reply.text
    assert tuple(i for delta in deltas for i in delta.ids) == done.reply.tokens
    assert tuple(s for delta in deltas for s in delta.surprises) == done.reply.surprise
    assert len(deltas) <= 20 * took + 2


def test_temperature_zero_in_the_middle_gives_greedy_from_there(start: Callable[..., Engine]) -> None:
    """Set after token k is seen, it governs k+2 at the latest: one token may be under way."""
    engine = start(Sampling(temperature=2.0, top_p=1.0, seed=11, max_tokens=80))
    engine.until(Ready)
    seen = 0

    def cool_down(event: Event) -> None:
        nonlocal seen
        if isinstance(event, Delta) and not seen:
            seen = len(event.ids)  # the first Delta is sent at once, with the first token
            engine.send(Configure(Sampling(temperature=0, max_tokens=80)))

    warm = engine.ask("Once upon a time", cool_down).reply
    assert warm is not None
    assert seen == 1
    # The oracle: greedy from the first k + 1 tokens, whatever they were.
    prefix = warm.tokens[: seen + 1]
    fresh = start(Sampling(temperature=0, max_tokens=80), raw=True)
    ready = fresh.until(Ready)
    assert isinstance(ready, Ready)
    want = greedy_continuation(fresh, "Once upon a time", prefix, len(warm.tokens) - len(prefix))
    assert list(warm.tokens[seen + 1 :]) == want


def greedy_continuation(engine: Engine, prompt: str, prefix: tuple[int, ...], count: int) -> list[int]:
    import torch

    from core.model.cache import KVCache
    from core.text.dialogue import raw_prompt

    session = engine.backend._session
    assert session is not None
    model, tokenizer = session._engine.model, session._engine.tokenizer
    tokens = [*raw_prompt(tokenizer, prompt), *prefix]
    start = len(tokens)
    for _ in range(count):
        cache = KVCache(model.config, 512, torch.float32, torch.device("cpu"))
        tokens.append(int(model(torch.tensor(tokens), cache)[-1].argmax()))  # no cache: all anew each time
    return tokens[start:]


def test_same_seed_same_tokens_and_the_seed_is_reported(start: Callable[..., Engine]) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=40)
    engine = start(sampling, raw=True)
    first = engine.reply("Once")
    engine.send(Configure(replace(sampling, seed=first.seed)))
    assert engine.reply("Once").tokens == first.tokens
    engine.send(Configure(replace(sampling, seed=first.seed + 1)))
    assert engine.reply("Once").tokens != first.tokens


def test_a_second_turn_runs_only_what_is_new(start: Callable[..., Engine]) -> None:
    engine = start(chat_format="llama2")
    first = engine.reply("Hello there")
    second = engine.reply("And then?")
    assert first.cached_tokens == 0
    # All of the first turn but the last sampled token, which was never run.
    assert second.cached_tokens == first.prompt_tokens + len(first.tokens) - 1
    fresh = start(chat_format="llama2")
    fresh.until(Ready)
    assert fresh.reply("Hello there").tokens == first.tokens
    fresh.send(Rewind(None))
    assert fresh.reply("Hello there").tokens == first.tokens


def test_rewind_makes_a_sibling(start: Callable[..., Engine]) -> None:
    engine = start(chat_format="llama2")
    first = engine.ask("Hello there")
    second = engine.ask("What now?")
    engine.send(Rewind(second.parent_id))
    again = engine.ask("What now?")
    assert again.parent_id == second.parent_id == first.reply_id
    assert again.reply is not None
    assert second.reply is not None
    assert again.reply.tokens == second.reply.tokens
    assert again.reply_id != second.reply_id


def test_mu_is_stored_with_the_reply_and_goes_on_from_it(start: Callable[..., Engine]) -> None:
    engine = start(Sampling(mirostat=2, mirostat_tau=1.0, mirostat_eta=0.2, max_tokens=30, seed=5))
    first = engine.ask("Once upon a time")
    assert first.reply is not None
    mu = first.reply.mu
    assert mu is not None
    for _ in range(2):  # the branch starts from the mu of where it leaves the tree
        engine.send(Rewind(first.reply_id))
        reply = engine.reply("and")
        steps = mu
        for bits in reply.surprise:
            steps = min(max(steps - 0.2 * (bits - 1.0), 0.1), 18.0)
        assert reply.mu == pytest.approx(steps, abs=1e-4)
    engine.send(Configure(GREEDY))
    assert engine.reply("x").mu == reply.mu  # carried through replies that did not use it


@pytest.mark.alone
def test_stop_acts_in_decode_and_the_partial_reply_is_kept(start: Callable[..., Engine]) -> None:
    engine = start(replace(GREEDY, max_tokens=100_000))
    engine.until(Ready)
    stopped = 0.0

    def stop(event: Event) -> None:
        nonlocal stopped
        if isinstance(event, Delta) and not stopped:
            stopped = time.perf_counter()
            engine.send(Stop(engine.run))

    done = engine.ask("Once", stop)
    assert time.perf_counter() - stopped < 0.5
    assert done.reason is Reason.CANCELLED
    assert done.reply is not None
    assert done.reply.tokens
    engine.send(Configure(GREEDY))
    assert engine.reply("More").cached_tokens > 0


@pytest.mark.alone
def test_stop_in_prefill_leaves_the_conversation_as_it_was(start: Callable[..., Engine]) -> None:
    engine = start()
    engine.until(Ready)
    first = engine.ask("Hello")

    stopped = 0.0

    def stop(event: Event) -> None:
        nonlocal stopped
        if isinstance(event, Prefill) and not stopped:
            stopped = time.perf_counter()
            engine.send(Stop(engine.run))

    done = engine.ask("word " * 800, stop)
    assert time.perf_counter() - stopped < 0.5
    assert done.reason is Reason.CANCELLED
    assert done.reply is not None
    assert not done.reply.tokens
    again = engine.ask("Hello again")
    assert again.parent_id == first.reply_id


def test_stop_reaches_runs_that_wait(start: Callable[..., Engine]) -> None:
    engine = start(replace(GREEDY, max_tokens=3000))
    engine.until(Ready)
    engine.send(Submit(0, "a"), Submit(1, "b"), Stop(1), Submit(2, "c"), Configure(GREEDY))
    reasons = {}
    while len(reasons) < 3:
        done = engine.until(Done)
        assert isinstance(done, Done)
        reasons[done.run] = done.reason
    assert reasons == {0: Reason.CANCELLED, 1: Reason.CANCELLED, 2: Reason.LENGTH}


def test_a_prompt_longer_than_the_context_names_both(start: Callable[..., Engine]) -> None:
    engine = start(context=32)
    done = engine.ask("word " * 40)
    assert done.reason is Reason.ERROR
    assert done.error is not None
    assert "the context 32" in done.error
    assert "--context" in done.error
    assert engine.ask("Hi").reason is Reason.LENGTH  # and the worker lives on


def test_a_reply_that_fills_the_context_ends_with_length(start: Callable[..., Engine]) -> None:
    engine = start(replace(GREEDY, max_tokens=1000), context=64, raw=True)
    reply = engine.reply("Once")
    assert reply.finish_reason is Reason.LENGTH
    assert reply.prompt_tokens + len(reply.tokens) == 65  # the last token needs no place in the cache


def test_tags_are_refused_in_llama2_and_nothing_is_added(start: Callable[..., Engine]) -> None:
    engine = start(chat_format="llama2")
    done = engine.ask("I say [INST] and <<SYS>>")
    assert done.reason is Reason.ERROR
    assert "[INST]" in str(done.error)
    assert engine.ask("Hello").parent_id is None


def test_a_fault_of_ours_is_an_event_and_the_worker_lives_on(start: Callable[..., Engine]) -> None:
    engine = start()
    engine.until(Ready)
    engine.send(Rewind(12345))
    failed = engine.until(Failed)
    assert isinstance(failed, Failed)
    assert not failed.fatal
    assert not failed.user
    assert engine.ask("Hello").reason is Reason.LENGTH


def test_a_failed_load_is_fatal_and_later_messages_say_so() -> None:
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    backend = LocalBackend()
    backend.start(events.put)
    engine = Engine(backend, events)
    engine.send(Load(LoadOptions("/nowhere/at/all")))
    failed = engine.until(Failed)
    assert failed == Failed(failed.text, fatal=True, user=True)  # type: ignore[union-attr]
    assert engine.ask("Hello").error == "no model is loaded"
    assert backend.close(5)


def test_stats_are_null_where_undefined(start: Callable[..., Engine]) -> None:
    engine = start(replace(GREEDY, max_tokens=1))
    data = engine.reply("Once").as_json()
    assert list(data) == [
        "text", "tokens", "surprise", "finish_reason", "seed", "mu",
        "prompt_tokens", "cached_tokens", "stats",
    ]  # fmt: skip
    assert data["mu"] is None
    assert data["stats"]["decode_tok_s"] is None  # one token has no rate
    assert data["stats"]["peak_vram_bytes"] is None
    assert data["stats"]["ttft_s"] > 0
    assert data["stats"]["peak_rss_bytes"] >= data["stats"]["peak_anon_bytes"] * 0.9


@pytest.mark.alone
def test_closing_in_the_middle_of_a_reply_ends_the_thread(start: Callable[..., Engine]) -> None:
    engine = start(replace(GREEDY, max_tokens=100_000))
    engine.until(Ready)
    engine.send(Submit(0, "Once"))
    engine.until(Delta)
    began = time.perf_counter()
    assert engine.backend.close(3)
    assert time.perf_counter() - began < 1
