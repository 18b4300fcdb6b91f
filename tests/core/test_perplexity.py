"""Perplexity against a naive computation, a reference figure, and the encoding of whole texts."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.engine import perplexity
from core.engine.commands import Configure, Load, Score, Stop, Submit
from core.engine.events import Done, Event, Failed, ModelInfo, Perplexity, Ready, Scored, Scoring
from core.engine.load import Engine
from core.engine.perplexity import first_tokens, score
from core.engine.runner import Runner
from core.engine.samplers import Samplers
from core.engine.worker import LocalBackend
from core.errors import UserError
from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.transformer import Transformer
from core.monitor import PeakMemory
from core.options import LoadOptions, Sampling
from core.text.files import open_tokenizer
from core.text.tokenizer import Tokenizer
from tests.core.test_model import build, config, naive

CPU = torch.device("cpu")


class Ids:
    """A tokenizer whose texts are ids joined by blanks."""

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]


INFO = ModelInfo(
    name="random", parameters=0, weight_bytes=0, dtype="float32", device="cpu", chat_format="raw",
    context=16, layers=3, load_s=0.0,
)  # fmt: skip


def engine(context: int, model: Transformer | None = None) -> Engine:
    """A random model of 101 tokens."""
    model = model or build(config(4, 2))
    cache = KVCache(model.config, context, torch.float32, CPU)
    samplers = Samplers(101, CPU)
    return Engine(Runner(model, cache, 1), None, Ids(), None, frozenset(), INFO, PeakMemory(), None, samplers)  # type: ignore[arg-type]


def measure(engine: Engine, ids: list[int], tokens: int | None = None, rows: int | None = None) -> Perplexity:
    command = Score(0, " ".join(map(str, ids)), tokens, rows)
    result = score(engine, command, lambda event: None, lambda: False).result
    assert result is not None
    return result


def random_ids(count: int) -> list[int]:
    return [int(i) for i in torch.randint(0, 101, (count,), generator=torch.Generator().manual_seed(count))]


def oracle(weights: dict[str, torch.Tensor], config: ModelConfig, ids: list[int], context: int) -> float:
    """Perplexity in float64 without a cache, a window at a time, by the definition."""
    losses = []
    for start in range(0, len(ids), context):
        window = ids[start : start + context]
        logits = naive(weights, config, window)
        for position in range(1, len(window)):
            losses.append(-torch.log_softmax(logits[position - 1], 0)[window[position]].item())
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("rows", [None, 1, 7, 100])
@pytest.mark.parametrize(
    ("count", "context", "scored", "windows"),
    [(40, 16, 37, 3), (33, 16, 30, 2), (16, 16, 15, 1), (5, 16, 4, 1), (2, 16, 1, 1)],
    ids=["a shorter last window", "one token left over", "one window", "less than a window", "two tokens"],
)
def test_agrees_with_the_oracle(
    count: int, context: int, scored: int, windows: int, rows: int | None
) -> None:
    model, ids = build(config(4, 2)), random_ids(count)
    got = measure(engine(context, model), ids, rows=rows)
    want = oracle(dict(model.state_dict()), model.config, ids, context)
    assert got.perplexity == pytest.approx(want, rel=1e-5)
    assert (got.tokens, got.windows) == (scored, windows)
    assert got.tok_s > 0


def test_rows_are_the_tokens_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    hidden = Transformer.hidden

    def counting(self: Transformer, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        calls.append(len(tokens))
        return hidden(self, tokens, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Transformer, "hidden", counting)
    for rows, want in ((None, [15, 15, 3]), (1, [1] * 33), (6, [6, 6, 3, 6, 6, 3, 3]), (99, [15, 15, 3])):
        measure(engine(16), random_ids(36), rows=rows)
        assert calls == want  # the last token of a window predicts nothing that is scored
        calls.clear()


def test_only_the_first_tokens_are_scored() -> None:
    ids = random_ids(40)
    cut, whole = measure(engine(16), ids, tokens=23), measure(engine(16), ids[:23])
    assert (cut.perplexity, cut.tokens, cut.windows) == (whole.perplexity, 21, 2)


def test_a_window_that_begins_like_the_last_one_is_run_whole() -> None:
    ids = random_ids(16)
    once, twice = measure(engine(16), ids), measure(engine(16), ids * 2)
    assert twice.perplexity == once.perplexity
    assert (twice.tokens, twice.windows) == (30, 2)


def test_no_knowledge_is_a_perplexity_of_the_vocabulary_size() -> None:
    model = build(config(4, 2))
    model.output.weight.zero_()
    assert measure(engine(16, model), random_ids(40)).perplexity == pytest.approx(101, rel=1e-6)


def test_progress_counts_the_units_of_the_running_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """6 units and the head: a unit brings the 15 tokens of a window a seventh of their way."""
    monkeypatch.setattr(perplexity, "_PROGRESS_SECONDS", 0)
    told: list[Event] = []
    score(engine(16), Score(3, " ".join(map(str, random_ids(32)))), told.append, lambda: False)
    scoring = [event for event in told if isinstance(event, Scoring)]
    assert told == scoring
    assert [event.done for event in scoring] == [2, 4, 6, 8, 10, 12, 15, 17, 19, 21, 23, 25, 27, 30]
    assert {(event.run, event.total) for event in scoring} == {(3, 30)}
    assert [event.perplexity is None for event in scoring] == [True] * 6 + [False] * 8
    assert scoring[6].perplexity == pytest.approx(measure(engine(16), random_ids(32)[:16]).perplexity)


def test_the_head_sees_no_more_rows_than_its_logits_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(engine(16), random_ids(40)).perplexity
    sizes: list[int] = []
    head = Transformer.head

    def counting(self: Transformer, states: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.append(len(states))
        return head(self, states, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Transformer, "head", counting)
    monkeypatch.setattr(perplexity, "_LOGITS_BYTES", 4 * 4 * 101)
    assert measure(engine(16), random_ids(40)).perplexity == pytest.approx(whole, rel=1e-6)
    assert sizes == [4, 4, 4, 3, 4, 4, 4, 3, 4, 3]


@pytest.mark.parametrize("ids", [[], [5]])
def test_a_text_too_short_is_refused(ids: list[int]) -> None:
    with pytest.raises(UserError, match="fewer than 2 tokens"):
        measure(engine(16), ids)


@pytest.mark.parametrize("weight", [math.nan, math.inf, 1e30])
def test_logits_that_are_no_numbers_are_refused(weight: float) -> None:
    model = build(config(4, 2))
    model.output.weight[7] = weight
    with pytest.raises(UserError, match="the logits in float32 are no finite numbers"):
        measure(engine(16, model), random_ids(40))


def test_a_call_too_large_for_the_device_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(*arguments: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Transformer, "hidden", hidden)
    with pytest.raises(UserError, match=r"^9 tokens in one call do not fit in the memory of cpu; .*--rows"):
        measure(engine(16), random_ids(40), rows=9)


@pytest.fixture(scope="module")
def wikitext(shared_data: Path) -> str:
    return (shared_data / "text" / "wikitext2.test.raw").read_text(encoding="utf-8")[:100_000]


# --- a text's first tokens --------------------------------------------------------------------------

PROSE = st.lists(
    st.sampled_from(
        [" ", "  ", "\n", "\n\n", " \n ", "\t", "\r\n", "a", "b1", "12345", "word", "Ünïcode", "e\u0301",
         "\u2581", "...", "!!\n", "_", "'s", "日本語", "😀", "²", "\u00a0", "----"]
    ),
    max_size=80,
).map("".join)  # fmt: skip


@pytest.fixture(scope="module", params=["llama2", "llama3", "demo"])
def tokenizer(request: pytest.FixtureRequest, shared_data: Path) -> Tokenizer:
    """SentencePiece, Llama 3's ranks, and byte-level BPE."""
    if request.param == "demo":
        return request.getfixturevalue("demo_tokenizer")
    return open_tokenizer(shared_data / request.param / "tokenizer.model")


@given(PROSE)
def test_a_text_cut_behind_a_word_has_the_same_tokens_up_to_there(tokenizer: Tokenizer, text: str) -> None:
    whole = tokenizer.encode(text)
    for cut in perplexity._WORD_END.finditer(text):
        ids = tokenizer.encode(text[: cut.end()])
        assert ids == whole[: len(ids)]


@given(PROSE, st.integers(1, 12))
def test_the_first_tokens_are_those_of_the_whole_text(tokenizer: Tokenizer, text: str, count: int) -> None:
    assert first_tokens(tokenizer, text, count) == tokenizer.encode(text)[:count]


class Watching:
    """Counts the characters that another tokenizer encodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.characters = tokenizer, 0

    def encode(self, text: str) -> list[int]:
        self.characters += len(text)
        return self._tokenizer.encode(text)


def test_the_first_tokens_need_little_of_a_long_text(tokenizer: Tokenizer, wikitext: str) -> None:
    want = tokenizer.encode(wikitext)
    for count in (2, 100, 512, 5000):
        watching = Watching(tokenizer)
        assert first_tokens(watching, wikitext, count) == want[:count]  # type: ignore[arg-type]
        assert watching.characters < 9 * count + 100
    assert first_tokens(tokenizer, wikitext, 10**6) == want


def test_a_text_of_long_tokens_is_encoded_in_growing_parts(tokenizer: Tokenizer) -> None:
    text = " international" * 2000  # a token of 14 characters
    watching = Watching(tokenizer)
    assert first_tokens(watching, text, 500) == tokenizer.encode(text)[:500]  # type: ignore[arg-type]
    assert 500 * 14 <= watching.characters < len(text)


# --- trained models, on the engine's thread ---------------------------------------------------------


class Worker:
    """A backend with a model, and its events."""

    def __init__(self, path: Path, context: int | None = None) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.backend = LocalBackend()
        self.backend.start(self._events.put)
        self.backend.submit(
            Load(LoadOptions(str(path), dtype="float32", device="cpu", context=context, raw=True))
        )

    def until(self, kind: type[Event], seen: Callable[[Event], None] = lambda event: None) -> Event:
        while True:
            event = self._events.get(timeout=100)
            seen(event)
            if isinstance(event, kind):
                return event

    def score(self, command: Score, seen: Callable[[Event], None] = lambda event: None) -> Scored:
        self.backend.submit(command)
        scored = self.until(Scored, seen)
        assert isinstance(scored, Scored)
        return scored


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def begin(path: Path, context: int | None = None) -> Worker:
        started.append(Worker(path, context))
        return started[-1]

    yield begin
    assert all(worker.backend.close(5) for worker in started)


def test_a_trained_model_against_the_oracle(start: Callable[..., Worker], stories: Path) -> None:
    text = (stories / "golden_greedy200.txt").read_text()
    worker = start(stories, context=16)
    results = [worker.score(Score(run, text, 40, rows)).result for run, rows in enumerate((None, 1, 7))]
    engine = worker.backend._engine
    assert engine is not None
    weights = torch.load(stories / "consolidated.00.pth", weights_only=True)
    ids = open_tokenizer(stories / "tokenizer.model").encode(text)[:40]
    want = oracle(weights, engine.model.config, ids, 16)
    assert want < 4  # the model's own greedy text
    for result in results:
        assert result is not None
        assert result.perplexity == pytest.approx(want, rel=1e-5)
        assert (result.tokens, result.windows) == (37, 3)


def test_the_demo_model_on_wikitext(start: Callable[..., Worker], demo_path: Path, wikitext: str) -> None:
    """The reference is these weights and these ids in another implementation, in float32: 20.98."""
    worker = start(demo_path)
    result = worker.score(Score(0, wikitext, 512)).result
    assert result is not None
    assert result.perplexity == pytest.approx(20.98, abs=0.05)
    assert (result.tokens, result.windows) == (511, 1)
    # Tokens one at a time take half a minute for 512.
    prefill, decode = (worker.score(Score(1, wikitext, 64, rows)).result for rows in (None, 1))
    assert prefill is not None
    assert decode is not None
    assert decode.perplexity == pytest.approx(prefill.perplexity, rel=1e-4)


def test_progress_grows_to_the_whole_and_is_told_at_most_four_times_a_second(
    start: Callable[..., Worker], stories: Path, wikitext: str
) -> None:
    worker = start(stories, context=2000)
    worker.until(Ready)
    told: list[Scoring] = []
    began = time.perf_counter()
    result = worker.score(
        Score(0, wikitext, 4000), lambda event: told.append(event) if isinstance(event, Scoring) else None
    ).result
    took = time.perf_counter() - began
    assert result is not None
    assert 1 <= len(told) <= 4 * took
    done = [scoring.done for scoring in told]
    assert done == sorted(done)
    assert all(0 < scoring.done <= scoring.total == result.tokens for scoring in told)


@pytest.mark.alone
def test_a_stop_acts_within_a_window_and_a_chat_goes_on(
    start: Callable[..., Worker], stories: Path, wikitext: str
) -> None:
    worker, fresh = start(stories), start(stories)
    worker.until(Ready)
    stopped = 0.0

    def stop(event: Event) -> None:
        nonlocal stopped
        if isinstance(event, Scoring) and not stopped:
            stopped = time.perf_counter()
            worker.backend.submit(Stop(0))

    assert worker.score(Score(0, wikitext, rows=256), stop) == Scored(0)
    assert 0 < time.perf_counter() - stopped < 0.5
    assert worker.score(Score(0, wikitext)) == Scored(0)  # stopped before it began
    replies = []
    for backend in (worker, fresh):
        backend.backend.submit(Configure(Sampling(temperature=0, max_tokens=20)))
        backend.backend.submit(Submit(1, "Once upon a time"))
        done = backend.until(Done)
        assert isinstance(done, Done)
        assert done.reply is not None
        replies.append(done.reply.tokens)
    assert replies[0] == replies[1]


def test_mistakes_and_faults_end_a_score(
    start: Callable[..., Worker], stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start(stories)
    events: list[Event] = []
    assert "fewer than 2 tokens" in str(worker.score(Score(0, ""), events.append).error)
    assert not any(isinstance(event, Failed) for event in events)

    def broken(self: Transformer, hidden: torch.Tensor, *rest: object) -> torch.Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Transformer, "head", broken)
    fault = worker.score(Score(1, "Once upon a time"), events.append)
    assert fault.error == "RuntimeError: a bug"
    assert events[-2:] == [Failed(fault.error, user=False), fault]
    absent = start(stories / "absent")
    assert absent.score(Score(0, "a text")).error == "no model is loaded"
