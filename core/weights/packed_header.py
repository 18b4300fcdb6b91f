"""What a packed file says of itself, and where everything in it lies. No torch.

Magic (8 bytes), then version, length and CRC-32 of the JSON (little-endian, 4 bytes each), then the JSON,
zeros up to a multiple of 4096, and the sections. All places follow from the model's sizes; the JSON repeats
them, names the source, and gives a checksum for every entry.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from core.checkpoint.synthetic import REVISION, SyntheticFile
from core.errors import UserError
from core.weights.layouts import QUANTISER
from core.weights.needs import Needs, aligned, format_of, matrix_bytes

if TYPE_CHECKING:
    from core.checkpoint import Checkpoint
    from core.checkpoint.source import SourceFile
    from core.model.config import ModelConfig

TILED = ("output", "embeddings")  # sections that are one matrix, in row tiles
PAGE = 4096  # bytes; where sections begin
VERSION = 2  # of the layout, and of the conversions that the content went through

_MAGIC = b"LLAMAPKD"
_START = struct.Struct("<8sIII")
_LONGEST = 2**26  # bytes of JSON
_SIZES = ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size", "tied")


class Unusable(Exception):
    """Why a file cannot be taken: what completes "the file …"."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Bytes with a checksum of their own: rows `start` to `stop` of `weight`, which has Meta's name.

    `name` is short, as in Needs: "layers.3.wq", "output.0", "embeddings.0", "layers.3.attention_norm".
    `offset` counts from where the sections begin; `format` is one of `core.weights.layouts`.
    """

    name: str
    weight: str
    start: int
    stop: int
    offset: int
    nbytes: int
    format: str = "float16"


@dataclass(frozen=True, slots=True)
class Section:
    """A unit, laid out as a slot holds all of it; or the whole "output", "embeddings" or "norms"."""

    name: str
    offset: int
    entries: tuple[Entry, ...]

    @property
    def end(self) -> int:
        """Where its last entry ends."""
        last = self.entries[-1]
        return last.offset + last.nbytes


@dataclass(frozen=True, slots=True)
class Contents:
    """All that is known of a packed file before it is written. `identity` is plain JSON."""

    identity: Mapping[str, Any]
    sections: tuple[Section, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Those of all sections, in the order of the file."""
        return tuple(entry for section in self.sections for entry in section.entries)

    @property
    def nbytes(self) -> int:
        """All sections, with the last one's padding."""
        return _paged(self.sections[-1].end)

    @property
    def start(self) -> int:
        """Where in the file the sections begin."""
        return len(self.header([0] * len(self.entries)))

    @property
    def file_bytes(self) -> int:
        """The size of the file."""
        return self.start + self.nbytes

    def header(self, checksums: Sequence[int]) -> bytes:
        """The bytes before the sections, of the same length whatever the CRC-32s of the entries."""
        texts = iter([f"{checksum:08x}" for checksum in checksums])
        sections = [
            {
                "name": section.name,
                "offset": section.offset,
                "weights": [
                    [entry.name, entry.offset - section.offset, entry.nbytes, next(texts)]
                    for entry in section.entries
                ],
            }
            for section in self.sections
        ]
        table = {"identity": self.identity, "nbytes": self.nbytes, "sections": sections}
        text = json.dumps(table, separators=(",", ":")).encode()
        head = _START.pack(_MAGIC, VERSION, len(text), zlib.crc32(text)) + text
        return head.ljust(_paged(len(head)), b"\0")


def contents_of(checkpoint: Checkpoint, needs: Needs) -> Contents:
    """What a packed file of `checkpoint` in the types of `needs` holds, and who it is.

    Raises UserError where a source file is there no more.
    """
    config = checkpoint.config
    identity = {
        "name": checkpoint.name,
        "files": _stamps(checkpoint),
        "dtype": needs.dtype,
        "quant": format_of(needs.quant),  # whoever multiplies, the bytes are the same
        "formats": sorted({weight.format for unit in needs.units for weight in unit.weights}),
        "quantiser": QUANTISER,
        "sizes": {name: value for name, value in asdict(config).items() if name in _SIZES},
    }
    return Contents(identity, _sections(config, needs))


def read_checksums(file: SourceFile, contents: Contents) -> list[int]:
    """The checksums of all entries, if `file` says that it is whole and holds `contents`.

    Raises Unusable for any other file, whatever its bytes are.
    """
    head = file.read(0, _START.size)
    if len(head) < _START.size or head[: len(_MAGIC)] != _MAGIC:
        raise Unusable("is no packed file")
    _, version, length, checksum = _START.unpack(head)
    if version != VERSION:
        raise Unusable(f"is of version {version}, not {VERSION}")
    text = file.read(_START.size, min(length, _LONGEST))
    if zlib.crc32(text) != checksum:
        raise Unusable("has a damaged header")
    try:
        table = json.loads(text)
        identity = table["identity"]
        checksums = [int(weight[3], 16) for section in table["sections"] for weight in section["weights"]]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise Unusable("has a damaged header") from None
    if identity != contents.identity:
        raise Unusable("is of other files, or they have changed since")
    if len(checksums) != len(contents.entries) or contents.header(checksums) != file.read(0, contents.start):
        raise Unusable("is laid out otherwise")
    if file.size != contents.file_bytes:
        raise Unusable(f"has {file.size} bytes instead of {contents.file_bytes}")
    return checksums


def _stamps(checkpoint: Checkpoint) -> list[list[Any]]:
    """Path, size and time of change of every source file; of a synthetic model its name and revision."""
    files = {part.file.path: part.file for weight in checkpoint.weights.values() for part in weight.parts}
    stamps: list[list[Any]] = []
    for path, file in files.items():
        if isinstance(file, SyntheticFile):
            stamps.append([str(path), 0, REVISION])
        else:
            try:
                state = path.stat()
            except OSError as error:
                raise UserError(f"{path}: cannot be looked at ({error.strerror}); fetch it again") from None
            stamps.append([str(path.resolve()), state.st_size, state.st_mtime_ns])
    return sorted(stamps)


def _sections(config: ModelConfig, needs: Needs) -> tuple[Section, ...]:
    """The places of all entries. ValueError where `needs` gives a weight another size."""
    shapes = config.shapes()
    formats = {weight.name: weight.format for unit in needs.units for weight in unit.weights}
    sections, at = [], 0
    for group, members in _groups(config, needs).items():
        begin, entries = at, []
        for member in members:
            columns = math.prod(shapes[member.weight][1:])
            format = formats.get(member.name, needs.dtype)
            nbytes = matrix_bytes(format, member.stop - member.start, columns)
            entries.append(replace(member, offset=at, nbytes=nbytes, format=format))
            # Tiles stand without a gap, so that all of them are one matrix.
            at += nbytes if group in TILED else aligned(nbytes)
        sections.append(Section(group, begin, tuple(entries)))
        at = _paged(sections[-1].end)
    sizes = {entry.name: entry.nbytes for section in sections for entry in section.entries}
    for weight in (weight for unit in needs.units for weight in unit.weights):
        if sizes[weight.name] != weight.nbytes:
            raise ValueError(f"{weight.name}: {weight.nbytes} bytes needed, {sizes[weight.name]} packed")
    return tuple(sections)


def _groups(config: ModelConfig, needs: Needs) -> dict[str, list[Entry]]:
    """What stands in each section, without places."""
    shapes = config.shapes()

    def whole(name: str, weight: str) -> Entry:
        return Entry(name, weight, 0, shapes[weight][0], 0, 0)

    def tiles(name: str, weight: str) -> list[Entry]:
        rows = enumerate(pairwise(needs.tile_rows))
        return [Entry(f"{name}.{i}", weight, start, stop, 0, 0) for i, (start, stop) in rows]

    groups: dict[str, list[Entry]] = {}
    for unit in needs.units:
        if unit.name.startswith("layers."):
            names = {w.name: f"{unit.name}.{w.name.rpartition('.')[2]}.weight" for w in unit.weights}
            groups[unit.name] = [whole(name, weight) for name, weight in names.items()]
    groups["output"] = tiles("output", "tok_embeddings.weight" if config.tied else "output.weight")
    if not config.tied:
        groups["embeddings"] = tiles("embeddings", "tok_embeddings.weight")
    norms = [name for name, shape in shapes.items() if len(shape) == 1]
    groups["norms"] = [whole(name.removesuffix(".weight"), name) for name in norms]
    return groups


def _paged(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE
