"""bitsandbytes, imported late, silent, and never fetching anything; and as a quantiser, by its CPU part."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from types import ModuleType

import torch
from torch import Tensor

from core.errors import UserError
from core.weights.layouts import GROUPS
from core.weights.nibbles import padded, put_codes, put_groups, rows_at_once

_FETCHES = "kernels"  # a package by which bitsandbytes, when it is there, gets compiled code from a hub
_LOGGER = "bitsandbytes"
_lock = Lock()
_users = 0  # threads that are in `offline`
_restore: Callable[[], None]


@contextmanager
def offline() -> Iterator[ModuleType]:
    """`bitsandbytes.functional`, which finds no package to fetch with in here, and whose log is silent.

    Importing it takes seconds the first time. Everything is as it was once no thread is in here. Raises
    UserError where bitsandbytes is not installed.
    """
    global _users, _restore
    with _lock:
        if not _users:
            _restore = _hide()
        _users += 1
    try:
        with _lock:  # nobody may have it half imported
            functional = _functional()
        yield functional
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _restore()


def _hide() -> Callable[[], None]:
    """Hide the package and silence the log; what is returned takes it back."""
    logger = logging.getLogger(_LOGGER)
    level, present, hidden = logger.level, _FETCHES in sys.modules, sys.modules.get(_FETCHES)
    # None is what Python's import takes for: there is no such module.
    sys.modules[_FETCHES] = None  # type: ignore[assignment]
    logger.setLevel(logging.CRITICAL + 1)  # it tells of the missing package on the terminal

    def restore() -> None:
        logger.setLevel(level)
        if present:
            sys.modules[_FETCHES] = hidden  # type: ignore[assignment]
        else:
            del sys.modules[_FETCHES]

    return restore


def _functional() -> ModuleType:
    name = "bitsandbytes.functional"
    if (module := sys.modules.get(name)) is not None:
        return module
    environment = dict(os.environ)
    try:
        with warnings.catch_warnings():  # what it imports warns, and adds filters
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"int8 and nf4 need bitsandbytes, which cannot be imported ({reason}); "
            "pip install bitsandbytes, or take --quant int4"
        ) from error
    finally:
        for variable in os.environ.keys() - environment.keys():  # torch's compiler sets one
            del os.environ[variable]


def pack_int8(weight: Tensor, values: Tensor, scales: Tensor) -> None:
    """Quantise `weight` [N, K], floats on the CPU, into the tensors of "int8".

    Rows of zeros have scale 0 and codes 0. Raises ValueError where a value is not finite in float16.
    """
    with offline() as functional:
        at_once = rows_at_once(weight.shape[1])
        for some, to, scale in zip(
            weight.split(at_once), values.split(at_once), scales.split(at_once), strict=True
        ):
            codes, largest, _ = functional.int8_vectorwise_quant(some.half())
            _check(largest)
            # It divides by their scale there; what that makes as an integer depends on the processor.
            codes[largest == 0] = 0
            to.copy_(codes)
            scale.copy_(largest)


def pack_nf4(weight: Tensor, values: Tensor, scales: Tensor) -> None:
    """Quantise `weight` [N, K], floats on the CPU, into the tensors of "nf4".

    Groups of zeros have scale 0. Rows behind the last one of `weight` have codes and scales 0. Raises
    ValueError where a value is not finite in float16.
    """
    columns, group = weight.shape[1], GROUPS["nf4"]
    at_once, blocks = rows_at_once(columns), 0
    with offline() as functional:
        for some in weight.split(at_once):
            count, full = some.shape[0], padded(some.shape[0])
            packed, state = functional.quantize_4bit(
                some.half().contiguous(), blocksize=group, quant_type="nf4", compress_statistics=False
            )
            _check(state.absmax)
            pairs = packed.view(count, columns // 2)
            codes = torch.zeros((full, columns), dtype=torch.uint8)
            torch.bitwise_right_shift(pairs, 4, out=codes[:count, 0::2])
            torch.bitwise_and(pairs, 15, out=codes[:count, 1::2])
            numbers = torch.zeros((full, columns // group))
            numbers[:count] = state.absmax.view(count, -1)
            part = slice(blocks, blocks + full // 16)
            blocks = part.stop
            put_codes(codes, values[part])
            put_groups(numbers, scales[part])


def _check(largest: Tensor) -> None:
    """`largest` has the largest magnitudes, by which all else was divided."""
    if not largest.isfinite().all():
        raise ValueError("values that are not finite in float16")
