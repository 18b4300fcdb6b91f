"""From what the user chose to a model that answers: the one place where checkpoint and model meet."""

from __future__ import annotations

import ctypes
import mmap
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import torch

from core.checkpoint import Checkpoint, find, open_checkpoint
from core.checkpoint.reader import Reader
from core.engine.events import Loading, ModelInfo, Notice
from core.engine.generate import rows_per_call
from core.engine.load_meter import LoadMeter
from core.errors import Cancelled, Unbuilt, UserError
from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.transformer import Transformer
from core.monitor import PeakMemory, physical_cores
from core.options import LoadOptions
from core.text.dialogue import ChatFormat, choose_format
from core.text.formats.base import ends
from core.text.tokenizer import Tokenizer

DEFAULT_CONTEXT = 4096
_LARGE_PAGE = 2 * 2**20  # bytes


@dataclass(slots=True)
class Engine:
    """Everything a session runs on."""

    model: Transformer
    cache: KVCache
    tokenizer: Tokenizer
    format: ChatFormat | None  # None completes raw text
    stop_ids: frozenset[int]
    rows: int
    info: ModelInfo
    peak: PeakMemory


def load(
    options: LoadOptions, emit: Callable[[Loading | Notice], None], cancelled: Callable[[], bool]
) -> Engine:
    """Read a checkpoint into memory; `emit` is told how far it is, and what the user should know of it.

    Raises UserError, or Cancelled when the flag is seen.
    """
    started = time.perf_counter()
    device = choose_device(options.device)
    emit(Loading("opening"))
    with closing(open_checkpoint(find(options.checkpoint, options.tokenizer))) as checkpoint:
        return _load(checkpoint, options, emit, cancelled, device, started)


def _load(
    checkpoint: Checkpoint,
    options: LoadOptions,
    emit: Callable[[Loading | Notice], None],
    cancelled: Callable[[], bool],
    device: torch.device,
    started: float,
) -> Engine:
    peak = PeakMemory()
    config = checkpoint.config
    tokenizer = checkpoint.tokenizer()
    _check_vocabulary(tokenizer, checkpoint)
    hints = checkpoint.chat()
    chat = None if options.raw else choose_format(options.chat_format, tokenizer, hints)
    for note in checkpoint.notes:
        emit(Notice(note))
    context = choose_context(options.context, config)
    dtype = choose_dtype(options.dtype, checkpoint.stored_dtype, device)

    # The fused attention of the CPU is several times slower in float16 than in float32.
    cache_dtype = torch.float32 if device.type == "cpu" and dtype == torch.float16 else dtype
    try:
        model = _read(checkpoint, dtype, device, emit, cancelled, peak)
        model.prepare(context, device)
        cache = KVCache(config, context, cache_dtype, device)
    except torch.OutOfMemoryError:
        raise UserError(
            f"{checkpoint.name} with a context of {context} does not fit in the memory of {device}; "
            "give a smaller --context, or --device cpu"
        ) from None
    parameters = list(model.parameters())
    info = ModelInfo(
        name=checkpoint.name,
        parameters=sum(parameter.numel() for parameter in parameters),
        weight_bytes=sum(parameter.nbytes for parameter in parameters),
        dtype=str(dtype).removeprefix("torch."),
        device=str(device),
        chat_format="raw" if chat is None else chat.name,
        context=context,
        layers=config.n_layers,
        load_s=time.perf_counter() - started,
    )
    peak.look(force=True)
    stop_ids = hints.stop_ids | ends(tokenizer) if chat is None else chat.stop_ids
    return Engine(model, cache, tokenizer, chat, stop_ids, rows_per_call(config, dtype, device), info, peak)


def _read(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    progress: Callable[[Loading], None],
    cancelled: Callable[[], bool],
    peak: PeakMemory,
) -> Transformer:
    """The model with its weights in `dtype` on `device`; of the source only some megabytes in flight."""
    with torch.device("meta"):
        model = Transformer(checkpoint.config)
    meter = LoadMeter(sum(weight.nbytes for weight in checkpoint.weights.values()), progress)

    def tick(count: int) -> None:
        if cancelled():
            raise Cancelled
        meter.add(count)
        peak.look()

    homes: dict[str, torch.Tensor] = {}
    with Reader(tick) as reader:
        for name, weight in checkpoint.weights.items():
            homes[name] = torch.empty(weight.shape, dtype=dtype, device=device)
            use_large_pages(homes[name])
            reader.start(weight, homes[name])
        reader.finish()
    if checkpoint.config.tied:
        model.output.weight = model.tok_embeddings.weight
        homes["output.weight"] = homes["tok_embeddings.weight"]
    model.load_state_dict(homes, strict=True, assign=True)
    if checkpoint.config.tied:
        model.output.weight = model.tok_embeddings.weight  # `assign` has made two parameters of it
    return model.requires_grad_(False).eval()


def use_large_pages(tensor: torch.Tensor) -> None:
    """Ask Linux for large pages under a new tensor in RAM: it is filled twice as fast.

    Not for all tensors (THP_MEM_ALLOC_ENABLE): a KV cache that is hardly used would be in memory whole.
    """
    start = -(-tensor.data_ptr() // _LARGE_PAGE) * _LARGE_PAGE
    length = (tensor.data_ptr() + tensor.nbytes - start) // _LARGE_PAGE * _LARGE_PAGE
    if sys.platform == "linux" and tensor.device.type == "cpu" and length > 0:
        # It may be refused, which costs speed only.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)


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


def choose_device(name: str) -> torch.device:
    """The device that `--device` means here. UserError where there is none such."""
    if name == "sim":
        raise Unbuilt("--device sim")
    kind, _, index = name.partition(":")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: no CUDA device is usable here; use --device cpu")
        if index and int(index) >= torch.cuda.device_count():
            raise UserError(
                f"--device {name}: only {torch.cuda.device_count()} CUDA device(s); use --device cuda:0"
            )
        return torch.device("cuda", int(index or 0))
    if name == "auto" and torch.cuda.is_available():
        return torch.device("cuda", 0)
    # One thread a physical core: a second one would share its arithmetic units.
    torch.set_num_threads(physical_cores())
    return torch.device("cpu")


def choose_dtype(name: str, stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The type that `--dtype` means: auto is the stored one, but float16 for float32 files on CUDA."""
    if name != "auto":
        dtype = getattr(torch, name)
        assert isinstance(dtype, torch.dtype)
        return dtype
    if stored == torch.float32 and device.type == "cuda":
        return torch.float16
    return stored if stored in (torch.float32, torch.float16, torch.bfloat16) else torch.float16


def choose_context(wanted: int | None, config: ModelConfig) -> int:
    """The context in tokens. UserError beyond what the model was trained for."""
    if wanted is None:
        return min(config.max_context, DEFAULT_CONTEXT)
    if wanted > config.max_context:
        raise UserError(f"--context {wanted}: this model's limit is {config.max_context}; give at most that")
    return wanted
