"""From what the user chose to a model that answers: the one place where checkpoint and model meet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from core.checkpoint import Checkpoint, find, open_checkpoint
from core.engine.events import Loading, ModelInfo
from core.engine.generate import Cancelled, rows_per_call
from core.errors import Unbuilt, UserError
from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.transformer import Transformer
from core.monitor import PeakMemory, physical_cores
from core.options import LoadOptions
from core.text.dialogue import ChatFormat, chat_format
from core.text.tokenizer import Tokenizer

DEFAULT_CONTEXT = 4096
_PROGRESS_SECONDS = 0.05


@dataclass(slots=True)
class Engine:
    """Everything a session runs on."""

    model: Transformer
    cache: KVCache
    tokenizer: Tokenizer
    format: ChatFormat | None  # None completes raw text
    rows: int
    info: ModelInfo
    peak: PeakMemory


def load(options: LoadOptions, progress: Callable[[Loading], None], cancelled: Callable[[], bool]) -> Engine:
    """Read a checkpoint into memory. Raises UserError, or Cancelled when the flag is seen."""
    started = time.perf_counter()
    peak = PeakMemory()
    device = choose_device(options.device)
    progress(Loading("opening"))
    checkpoint = open_checkpoint(find(options.checkpoint, options.tokenizer))
    config = checkpoint.config
    tokenizer = checkpoint.tokenizer()
    name = options.chat_format or checkpoint.chat_format
    chat = None if options.raw else chat_format(name, tokenizer, checkpoint.default_system)
    context = choose_context(options.context, config)
    dtype = choose_dtype(options.dtype, checkpoint.stored_dtype, device)

    # The fused attention of the CPU is several times slower in float16 than in float32.
    cache_dtype = torch.float32 if device.type == "cpu" and dtype == torch.float16 else dtype
    try:
        model = _read(checkpoint, dtype, device, progress, cancelled, peak)
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
    return Engine(model, cache, tokenizer, chat, rows_per_call(config, dtype, device), info, peak)


def _read(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    progress: Callable[[Loading], None],
    cancelled: Callable[[], bool],
    peak: PeakMemory,
) -> Transformer:
    """The model with its weights in `dtype` on `device`, one tensor of the source in flight."""
    with torch.device("meta"):
        model = Transformer(checkpoint.config)
    done, reported = 0, 0.0
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in checkpoint.tensors():
        if cancelled():
            raise Cancelled
        home = torch.empty(tensor.shape, dtype=dtype, device=device)
        weights[name] = home.copy_(tensor)
        done += tensor.nbytes
        peak.look()
        if time.perf_counter() - reported >= _PROGRESS_SECONDS or done >= checkpoint.nbytes:
            reported = time.perf_counter()
            progress(Loading("reading weights", min(done, checkpoint.nbytes), checkpoint.nbytes))
    if checkpoint.config.tied:
        model.output.weight = model.tok_embeddings.weight
        weights["output.weight"] = weights["tok_embeddings.weight"]
    model.load_state_dict(weights, strict=True, assign=True)
    if checkpoint.config.tied:
        model.output.weight = model.tok_embeddings.weight  # `assign` has made two parameters of it
    return model.requires_grad_(False).eval()


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
