"""One mode, measured on the engine as every other mode runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from core.bench.ceilings import device_copy, ram_read
from core.bench.figures import Ceilings, Measured, ceiling, token_bytes
from core.bench.job import Job
from core.bench.modes import Mode
from core.checkpoint import Checkpoint, blocks_of, find, open_checkpoint
from core.engine.devices import choose_device, peak_vram
from core.engine.events import Event, Loading, Notice, Placed
from core.engine.generate import generate
from core.engine.load import Engine, load
from core.errors import UserError
from core.options import LoadOptions, Sampling
from core.sizes import format_size
from core.weights.placement import plan as make_plan
from core.weights.plan import Plan
from core.weights.survey import choice_of, known_rates, needs_asked, survey

PROMPT, REPLY = 512, 128
"""Tokens, where the context has room for them."""
_LONGEST, _LEAST_REPLY = 60.0, 16  # seconds of a reply, if it has so many tokens by then
_WARM_UP = 4  # tokens of a first prompt and reply that do not count
_STEP = 16_411  # a prime: the ids of a prompt are spread over the vocabulary

Stage = Callable[..., None]
Flag = Callable[[], bool]


@dataclass(slots=True)
class _Reply:
    """A prompt and its reply: when what happened, in seconds of one clock, and the bytes arrived by then."""

    prompt: int
    started: float
    first: float = 0.0
    last: float = 0.0
    arrived_first: int = 0
    arrived: int = 0
    tokens: int = 0

    @property
    def decode_tok_s(self) -> float | None:
        """Tokens per second after the first one."""
        return (self.tokens - 1) / (self.last - self.first) if self.tokens > 1 else None

    @property
    def bytes_per_token(self) -> int | None:
        """Bytes that arrived for each token after the first one."""
        return (self.arrived - self.arrived_first) // (self.tokens - 1) if self.tokens > 1 else None


def lengths(context: int) -> tuple[int, int]:
    """Tokens of the prompt and of the reply in a context: 512 and 128, or four fifths and the rest."""
    prompt = min(PROMPT, max(1, context * 4 // 5))
    return prompt, min(REPLY, context - prompt)


def prompt_ids(length: int, vocabulary: int, first: int = 1) -> list[int]:
    """Fixed ids of a prompt, spread over the vocabulary."""
    return [(first + i * _STEP) % vocabulary for i in range(length)]


def measure(job: Job, stage: Stage, cancelled: Flag) -> Measured:
    """Load, run, and sum up. Raises UserError where the mode cannot run here, and Cancelled."""
    device = choose_device(job.options.device)
    options, vocabulary = _settled(job)
    stage("reading RAM")
    before = ram_read(job.read_bytes)
    notes: list[str] = []
    engine = load(options, _listener(stage, notes), cancelled)
    try:
        engine.runner.before = engine.placement.look
        reply = _run(engine, vocabulary, stage, cancelled)
        engine.peak.look(force=True)
        vram = peak_vram(engine.machine)
    finally:
        engine.placement.close()
    stage("reading RAM again")
    plan = engine.placement.plan
    if plan.needs.quant != options.quant:
        raise ValueError(f"weights in {plan.needs.quant} where {options.quant} was asked for")
    ceilings = _ceilings(plan, before, ram_read(job.read_bytes), device)
    return _summary(job, engine, reply, vram, ceilings, [*notes, *_notes(job, engine, reply)])


def _summary(
    job: Job, engine: Engine, reply: _Reply, vram: int | None, ceilings: Ceilings, notes: list[str]
) -> Measured:
    plan, info = engine.placement.plan, engine.info
    ttft, decode = reply.first - reply.started, reply.decode_tok_s
    needed = token_bytes(plan)
    most, limit = ceiling(needed, ceilings, simulated=plan.budget.simulated)
    return Measured(
        mode=Mode(job.name, job.options, job.partly).label(plan.needs.product, whole=_whole(plan)),
        model=info.name,
        dtype=plan.needs.dtype,
        quant=plan.needs.quant,
        kv=plan.needs.kv_type,
        context=plan.needs.context,
        load_s=info.load_s,
        peak_anon_bytes=engine.peak.anon,
        peak_vram_bytes=vram,
        prompt_tokens=reply.prompt,
        ttft_s=ttft,
        prefill_tok_s=reply.prompt / ttft,
        decode_tokens=reply.tokens,
        decode_tok_s=decode,
        bytes_per_token=needed.read,
        streamed_bytes_per_token=reply.bytes_per_token if engine.placement.streams else None,
        ceilings=ceilings,
        ceiling_tok_s=most,
        limit=limit,
        share_of_ceiling=None if decode is None or most is None else decode / most,
        kernels=dict(info.kernels) or None,
        note="; ".join(dict.fromkeys(notes)) or None,
    )


def _listener(stage: Stage, notes: list[str]) -> Callable[[Event], None]:
    """What hears the engine: its progress is a stage, and what it warns of a note."""

    def emit(event: Event) -> None:
        match event:
            case Loading() as loading:
                stage(_progress(loading), often=True)
            case Notice(text, "warning"):
                notes.append(text)
            case Placed(reason=str(reason)):
                notes.append(reason)

    return emit


def _notes(job: Job, engine: Engine, reply: _Reply) -> Iterator[str]:
    """What must be known to read the figures."""
    plan, unpinned = engine.placement.plan, engine.placement.unpinned
    if reply.tokens < lengths(plan.needs.context)[1]:
        yield f"{_LONGEST:.0f} s of decoding gave {reply.tokens} tokens"
    if unpinned:
        yield f"{format_size(unpinned)} could not be pinned, which slows their copies"
    if job.partly is not None and not _whole(plan):
        moved, on_cpu = plan.streamed_per_token, plan.ram_cpu
        parts = [f"{format_size(moved)} move for a token"] * bool(moved)
        parts += [f"{format_size(on_cpu)} are computed on the CPU"] * bool(on_cpu)
        yield f"the device does not hold all weights: {', '.join(parts)}"


def _settled(job: Job) -> tuple[LoadOptions, int]:
    """The options with a context of the bench's size, and the vocabulary; UserError for what cannot be.

    Nothing is loaded, and nothing is packed for the disk unless that was allowed.
    """
    options = job.options
    with closing(_open(options)) as checkpoint:
        config = checkpoint.config
        if options.context is None:
            options = replace(options, context=min(config.max_context, job.most_context))
        plan = _plan(checkpoint, options)
    if plan.disk and not job.disk:
        raise UserError(
            f"{format_size(plan.disk)} of the weights do not fit in RAM and would be read from the disk; "
            "--ram SIZE measures that"
        )
    return options, config.vocab_size


def _open(options: LoadOptions) -> Checkpoint:
    if options.synthetic is not None:
        from core.checkpoint.synthetic import SyntheticCheckpoint

        return SyntheticCheckpoint(options.synthetic)
    return open_checkpoint(find(options.checkpoint, options.tokenizer))


def _plan(checkpoint: Checkpoint, options: LoadOptions) -> Plan:
    budget = survey(options)
    stored = str(checkpoint.stored_dtype).removeprefix("torch.")
    needs = needs_asked(checkpoint.config, stored, options, budget.device, blocks_of(checkpoint))
    return make_plan(needs, budget, choice_of(options), known_rates(budget, needs.product, options))


def _whole(plan: Plan) -> bool:
    """Whether a device holds every weight that is multiplied with."""
    return plan.vram is not None and plan.ram_streamed == plan.ram_cpu == plan.disk == 0


def _ceilings(plan: Plan, before: float | None, after: float | None, device: str) -> Ceilings:
    """The rates beside a run: its own process measured them, right before and right after."""
    read = max((rate for rate in (before, after) if rate is not None), default=None)
    link, disk = plan.rates.link, plan.rates.disk
    copy = None
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        copy = device_copy(torch.device(device))
    return Ceilings(
        ram_read_gb_s=read,
        link_gb_s=link.gb_s if plan.vram is not None and link.source == "measured" else None,
        device_gb_s=copy,
        disk_gb_s=disk.gb_s if plan.disk and disk.source == "measured" else None,
    )


def _run(engine: Engine, vocabulary: int, stage: Stage, cancelled: Flag) -> _Reply:
    """The prompt and the reply, after a short one that warms up."""
    prompt, reply = lengths(engine.cache.capacity)
    stage("warming up")
    short = min(_WARM_UP, prompt)
    _reply(engine, prompt_ids(short, vocabulary, first=2), min(_WARM_UP, reply), _quiet, cancelled)
    return _reply(engine, prompt_ids(prompt, vocabulary), reply, stage, cancelled)


def _reply(engine: Engine, ids: list[int], count: int, stage: Stage, cancelled: Flag) -> _Reply:
    """At most `count` greedy tokens after a prompt. No id ends a reply: what is measured is the speed."""
    sampler = engine.samplers(lambda: Sampling(temperature=0.0), 0)
    reply = _Reply(len(ids), time.perf_counter())

    def prefill(done: int) -> None:
        stage(f"prompt, {done} of {len(ids)} tokens", often=True)

    with closing(generate(engine.runner, ids, sampler, cancelled=cancelled, on_prefill=prefill)) as tokens:
        for _ in tokens:
            reply.last, reply.arrived = time.perf_counter(), engine.placement.arrived
            reply.tokens += 1
            engine.peak.look()
            if reply.tokens == 1:
                reply.first, reply.arrived_first = reply.last, reply.arrived
            enough = reply.last - reply.first > _LONGEST and reply.tokens >= _LEAST_REPLY
            if reply.tokens >= count or enough:
                break
            speed = "" if reply.decode_tok_s is None else f", {reply.decode_tok_s:.3g} tok/s"
            stage(f"reply, {reply.tokens} of {count} tokens{speed}", often=True)
    return reply


def _quiet(text: str, *, often: bool = False) -> None:
    """What is not worth telling."""


def _progress(loading: Loading) -> str:
    if not loading.total_bytes:
        return loading.stage
    return f"{loading.stage}, {100 * loading.done_bytes // loading.total_bytes} %"
