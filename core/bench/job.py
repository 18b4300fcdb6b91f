"""What the process of a row is asked to do, as one line of JSON. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from core.options import LoadOptions


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure. `name` and `partly` are the mode's, with a place for the weights' format.

    With `context` None in the options it is the model's own, at most `most_context`. `disk` allows weights
    to be read from the disk. `read_bytes` is how much RAM is read for its ceiling.
    """

    name: str
    partly: str | None
    options: LoadOptions
    disk: bool
    most_context: int
    read_bytes: int

    def as_line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Job:
        """The job of a line that `as_line` made."""
        given: dict[str, Any] = json.loads(line)
        options: dict[str, Any] = given.pop("options")
        options |= {key: tuple(value) for key, value in options.items() if isinstance(value, list)}
        return cls(**given, options=LoadOptions(**options))
