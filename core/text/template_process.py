"""Renders one chat template; a script that core.text.template runs in a process of its own.

A template is a program that came with a file, so it runs where it can do no harm: in jinja2's
immutable sandbox, set up as transformers sets it up (apply_chat_template), in a process that may take
little memory and open no file, and that its parent ends when it takes too long.

JSON, one line a message: in comes the template; out {} when all is ready; then in the variables of a
rendering and out {"text": ...} or {"error": ...}, until the input ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_MEMORY = 512 * 2**20  # bytes of address space; Python with jinja2 takes about 30 MB
_CPU_SECONDS = 5  # for one rendering, should the parent be gone that ends it earlier
_LONGEST_TEXT = 4 * 2**20  # characters; the longest contexts hold about 1 MB
_LONGEST_REASON = 200


class _Generation(Extension):
    """{% generation %}...{% endgeneration %} marks a model's words for training: here just what it holds."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is, where jinja2's own filter would write it for HTML."""
    pair = None if separators is None else (separators[0], separators[1])
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _answer(template: Callable[[], Template], variables: Mapping[str, object]) -> str:
    """The rendering, or why there is none. `template` compiles, which can fail and take long as well."""
    pieces: list[str] = []
    length = 0
    try:
        for piece in template().generate(variables):
            length += len(piece)
            if length > _LONGEST_TEXT:
                raise TemplateError(f"it writes more than {_LONGEST_TEXT} characters")
            pieces.append(piece)
        return json.dumps({"text": "".join(pieces)})
    except Exception as error:  # whatever a template can make go wrong
        return json.dumps({"error": _reason(error)[:_LONGEST_REASON]})


def _reason(error: Exception) -> str:
    if isinstance(error, TemplateSyntaxError):
        return f"line {error.lineno}: {error.message}"
    if isinstance(error, TemplateError):
        return str(error.message)
    if isinstance(error, MemoryError):
        return f"it takes more than {_MEMORY >> 20} MiB of memory"
    return f"{type(error).__name__}: {error}"


def _confine() -> None:
    """Little memory, and no file, socket or process from now on, even for one who has left the sandbox."""
    if sys.platform != "win32":
        import resource

        for kind, most in (
            (resource.RLIMIT_AS, _MEMORY),
            (resource.RLIMIT_NOFILE, 0),
            (resource.RLIMIT_NPROC, 0),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            with suppress(ValueError, OSError):  # not every system has every limit
                resource.setrlimit(kind, (most, most))


def _allow_cpu_time() -> None:
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + _CPU_SECONDS, hard))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Renders until the input ends."""
    source = json.loads(sys.stdin.readline())
    environment = _environment()
    compiled = cache(lambda: environment.from_string(source))
    # What is imported and read only when it is first needed is needed once before the confinement.
    _answer(lambda: environment.from_string("{{ strftime_now('%c') }}{{ nothing() }}"), {})
    _confine()
    _say("{}")
    for line in sys.stdin:
        _allow_cpu_time()
        _say(_answer(compiled, json.loads(line)))


if __name__ == "__main__":
    main()
