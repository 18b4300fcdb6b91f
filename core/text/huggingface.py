"""The tokenizer of a model folder in Hugging Face's layout, and what the files beside it say of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.text.files import MOST_TOKENS, open_tokenizer, parse_object, read_file
from core.text.marks import is_mark
from core.text.tokenizer import Tokenizer


def open_huggingface(folder: Path) -> Tokenizer:
    """The folder's tokenizer. Raises UserError where there is none, or none that is read."""
    for name in ("tokenizer.json", "tokenizer.model"):
        if (folder / name).is_file():
            return open_tokenizer(folder / name)
    raise UserError(
        f"{folder}: no tokenizer.json or tokenizer.model in it; fetch it, or give a tokenizer after the model"
    )


def settle(tokenizer: Tokenizer, folder: Path) -> None:
    """Sets what `folder` declares of the tokenizer: added marks, BOS and EOS.

    A BOS is declared by add_bos_token, which has the last word over tokenizer.json's post-processor.
    Raises UserError for a file that is no JSON.
    """
    _add_marks(tokenizer, _read(folder / "added_tokens.json"))
    settings = _read(folder / "tokenizer_config.json")
    sources = (settings, _read(folder / "special_tokens_map.json"), _read(folder / "config.json"))
    eos = _declared("eos", sources, tokenizer)
    if eos is not None:
        tokenizer.eos_id = eos
    adds_bos = settings.get("add_bos_token")
    if adds_bos is False:
        tokenizer.bos_id = None
    elif adds_bos is True and tokenizer.bos_id is None:
        tokenizer.bos_id = _declared("bos", sources, tokenizer)


def _add_marks(tokenizer: Tokenizer, added: Mapping[str, Any]) -> None:
    """Gives a tokenizer.model the marks that a fine-tune put behind its last token."""
    marks = {
        text: token
        for text, token in added.items()
        if type(token) is int and tokenizer.vocab_size <= token < MOST_TOKENS and is_mark(text)
    }
    tokenizer.controls = {**tokenizer.controls, **marks}
    tokenizer.vocab_size = max([tokenizer.vocab_size - 1, *marks.values()]) + 1


def _declared(which: str, sources: tuple[Mapping[str, Any], ...], tokenizer: Tokenizer) -> int | None:
    """The first token that is named (`eos_token`) or numbered (`eos_token_id`, one or several)."""
    for source in sources:
        name = source.get(f"{which}_token")
        if isinstance(name, dict):
            name = name.get("content")
        if isinstance(name, str) and name in tokenizer.controls:
            return tokenizer.controls[name]
        token = source.get(f"{which}_token_id")
        if isinstance(token, list) and token:
            token = token[0]
        if type(token) is int and 0 <= token < tokenizer.vocab_size:
            return token
    return None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return parse_object(read_file(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}; fetch it again") from None
