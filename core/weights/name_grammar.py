"""How sets of weights are named, in `--offload-exclusion` and `--cpu-layers`. No torch, and no model.

`wq wk wv wo w1 w2 w3`, `attention` and `feed_forward` are matrices of all layers; `layers.3` and
`layers.0-9` whole layers; `layers.3.w2` and `layers.0-9.attention` the one within the other; `embeddings`
and `output` the two ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from core.errors import UserError

ATTENTION = ("wq", "wk", "wv", "wo")
FEED_FORWARD = ("w1", "w2", "w3")
MATRICES = (*ATTENTION, *FEED_FORWARD)

_PARTS = {"attention": ATTENTION, "feed_forward": FEED_FORWARD} | {name: (name,) for name in MATRICES}
ENDS = ("embeddings", "output")
_BETWEEN = re.compile(r"[\s,\[\]()'\"]+")
_LAYERS = re.compile(r"layers\.(\d{1,6})(?:-(\d{1,6}))?(?:\.(\w+))?", re.ASCII)
_LISTING = (
    f"{' '.join(MATRICES)} attention feed_forward embeddings output layers.3 layers.0-9 layers.3.w2 "
    "layers.0-9.attention"
)


def split_names(
    words: str | Iterable[str], flag: str = "--offload-exclusion", layers: int | None = None
) -> tuple[str, ...]:
    """The names in `words`, between commas, blanks or brackets, each once.

    Raises UserError that begins with `flag` for a word that is no name, and for a layer beyond `layers`
    where that is known.
    """
    text = words if isinstance(words, str) else " ".join(words)
    names = tuple(dict.fromkeys(name for name in _BETWEEN.split(text.lower()) if name))
    for name in names:
        read_name(name, flag, layers)
    return names


def read_name(name: str, flag: str, layers: int | None) -> tuple[int, int, tuple[str, ...]]:
    """What one name means: first layer, last layer and matrices; no layer at all for the ends.

    A kind by itself reaches to the last of `layers`. Raises UserError as `split_names` does.
    """
    if name in ENDS:
        return 0, -1, ()
    if name in _PARTS:
        return 0, (layers or 0) - 1, _PARTS[name]
    match = _LAYERS.fullmatch(name)
    if match is None or (match[3] is not None and match[3] not in _PARTS):
        raise UserError(f"{flag} {name}: no such weights; the names are {_LISTING}")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise UserError(f"{flag} {name}: the layers run backwards; give layers.{last}-{first}")
    if layers is not None and last >= layers:
        raise UserError(f"{flag} {name}: this model has layers 0 to {layers - 1}; the names are {_LISTING}")
    return first, last, MATRICES if match[3] is None else _PARTS[match[3]]
