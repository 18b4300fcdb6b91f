"""What lies at a path: which kind of checkpoint, which files, which tokenizer. No torch, no large reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from core.errors import UserError

_TOKENIZER = "tokenizer.model"


class Kind(Enum):
    """The containers that can be read."""

    META = "Meta"
    GGUF = "GGUF"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one checkpoint. `tokenizer` is None where it lies inside (GGUF).

    `params` is the content of params.json (Meta), else empty.
    """

    kind: Kind
    path: Path
    shards: tuple[Path, ...]
    tokenizer: Path | None
    params: dict[str, Any] = field(default_factory=dict)


def find(checkpoint: str, tokenizer: str | None = None) -> Layout:
    """Recognise a checkpoint by content. Raises UserError that names the path and the way out."""
    path = Path(checkpoint).expanduser()
    if not path.exists():
        raise UserError(
            f"{checkpoint}: no such file or folder; give the folder that holds params.json, or use --demo"
        )
    if path.is_file():
        return _find_file(path, tokenizer)
    if (path / "params.json").is_file():
        return _find_meta(path, tokenizer)
    if (path / "config.json").is_file():
        raise UserError(
            f"{checkpoint}: a Hugging Face folder, which is not read yet; give a folder in Meta's layout"
        )
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return _find_file(ggufs[0], tokenizer)
    raise UserError(
        f"{checkpoint}: no params.json in this folder; give the folder that holds it and consolidated.00.pth"
    )


def _find_file(path: Path, tokenizer: str | None) -> Layout:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if magic == b"GGUF":
        return Layout(Kind.GGUF, path, (path,), _existing(tokenizer) if tokenizer else None)
    if path.suffix == ".pth":
        raise UserError(f"{path}: give the folder that holds it and params.json, not the file")
    raise UserError(
        f"{path}: neither a GGUF file nor a folder with params.json; give one of these, or use --demo"
    )


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
    return Layout(
        Kind.META, path, shards, _find_tokenizer(path, tokenizer), read_params(path / "params.json")
    )


def read_params(path: Path) -> dict[str, Any]:
    """params.json as a dict, also where it is nested under "model". UserError if it is no JSON object."""
    try:
        params = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); fetch it again") from None
    if isinstance(params, dict) and isinstance(params.get("model"), dict):
        params = params["model"]
    if not isinstance(params, dict):
        raise UserError(f"{path}: not a JSON object; fetch it again")
    return params


def _existing(text: str) -> Path:
    path = Path(text).expanduser()
    if path.is_dir():
        path = path / _TOKENIZER
    if not path.is_file():
        raise UserError(f"{text}: no such tokenizer; give the path of {_TOKENIZER}")
    return path


def _find_tokenizer(folder: Path, given: str | None) -> Path:
    if given is not None:
        return _existing(given)
    for place in (folder / _TOKENIZER, folder.parent / _TOKENIZER):  # Meta's download puts it one level up
        if place.is_file():
            return place
    raise UserError(f"{folder}: no {_TOKENIZER} beside it; give its path as the second argument")
