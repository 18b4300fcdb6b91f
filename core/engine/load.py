"""From what the user chose to a model that answers: where checkpoint, placement and model meet."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.checkpoint import Checkpoint, blocks_of, find, open_checkpoint
from core.checkpoint.reader import Reader
from core.engine.bind import Binder, Compute, norm_views
from core.engine.compute import compute_of
from core.engine.decode_graph import DecodeGraph
from core.engine.devices import budget_of, choose_device, machine_of, use_cores
from core.engine.events import Loading, ModelInfo, Notice
from core.engine.load_meter import LoadMeter
from core.engine.measure import rates_of, with_disk_rate
from core.engine.packing import find_or_pack
from core.engine.placing import Machine, Placement, summary
from core.engine.runner import Runner
from core.engine.samplers import Samplers
from core.errors import Cancelled, UserError
from core.model.cache import KVCache
from core.model.transformer import Transformer
from core.monitor import PeakMemory
from core.options import LoadOptions
from core.text.dialogue import ChatFormat, choose_format
from core.text.fingerprint import fingerprint
from core.text.formats.base import ends
from core.text.tokenizer import Tokenizer
from core.weights.kernel_cache import kernel_words
from core.weights.packed import PackedFile
from core.weights.placement import plan as make_plan
from core.weights.placement import smaller
from core.weights.plan import Place, Plan
from core.weights.survey import choice_of, needs_asked

if TYPE_CHECKING:
    from core.engine.backend import Sink


@dataclass(slots=True)
class Engine:
    """Everything a session runs on."""

    runner: Runner
    placement: Placement
    tokenizer: Tokenizer
    format: ChatFormat | None  # None completes raw text
    stop_ids: frozenset[int]
    info: ModelInfo
    peak: PeakMemory
    machine: Machine
    samplers: Samplers

    @property
    def model(self) -> Transformer:
        """The model itself."""
        return self.runner.model

    @property
    def cache(self) -> KVCache:
        """Its KV cache."""
        return self.runner.cache


def load(options: LoadOptions, emit: Sink, cancelled: Callable[[], bool]) -> Engine:
    """Bring a checkpoint to where a plan has its weights; `emit` is told how far it is, and of the plan.

    Raises UserError, or Cancelled when the flag is seen.
    """
    started = time.perf_counter()
    device = choose_device(options.device)
    emit(Loading("opening"))
    with closing(_open(options)) as checkpoint:
        return _Load(checkpoint, options, device, emit, cancelled).run(started)


def _open(options: LoadOptions) -> Checkpoint:
    if options.synthetic is not None:
        from core.checkpoint.synthetic import SyntheticCheckpoint

        return SyntheticCheckpoint(options.synthetic)
    return open_checkpoint(find(options.checkpoint, options.tokenizer))


class _Load:
    """One load. `device` is "cpu", "sim" or "cuda:N"."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: LoadOptions,
        device: str,
        emit: Sink,
        cancelled: Callable[[], bool],
    ) -> None:
        self._checkpoint, self._options = checkpoint, replace(options, device=device)
        self._emit, self._cancelled = emit, cancelled
        self._config = checkpoint.config
        self._compute: Compute
        self._peak = PeakMemory()

    def run(self, started: float) -> Engine:
        """All of it."""
        checkpoint, options, config = self._checkpoint, self._options, self._config
        tokenizer = checkpoint.tokenizer()
        _check_vocabulary(tokenizer, checkpoint)
        hints = checkpoint.chat()
        chat = None if options.raw else choose_format(options.chat_format, tokenizer, hints)
        for note in checkpoint.notes:
            self._emit(Notice(note))
        model, cache, placement, machine, samplers = self._placed()
        plan = placement.plan
        info = ModelInfo(
            name=checkpoint.name,
            parameters=sum(_numel(shape) for shape in config.shapes().values()),
            weight_bytes=plan.needs.weights,
            dtype=plan.needs.dtype,
            device=options.device,
            chat_format="raw" if chat is None else chat.name,
            context=plan.needs.context,
            layers=config.n_layers,
            load_s=time.perf_counter() - started,
            format=plan.needs.product,
            kernels=self._kernel_words(plan),
            max_context=config.max_context,
            kv_bytes=plan.needs.kv // plan.needs.context,
            tokenizer=fingerprint(tokenizer),
        )
        self._peak.look(force=True)
        stop_ids = hints.stop_ids | ends(tokenizer) if chat is None else chat.stop_ids
        runner = Runner(model, cache, placement.plan.rows)

        def relieve() -> bool:
            relieved = placement.relieve()
            runner.rows = placement.plan.rows
            return relieved

        runner.relieve = relieve
        if placement.fast is not None and machine.lane.device.type == "cuda":
            graph = DecodeGraph(model, cache, placement.fast, placement, self._emit)
            runner.decode = graph
        return Engine(runner, placement, tokenizer, chat, stop_ids, info, self._peak, machine, samplers)

    def _kernel_words(self, plan: Plan) -> tuple[tuple[str, str], ...]:
        """What computes with the model's formats: on the card where it has one, else on the CPU."""
        on_card = self._options.device.startswith("cuda")
        table = (self._compute.kernels if on_card else self._compute.host_kernels).names()
        formats = {weight.format for unit in plan.needs.units for weight in unit.weights}
        return tuple((format, kernel_words(names)) for format, names in table.items() if format in formats)

    def _placed(self) -> tuple[Transformer, KVCache, Placement, Machine, Samplers]:
        """The model in place; where the device has less than it said, by the next smaller plan."""
        plan, machine = self._plan()
        while True:
            try:
                model, cache, placement, samplers = self._place(plan, machine)
                return model, cache, placement, machine, samplers
            except torch.OutOfMemoryError:
                pass  # beyond this clause, where nothing holds on to what was placed
            less = smaller(plan)
            if less is None:
                raise UserError(
                    f"{self._checkpoint.name} with a context of {plan.needs.context} does not fit in the "
                    f"memory of {self._options.device}; give a smaller --context, or --device cpu"
                )
            plan, machine = less, self._machine(plan)
            self._emit(Notice("the device ran out of memory; loading again with less on it", "warning"))

    def _plan(self) -> tuple[Plan, Machine]:
        """The placement, before a weight is read, and what will carry it out."""
        options = self._options
        stored = str(self._checkpoint.stored_dtype).removeprefix("torch.")
        needs = needs_asked(self._config, stored, options, options.device, blocks_of(self._checkpoint))
        self._compute = compute_of(options, self._config, needs, self._emit)
        budget = budget_of(options)
        machine = machine_of(options)
        try:
            rates = rates_of(machine, budget, needs, self._compute, options.sim_link)
            plan = make_plan(needs, budget, choice_of(options), rates)
        except BaseException:
            machine.lane.close()
            raise
        self._tell(machine, plan)
        notice = summary(plan)
        if notice is not None:
            self._emit(notice)
        return plan, machine

    def _machine(self, plan: Plan) -> Machine:
        machine = machine_of(self._options)
        self._tell(machine, plan)
        return machine

    @staticmethod
    def _tell(machine: Machine, plan: Plan) -> None:
        """What the meters show besides what moves."""
        machine.ledger.link = plan.rates.link.gb_s * 1e9 if plan.budget.vram is not None else None
        machine.ledger.device["context"] = plan.budget.context

    def _place(self, plan: Plan, machine: Machine) -> tuple[Transformer, KVCache, Placement, Samplers]:
        needs, device = plan.needs, machine.lane.device
        with torch.device("meta"):
            model = Transformer(self._config, needs.tile_rows)
        binder = Binder(model, needs, device, self._compute)
        placement = Placement(machine, binder, lambda: self._pack(plan), self._emit)
        try:
            memory = machine.lane.empty(needs.kv, sparse=True)
            cache = KVCache(self._config, needs.context, getattr(torch, needs.kv_type), device, memory)
            machine.ledger.device["kv"] = needs.kv
            model.prepare(needs.context, device)
            samplers = Samplers(self._config.vocab_size, device)
            self._fill(plan, placement, binder)
        except BaseException:
            placement.close()
            raise
        return model.requires_grad_(False).eval(), cache, placement, samplers

    def _fill(self, plan: Plan, placement: Placement, binder: Binder) -> None:
        """Read every weight to its place."""
        dtype = getattr(torch, plan.needs.dtype)

        def tick(count: int) -> None:
            if self._cancelled():
                raise Cancelled
            meter.add(count)
            self._peak.look()

        packed = placement.prepare(plan)
        if packed is not None:
            rates = with_disk_rate(plan.rates, packed, plan.budget, plan.needs.product)
            plan = make_plan(plan.needs, plan.budget, plan.choice, rates)
            if plan.budget.vram is None:
                use_cores(beside_copies=True)
        weights = self._checkpoint.weights if packed is None else packed.weights
        sizes = (
            binder.size_in(weights, name) if packed is None else packed.size(name)
            for name in read_at_load(plan)
        )
        meter = LoadMeter(sum(sizes), self._emit)
        with Reader(tick) as reader:

            def norms(memory: Tensor) -> None:
                for name, view in norm_views(memory, self._config, dtype).items():
                    reader.start(weights[name], view)
                reader.finish()

            def fill(name: str, memory: Tensor) -> None:
                if packed is None:
                    binder.start(name, weights, memory, reader)
                else:  # ours, with checksums
                    packed.read(name, memory)
                    tick(memory.nbytes)

            placement.install(plan, fill, norms)

    def _pack(self, plan: Plan) -> PackedFile:
        """The packed file; the checkpoint is opened anew where it is made long after the load."""
        with closing(_open(self._options)) as checkpoint:
            return find_or_pack(checkpoint, plan.needs, self._emit, self._cancelled)


def read_at_load(plan: Plan) -> list[str]:
    """The short names of the weights that are read into memory; the others stay in the packed file."""
    heads = ("output",) if plan.needs.tied else ("output", "embeddings")
    names = [w.name for unit in plan.needs.units for w in unit.weights if not w.name.startswith("output.")]
    return [name for name in (*names, *heads) if plan.places[name] is not Place.DISK]


def _check_vocabulary(tokenizer: Tokenizer, checkpoint: Checkpoint) -> None:
    """UserError unless every token that a text can give has a row in the embedding.

    Fewer tokens than rows are common: rows are padded to a round number.
    """
    rows = checkpoint.config.vocab_size
    controls = sum(token >= rows for token in tokenizer.controls.values())
    if tokenizer.vocab_size - controls > rows:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but the embedding of {checkpoint.name} has "
            f"{rows}; give the tokenizer that came with it"
        )


def _numel(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)
