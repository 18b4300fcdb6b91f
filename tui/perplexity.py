"""`--perplexity FILE`: how well a model predicts a text; the result on stdout, progress on stderr."""

from __future__ import annotations

import json
import os
import queue
import sys
from dataclasses import dataclass
from pathlib import Path

from core.engine.backend import Backend
from core.engine.commands import Load, Score
from core.engine.events import Event, Failed, Perplexity, Scored, Scoring
from core.errors import UserError
from core.options import LoadOptions
from tui.console import ERASE, Fault, model_line, wait_ready, with_status
from tui.figures import rate, seconds


@dataclass(frozen=True, slots=True)
class Sample:
    """The text to measure on, how many of its tokens, and how many of them in one call of the model."""

    file: str
    text: str
    tokens: int | None
    rows: int | None


def read_sample(file: str, tokens: int | None, rows: int | None) -> Sample:
    """The text as it lies in the file, line ends and all. Raises UserError for what is no text."""
    try:
        text = Path(os.path.expanduser(file)).read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"--perplexity {file}: cannot be read ({error.strerror}); give a text file") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"--perplexity {file}: byte {error.start} is 0x{error.object[error.start]:02x}, which is not "
            "UTF-8; give a text in UTF-8"
        ) from None
    if not text:
        raise UserError(f"--perplexity {file}: the file is empty; give a text")
    return Sample(file, text, tokens, rows)


@with_status
def run(backend: Backend, options: LoadOptions, sample: Sample, *, as_json: bool) -> int:
    """Load, measure, print, and return the exit status. Raises UserError."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    backend.start(events.put)
    backend.submit(Load(options))
    backend.submit(Score(0, sample.text, sample.tokens, sample.rows))
    try:
        print(model_line(wait_ready(events)), file=sys.stderr)
        result = _result(events, sample.file)
    except KeyboardInterrupt:
        return 130  # the caller closes the backend, which stops it
    finally:
        print(ERASE * sys.stderr.isatty(), end="", file=sys.stderr, flush=True)
    print(json.dumps(result.as_json()) if as_json else _line(result), flush=True)
    return 0


def _result(events: queue.SimpleQueue[Event], file: str) -> Perplexity:
    """Show progress where somebody looks, to the end; raises UserError or Fault if there is no result."""
    watched, user = sys.stderr.isatty(), True
    while True:
        match events.get():
            case Scoring() as scoring if watched:
                print(f"{ERASE}{_progress(scoring)}", end="", file=sys.stderr, flush=True)
            case Failed():
                user = False  # the Scored that follows says what it was
            case Scored(result=Perplexity() as result):
                return result
            case Scored(error=error):
                raise UserError(f"--perplexity {file}: {error}") if user else Fault(str(error))


def _progress(scoring: Scoring) -> str:
    left = (scoring.total - scoring.done) / scoring.tok_s
    parts = [f"{scoring.done} of {scoring.total} tokens", f"{rate(scoring.tok_s)} tok/s"]
    parts.append(f"{seconds(left)} left")
    if scoring.perplexity is not None:
        parts.append(f"perplexity {scoring.perplexity:.2f}")
    return " · ".join(parts)


def _line(result: Perplexity) -> str:
    windows = "1 window" if result.windows == 1 else f"{result.windows} windows"
    return (
        f"perplexity {result.perplexity:.2f} · {result.tokens} tokens in {windows} · "
        f"{rate(result.tok_s)} tok/s"
    )
