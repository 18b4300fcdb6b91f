"""What lies at a path: which kind of checkpoint, and which files. No torch, no large reads."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from core.checkpoint.fields import Fields, read_json
from core.errors import UserError

_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
_TOKENIZERS = ("tokenizer.model", "tokenizer.json")


class Kind(Enum):
    """The containers that can be read."""

    META = "Meta"
    HUGGINGFACE = "Hugging Face"
    GGUF = "GGUF"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one checkpoint.

    `path` is its folder, or the GGUF file. `tokenizer` is the file that was given or that lies beside
    Meta's; None where the checkpoint brings its own. `config` is params.json or config.json, empty for
    GGUF.
    """

    kind: Kind
    path: Path
    shards: tuple[Path, ...]
    tokenizer: Path | None
    config: Fields


def find(checkpoint: str, tokenizer: str | None = None) -> Layout:
    """Recognise a checkpoint by content. Raises UserError that names the path and the way out.

    One of a folder's own files, such as its weights, stands for the folder.
    """
    path = Path(os.path.expanduser(checkpoint))  # unlike Path's own, these raise nothing
    if not os.path.exists(path):
        raise UserError(f"{checkpoint}: no such file or folder; give the folder of a Llama, or use --demo")
    if path.is_file():
        if _is_gguf(path):
            return Layout(Kind.GGUF, path, (path,), _given(tokenizer), Fields(path, {}))
        if path.suffix not in (".pth", ".safetensors", ".json"):
            raise UserError(f"{path}: neither a GGUF file nor part of a model's folder; give one of these")
        path = path.parent
    if any(path.glob("consolidated.*.pth")) or not (path / "config.json").is_file():
        if (path / "params.json").is_file():
            return _find_meta(path, tokenizer)
    else:
        return _find_huggingface(path, tokenizer)
    return _find_gguf(path, tokenizer)


def model_name(path: Path) -> str:
    """What to call the model at `path`: its folder's or file's name.

    In the cache of the Hugging Face hub folders are called by a hash, in models--OWNER--NAME/snapshots,
    and Meta's own files lie in a folder "original" below.
    """
    path = Path(os.path.expanduser(path)).resolve()
    if path.is_file():
        return path.stem if path.suffix == ".gguf" else model_name(path.parent)
    if path.name == "original":
        return model_name(path.parent)
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.split("--")[-1]
    return path.name


def _find_gguf(folder: Path, tokenizer: str | None) -> Layout:
    files = sorted(path for path in folder.glob("*.gguf") if not _LATER_PART.search(path.name))
    if len(files) == 1:
        return find(str(files[0]), tokenizer)
    if files:
        names = ", ".join(path.name for path in files[:4])
        raise UserError(f"{folder}: {len(files)} GGUF files ({names}); give the path of one of them")
    raise UserError(
        f"{folder}: no params.json, no config.json and no GGUF file in this folder; "
        "give the folder of a Llama, or use --demo"
    )


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _find_meta(path: Path, tokenizer: str | None) -> Layout:
    shards = tuple(sorted(path.glob("consolidated.*.pth")))
    if not shards:
        raise UserError(f"{path}: params.json without consolidated.00.pth; the download is not complete")
    numbers = [shard.name.split(".")[1] for shard in shards]
    expected = [f"{i:02d}" for i in range(len(shards))]
    if numbers != expected:
        raise UserError(
            f"{path}: shards {', '.join(numbers)} are not {expected[0]} to {expected[-1]}; one is missing"
        )
    params = read_json(path / "params.json")
    if isinstance(params.get("model"), dict):
        params = Fields(params.path, params.values["model"])
    return Layout(Kind.META, path, shards, _given(tokenizer) or _beside(path), params)


def _find_huggingface(path: Path, tokenizer: str | None) -> Layout:
    config = read_json(path / "config.json")
    index = path / "model.safetensors.index.json"
    if index.is_file():
        shards = _indexed(index)
    else:
        shards = tuple(sorted(path.glob("model*.safetensors"))) or tuple(sorted(path.glob("*.safetensors")))
        if len(shards) > 1:
            raise UserError(
                f"{path}: {len(shards)} safetensors files, but no {index.name}; the download is not complete"
            )
    if not shards:
        other = " (pytorch_model.bin is not read: convert it)" if any(path.glob("*.bin")) else ""
        raise UserError(f"{path}: config.json without *.safetensors{other}; the download is not complete")
    return Layout(Kind.HUGGINGFACE, path, shards, _given(tokenizer), config)


def _indexed(index: Path) -> tuple[Path, ...]:
    """The files that an index names, all of them plain names in its own folder."""
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise UserError(f"{index}: no weight_map; fetch it again")
    names = sorted({str(name) for name in table.values()})
    present = {path.name for path in index.parent.iterdir()}
    for name in names:
        if not name or Path(name).name != name or "\\" in name:
            raise UserError(
                f"{index}: {name!r:.60} is not a file of this folder; do not trust this checkpoint"
            )
        if name not in present:
            raise UserError(f"{index.parent}: {name!r:.60} is missing; the download is not complete")
    return tuple(index.parent / name for name in names)


def _given(text: str | None) -> Path | None:
    """The tokenizer file that the user named."""
    if text is None:
        return None
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path):
        path = next((path / name for name in _TOKENIZERS if (path / name).is_file()), path)
    if not os.path.isfile(path):
        raise UserError(f"{text}: no such tokenizer; give the path of {' or '.join(_TOKENIZERS)}")
    return path


def _beside(folder: Path) -> Path:
    """The tokenizer in the folder or, where Meta's download puts it, one level up."""
    for place in (folder, folder.parent):
        for name in _TOKENIZERS:
            if (place / name).is_file():
                return place / name
    raise UserError(f"{folder}: no {_TOKENIZERS[0]} beside it; give its path as the second argument")
