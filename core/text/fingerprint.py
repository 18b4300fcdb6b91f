"""Which vocabulary token ids belong to."""

from __future__ import annotations

import hashlib

from core.text.tokenizer import Tokenizer


def fingerprint(tokenizer: Tokenizer) -> str:
    """The same text for tokenizers whose ids stand for the same bytes: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for token in range(tokenizer.vocab_size):
        data = tokenizer.token_bytes(token)
        digest.update(len(data).to_bytes(4, "little") + data)
    for spelling, token in sorted(tokenizer.controls.items()):
        digest.update(f"{token} {spelling}\n".encode())
    return digest.hexdigest()[:16]
