"""Conversations with a real small model: what is run anew, and what is said, whatever the user changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from core.engine.commands import Configure, OpenChat, Rewind, Stop
from core.engine.conversation import Message
from core.engine.events import Begun, Cut, Delta, Done, Notice, Opened, Ready, Reason
from core.options import Sampling
from core.sizes import format_size
from core.text.dialogue import Turn
from tests.core.engine import GREEDY, Engine

Start = Callable[..., Engine]
WORDS = ("once", "upon", "a", "time", "there", "was", "little", "girl", "who", "had", "big", "red", "ball")


@dataclass
class Node:
    """A message of the model conversation. `start` is the id that the prompt of a reply began with."""

    id: int
    parent: int | None
    role: str
    text: str
    tokens: tuple[int, ...] = ()
    reason: Reason | None = None
    start: int | None = None


class Model:
    """What should happen, by rules written down once more and as plainly as possible."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.real: Any = engine.backend._engine
        self.nodes: dict[int, Node] = {}
        self.head: int | None = None
        self.cache: list[int] = []
        self.system: str | None = None
        self.cuts = 0

    def path(self, at: int | None) -> list[Node]:
        return [] if at is None else [*self.path(self.nodes[at].parent), self.nodes[at]]

    def encode(self, path: list[Node], partial: Node | None) -> list[int]:
        turns: list[Turn] = []
        for node in path:
            if node.role == "user":
                turns.append(Turn(node.text))
            elif node is not partial:
                turns[-1] = Turn(turns[-1].user, node.tokens)
        ids = self.real.format.encode(turns, self.system)
        return [*ids, *(partial.tokens if partial else ())]

    def prompt(self, user: Node, partial: Node | None, room: int) -> tuple[list[int], int | None, int]:
        """The expected prompt, the message it begins with, and how many exchanges leave."""
        path = self.path(user.id) + ([partial] if partial else [])
        replies = [node for node in self.path(self.head) if node.role == "assistant"]
        start = replies[-1].start if replies else None
        begin = next((i for i, node in enumerate(path) if node.id == start), 0)
        capacity = self.real.cache.capacity
        ids = self.encode(path[begin:], partial)
        if len(ids) + room <= capacity:
            return ids, start, 0
        left = 0
        users = [i for i, node in enumerate(path) if node.role == "user" and i > begin]
        for i in users:
            left += 1
            ids, start = self.encode(path[i:], partial), path[i].id
            if len(ids) <= 0.6 * capacity:
                break
        return ids, start, left

    def check(self, done: Done, user: Node, partial: Node | None, max_tokens: int, events: list[Any]) -> None:
        """Compare a run with what should have happened, and take its words over."""
        capacity = self.real.cache.capacity
        prompt, start, left = self.prompt(user, partial, max(1, min(max_tokens, capacity // 8)))
        reply = done.reply
        assert done.error is None
        assert reply is not None
        assert reply.prompt_tokens == len(prompt) - len(partial.tokens if partial else ())
        same = 0
        while same < min(len(self.cache), len(prompt) - 1) and self.cache[same] == prompt[same]:
            same += 1
        assert reply.cached_tokens == same
        begun = next(event for event in events if isinstance(event, Begun))
        assert (begun.start, begun.continues) == (start, partial is not None)
        cuts = [event for event in events if isinstance(event, Cut)]
        assert [(cut.start, cut.exchanges, cut.tokens) for cut in cuts] == (
            [(start, left, len(prompt) - same)] if left else []
        )
        self.cuts += len(cuts)
        deltas = "".join(event.text for event in events if isinstance(event, Delta))
        assert reply.text == (partial.text if partial else "") + deltas
        new = reply.tokens[len(partial.tokens) :] if partial else reply.tokens
        ended = done.reason is Reason.STOP
        self.cache = [*prompt, *(new if ended else new[:-1])]
        assert self.real.cache.tokens == self.cache
        if not reply.tokens:
            assert done.reply_id is None
            return
        assert done.user_id == user.id
        assert done.reply_id is not None
        node = Node(done.reply_id, user.id, "assistant", reply.text, reply.tokens, done.reason, start)
        assert (partial is None) == (node.id not in self.nodes)
        self.nodes[node.id] = node
        self.head = node.id
        assert done.head == node.id


class Player:
    """Does to an engine what a user may do, and checks each step."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.rng = engine, random.Random(seed)
        engine.until(Ready)
        self.model = Model(engine)
        self.max_tokens = 4

    def configure(self) -> None:
        sampling = Sampling(temperature=0, max_tokens=self.max_tokens)
        self.engine.send(Configure(sampling, self.model.system))

    def words(self) -> str:
        return " ".join(self.rng.choices(WORDS, k=self.rng.randint(1, 9)))

    def said(self, role: str) -> list[Node]:
        return [node for node in self.model.nodes.values() if node.role == role]

    def begin(self) -> None:
        self.max_tokens = self.rng.choice((1, 3, 8, 20))
        self.configure()
        self.engine.seen.clear()

    def send(self) -> None:
        self.begin()
        text = self.words()
        done = self.engine.ask(text)
        assert done.user_id is not None
        user = Node(done.user_id, self.model.head, "user", text)
        assert user.id not in self.model.nodes
        self.model.nodes[user.id] = user
        self.model.check(done, user, None, self.max_tokens, self.engine.seen)

    def rewind(self, head: int | None) -> None:
        self.engine.send(Rewind(head))
        self.model.head = head

    def edit(self) -> None:
        if users := self.said("user"):
            self.rewind(self.rng.choice(users).parent)
            self.send()

    def regenerate(self) -> None:
        if users := self.said("user"):
            user = self.rng.choice(users)
            self.rewind(user.id)
            self.begin()
            self.model.check(self.engine.resume(), user, None, self.max_tokens, self.engine.seen)

    def undo(self) -> None:
        path = self.model.path(self.model.head)
        if path:
            self.rewind(path[-2].parent)

    def branch(self) -> None:
        if replies := self.said("assistant"):
            self.rewind(self.rng.choice(replies).id)

    def go_on(self) -> None:
        head = self.model.head
        if head is None:
            return
        reply = self.model.nodes[head]
        self.begin()
        done = self.engine.resume()
        if reply.reason is Reason.STOP:
            assert "come to its end" in str(done.error)
            return
        assert reply.parent is not None
        user = self.model.nodes[reply.parent]
        self.model.check(done, user, reply, self.max_tokens, self.engine.seen)

    def change_system(self) -> None:
        self.model.system = self.rng.choice((None, "", "be kind", "speak like a dog"))
        self.configure()

    def new_chat(self) -> None:
        self.engine.send(OpenChat())
        self.engine.until(Opened)
        self.model.nodes.clear()
        self.model.head = None

    def play(self, steps: int) -> dict[str, int]:
        chances = {"send": 30, "edit": 12, "regenerate": 12, "undo": 8, "branch": 8, "go_on": 20}
        chances |= {"change_system": 3, "new_chat": 1}
        done = dict.fromkeys(chances, 0)
        for _ in range(steps):
            deed = self.rng.choices(list(chances), list(chances.values()))[0]
            getattr(self, deed)()
            done[deed] += 1
        return done


@pytest.mark.parametrize(("format", "seed"), [("llama2", 1), ("none", 2)])
def test_whatever_the_user_does_nothing_is_computed_twice(start: Start, format: str, seed: int) -> None:
    """500 steps at random, each against a model of the tokens that should be in the cache."""
    player = Player(start(chat_format=format, context=192), seed)
    done = player.play(500)
    assert min(done.values()) >= 2
    assert player.model.cuts > 5
    # What it says at the end is what it says when everything is prefilled anew.
    player.send()
    path = player.model.path(player.model.head)
    fresh = start(chat_format=format, context=192)
    fresh.until(Ready)
    fresh.send(Configure(Sampling(temperature=0, max_tokens=player.max_tokens), player.model.system))
    start_id = path[-1].start
    kept = path[next((i for i, node in enumerate(path) if node.id == start_id), 0) : -2]
    own = fresh.backend._engine.info.tokenizer  # type: ignore[union-attr]
    messages = [
        Message(i, i - 1 if i else None, node.role, node.text, node.tokens, tokenizer=own)  # type: ignore[arg-type]
        for i, node in enumerate(kept)
    ]
    fresh.send(OpenChat(tuple(messages), len(kept) - 1 if kept else None))
    again = fresh.ask(path[-2].text).reply
    assert again is not None
    assert (again.cached_tokens, again.tokens) == (0, path[-1].tokens)


def test_a_reply_that_was_cut_off_goes_on_as_if_it_had_not_been(start: Start) -> None:
    engine = start(replace(GREEDY, max_tokens=40), chat_format="llama2")
    whole = engine.reply("Once upon a time")
    assert len(whole.tokens) == 40
    engine.send(Rewind(None), Configure(replace(GREEDY, max_tokens=10)))
    first = engine.ask("Once upon a time")
    for count in (20, 30, 40):
        done = engine.resume()
        assert done.reply is not None
        assert done.reply.tokens == whole.tokens[:count]
        assert done.reply.surprise == pytest.approx(whole.surprise[:count], abs=1e-4)
        assert (done.user_id, done.reply_id, done.parent_id) == (first.user_id, first.reply_id, None)
        assert done.reply.prompt_tokens == whole.prompt_tokens
        assert done.reply.cached_tokens == whole.prompt_tokens + count - 11
        assert done.reply.stats.decode_tok_s is not None
    assert done.reply.text == whole.text


def test_a_stopped_reply_goes_on_and_a_finished_one_does_not(start: Start) -> None:
    engine = start(replace(GREEDY, max_tokens=3000), chat_format="llama2")
    engine.until(Ready)
    assert "nothing to go on with" in str(engine.resume().error)

    def stop(event: object) -> None:
        if isinstance(event, Delta) and len(event.ids) > 1:
            engine.send(Stop(engine.run))

    stopped = engine.ask("Once", stop)
    assert stopped.reason is Reason.CANCELLED
    assert stopped.reply is not None
    engine.send(Configure(replace(GREEDY, max_tokens=5)))
    on = engine.resume()
    assert on.reply is not None
    assert on.reply.tokens[: len(stopped.reply.tokens)] == stopped.reply.tokens
    assert len(on.reply.tokens) == len(stopped.reply.tokens) + 5
    assert (on.reply_id, on.reason) == (stopped.reply_id, Reason.LENGTH)
    messages = (
        Message(0, None, "user", "Hi"),
        Message(1, 0, "assistant", "Yes.", reason=Reason.STOP),
    )
    engine.send(OpenChat(messages, 1))
    assert "has come to its end" in str(engine.resume().error)


def test_nothing_said_leaves_the_head_and_keeps_the_message(start: Start) -> None:
    engine = start(chat_format="llama2")
    first = engine.ask("Hello")
    engine.send(Stop(engine.run + 1))
    waiting = engine.ask("Never begun")
    assert (waiting.user_id, waiting.head) == (None, first.head)

    def stop(event: object) -> None:
        if isinstance(event, Begun):
            engine.send(Stop(engine.run))

    done = engine.ask("word " * 800, stop)
    assert (done.reason, done.reply_id, done.head) == (Reason.CANCELLED, None, first.head)
    assert done.user_id is not None
    engine.send(Rewind(done.user_id))
    answered = engine.resume()  # the message is still there
    assert (answered.user_id, answered.parent_id) == (done.user_id, first.reply_id)
    engine.send(Rewind(done.user_id))
    engine.run += 1
    engine.send(Stop(engine.run))
    engine.run -= 1
    assert engine.resume().head == done.user_id


def test_an_unanswered_message_at_the_head_makes_way(start: Start) -> None:
    engine = start(chat_format="llama2")
    engine.send(OpenChat((Message(0, None, "user", "lost in a crash"),), 0))
    done = engine.ask("Hello")
    assert (done.parent_id, done.user_id) == (None, 1)


def test_replies_of_another_vocabulary_are_encoded_anew(start: Start) -> None:
    engine = start(chat_format="llama2")
    first = engine.ask("Hello")
    assert first.reply is not None
    text = first.reply.text
    foreign = (
        Message(0, None, "user", "Hello"),
        Message(1, 0, "assistant", text, (1, 2, 3), (0.5, 0.5, 0.5), tokenizer="other", reason=Reason.LENGTH),
    )
    engine.seen.clear()
    engine.send(OpenChat(foreign, 1, chat=12))
    opened = engine.until(Opened)
    assert isinstance(opened, Opened)
    assert (opened.chat, opened.head, opened.messages[0]) == (12, 1, foreign[0])
    assert (opened.messages[1].text, opened.messages[1].reason) == (text, Reason.LENGTH)
    on = engine.resume().reply
    notes = [event for event in engine.seen if isinstance(event, Notice)]
    assert len(notes) == 1
    assert "1 reply of this chat" in notes[0].text
    real: Any = engine.backend._engine
    encoded = tuple(real.tokenizer.encode(text))
    assert on is not None
    assert on.tokens[: len(encoded)] == encoded
    assert on.text.startswith(text)


def test_when_the_next_turn_will_not_fit_it_is_said_before(start: Start) -> None:
    engine = start(replace(GREEDY, max_tokens=30), chat_format="llama2", context=256)
    ahead = None
    for _ in range(20):
        done = engine.ask("Once upon a time there was a dog")
        cuts = [event for event in engine.seen if isinstance(event, Cut)]
        engine.seen.clear()
        if cuts:
            break
        ahead = done.cut
    assert ahead is not None
    assert (cuts[0].start, cuts[0].exchanges) == (ahead.start, ahead.exchanges)
    assert cuts[0].tokens == pytest.approx(ahead.tokens, abs=20)
    assert cuts[0].seconds is not None
    assert done.reply is not None
    assert done.reply.prompt_tokens <= 0.6 * 256
    assert done.cut is None


def test_a_prompt_of_more_than_the_context_is_refused_with_its_count(start: Start) -> None:
    engine = start(replace(GREEDY, max_tokens=10), chat_format="llama2", context=128)
    first = engine.reply("Hello there")
    done = engine.ask("word " * 200)
    real: Any = engine.backend._engine
    alone = len(real.format.encode([Turn("word " * 200)], None))
    assert f"{alone} tokens do not fit in the context 128" in str(done.error)
    # 5 layers, keys and values of 4 heads of 8, in 4 bytes
    larger = format_size((alone + 512) * 1280)
    assert f"--context {alone + 512}, whose KV cache takes {larger} instead of 164 kB" in str(done.error)
    again = engine.reply("Hi")  # and nothing was changed by it
    assert again.cached_tokens == first.prompt_tokens + len(first.tokens) - 1


def test_a_fault_in_a_reply_keeps_what_was_said(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start(replace(GREEDY, max_tokens=1000), chat_format="llama2")
    engine.until(Ready)
    real: Any = engine.backend._engine
    run, passes = real.runner.run, []

    def failing(*arguments: Any) -> Any:
        passes.append(1)
        if len(passes) == 9:
            raise RuntimeError("the model fell over")
        return run(*arguments)

    monkeypatch.setattr(real.runner, "run", failing)
    done = engine.ask("Once")
    assert (done.reason, done.error) == (Reason.ERROR, "RuntimeError: the model fell over")
    assert done.reply is not None
    assert len(done.reply.tokens) >= 7
    engine.send(Configure(replace(GREEDY, max_tokens=5)))
    on = engine.resume()
    assert on.reply is not None
    assert on.reply.tokens[: len(done.reply.tokens)] == done.reply.tokens
