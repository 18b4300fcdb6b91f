"""A model that is unloaded gives its memory back, and the next message loads it again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest

from core.engine.commands import (
    Apply,
    Configure,
    Load,
    OpenChat,
    ReadCache,
    Resume,
    Rewind,
    Stop,
    Submit,
    Unload,
)
from core.engine.conversation import Message
from core.engine.events import (
    CacheRead,
    Done,
    Failed,
    Loading,
    Moved,
    Notice,
    Opened,
    Placed,
    Ready,
    Reason,
    Unloaded,
)
from core.options import LoadOptions
from core.weights.placement import plan as make_plan
from core.weights.plan import Choice
from tests.core.engine import GREEDY, Engine

Start = Callable[..., Engine]
SHORT = replace(GREEDY, max_tokens=8)


def unload(engine: Engine) -> None:
    engine.send(Unload())
    engine.until(Unloaded)


def test_an_unloaded_engine_is_gone_also_where_the_interface_froze_it(start: Start) -> None:
    engine = start(SHORT, chat_format="llama2")
    engine.until(Ready)
    engine.ask("Once")
    loaded = engine.backend._engine
    assert loaded is not None
    gone = [weakref.ref(part) for part in (loaded.model, loaded.placement, loaded.runner, loaded.cache)]
    del loaded
    gc.freeze()  # as the chat does when the model is ready
    unload(engine)
    assert [part() for part in gone] == [None] * 4
    assert engine.backend._session is None


def test_the_next_message_loads_it_again_and_goes_on(start: Start) -> None:
    apart, whole = start(SHORT, chat_format="llama2"), start(SHORT, chat_format="llama2")
    for engine in (apart, whole):
        engine.reply("Once upon a time")
    unload(apart)
    kinds: list[type] = []
    reply = apart.ask("And then?", lambda event: kinds.append(type(event))).reply
    expected = whole.reply("And then?")
    assert kinds[0] is Notice
    assert kinds.index(Notice) < kinds.index(Loading) < kinds.index(Placed) < kinds.index(Ready)
    assert reply is not None
    assert (reply.tokens, reply.prompt_tokens) == (expected.tokens, expected.prompt_tokens)
    assert reply.cached_tokens == 0
    assert expected.cached_tokens > 0


def test_what_is_changed_meanwhile_holds_afterwards(start: Start) -> None:
    engine = start(SHORT, chat_format="llama2")
    first = engine.ask("Once")
    second = engine.ask("Twice")
    unload(engine)
    engine.send(Rewind(first.head))
    assert engine.until(Moved) == Moved(first.head)
    engine.send(Rewind(second.user_id), Resume(10))  # another answer to the second message
    done = engine.until(Done)
    assert isinstance(done, Done)
    assert (done.user_id, done.parent_id) == (second.user_id, first.head)
    assert done.reply_id not in (second.reply_id, None)


def test_another_chat_is_opened_without_loading_anything(start: Start) -> None:
    engine = start(SHORT, chat_format="llama2")
    engine.until(Ready)
    unload(engine)
    saved = (
        Message(1, None, "user", "Hello"),
        Message(2, 1, "assistant", "Hi there", (5, 6), (1.0, 1.0), None, Reason.STOP, None, "another"),
    )
    engine.send(OpenChat(saved, 2, 7))
    assert engine.until(Opened) == Opened(7, 2, saved)
    said: list[str] = []
    done = engine.ask("More", lambda event: said.append(event.text) if isinstance(event, Notice) else None)
    assert done.parent_id == 2
    assert any("another vocabulary" in text for text in said)


def test_a_load_that_fails_this_time_is_tried_again(start: Start, tmp_path: object) -> None:
    engine = start(SHORT)
    engine.until(Ready)
    unload(engine)
    load = engine.backend._asleep.load  # type: ignore[union-attr]
    engine.backend._asleep.load = Load(LoadOptions(f"{tmp_path}/moved", device="cpu"))  # type: ignore[union-attr]
    done = engine.ask("Once")
    assert done.reason is Reason.ERROR
    assert "no such file or folder" in str(done.error)
    assert any(isinstance(event, Unloaded) for event in engine.seen[-4:])
    engine.backend._asleep.load = load  # type: ignore[union-attr]
    assert engine.ask("Once").reason is Reason.LENGTH


def test_a_stop_while_it_is_loaded_again_ends_the_run(start: Start) -> None:
    engine = start(SHORT)
    engine.until(Ready)
    unload(engine)
    engine.send(Submit(5, "Once"))
    engine.until(Notice)
    engine.send(Stop(5))
    done = engine.until(Done)
    assert isinstance(done, Done)
    assert done.reason is Reason.CANCELLED
    engine.run = 5
    assert engine.ask("Once").reason is Reason.LENGTH


def test_the_weights_go_back_to_where_they_were(start: Start) -> None:
    engine = start(SHORT, device="sim", sim_link=1000.0)
    placed = engine.until(Placed)
    assert isinstance(placed, Placed)
    engine.until(Ready)
    plan = placed.plan
    wanted = make_plan(plan.needs, plan.budget, Choice(offload=True, keep=("wq",)), plan.rates)
    engine.send(Apply(wanted))
    engine.until(Placed)
    unload(engine)
    engine.ask("Once")
    again = [event for event in engine.seen if isinstance(event, Placed)][-1]
    assert again.plan.places == wanted.places
    assert again.plan.streamed_per_token == wanted.streamed_per_token > 0


def test_unloading_nothing_says_so(start: Start) -> None:
    engine = start(SHORT)
    engine.until(Ready)
    unload(engine)
    for command in (Unload(), ReadCache()):
        engine.send(command)
        failed = engine.until(Failed)
        assert isinstance(failed, Failed)
        assert "no model is loaded" in failed.text
        assert not failed.fatal


@pytest.mark.parametrize("format", ["llama2", "none"])
def test_the_cache_says_what_the_next_message_runs_anew(start: Start, format: str) -> None:
    engine = start(SHORT, chat_format=format)
    engine.send(Configure(SHORT))
    engine.ask("Once upon a time")
    engine.send(ReadCache())
    read = engine.until(CacheRead)
    assert isinstance(read, CacheRead)
    cache = engine.backend._engine.cache  # type: ignore[union-attr]
    assert (read.tokens, read.capacity) == (cache.length, cache.capacity)
    layers = [cache.layer(i, 0) for i in range(len(cache._layers))]
    assert read.token_bytes * cache.capacity == sum(kv.keys.nbytes + kv.values.nbytes for kv in layers)
    reply = engine.ask("Go on.").reply
    assert reply is not None
    own = len(engine.backend._engine.tokenizer.encode("Go on.", continues=True))  # type: ignore[union-attr]
    assert read.anew == reply.prompt_tokens - reply.cached_tokens - own
