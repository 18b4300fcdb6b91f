"""The head of a safetensors file: where each tensor lies. No tensor is read.

Format: github.com/huggingface/safetensors. Its library checks the header: sizes against the file, no
overlaps, and no gaps, so that the places follow from the order.
"""

from __future__ import annotations

import math
import struct

import torch
from safetensors import SafetensorError, safe_open

from core.checkpoint.source import Part, SourceFile
from core.errors import UserError
from core.text.sanitize import one_line

_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_OTHERS = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
_OTHERS |= {"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
_LENGTH = struct.Struct("<Q")


def read_safetensors(file: SourceFile) -> dict[str, Part]:
    """Name -> place of every tensor of floats. Raises UserError for a file that is not whole.

    Tensors of other types are left out.
    """
    parts = {}
    try:
        with safe_open(file.path, framework="pt") as library:
            (header,) = _LENGTH.unpack(file.read(0, _LENGTH.size))
            offset = _LENGTH.size + header
            for name in library.offset_keys():
                tensor = library.get_slice(name)
                shape, kind = tuple(tensor.get_shape()), tensor.get_dtype()
                if kind in _TYPES:
                    parts[name] = Part(file, offset, shape, _TYPES[kind])
                    offset += parts[name].nbytes
                elif kind in _OTHERS:
                    offset += math.prod(shape) * _OTHERS[kind]
                else:
                    raise UserError(
                        f"{file.path}: {name!r:.60} is {kind}, which is not read; use another file"
                    )
    except (SafetensorError, OSError, struct.error) as error:
        raise UserError(
            f"{file.path}: truncated or corrupt ({one_line(error, 80)}); fetch it again"
        ) from None
    if offset != file.size:
        raise UserError(f"{file.path}: {file.size} bytes and not {offset} as its header says; fetch it again")
    return parts
