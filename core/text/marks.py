"""Which spellings are marks, such as a chat format's, that no text may turn into a token."""

from __future__ import annotations

import re

_MARK = re.compile("\u2581?(<\\S+>|\\[\\S+\\])")


def is_mark(spelling: str) -> bool:
    """Whether an added token is spelled like a control token: <...> or [...] without a blank inside.

    Many checkpoints add <|im_start|>, [INST] or <think> as if they were ordinary words.
    """
    return _MARK.fullmatch(spelling) is not None
