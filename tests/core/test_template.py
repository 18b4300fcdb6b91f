"""Rendering in a process of its own: like transformers, and safe from what a template may try."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from core.errors import UserError
from core.text.template import Renderer

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="limits and sessions are POSIX")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MESSAGES = [
    {"role": "system", "content": " Be <é> & 'so'.\n"},
    {"role": "user", "content": "1\u2028😀"},
    {"role": "assistant", "content": ""},
]


@contextmanager
def renderer(template: str) -> Iterator[Renderer]:
    made = Renderer(template)
    try:
        yield made
    finally:
        made.close()


def rendered(template: str) -> str:
    with renderer(template) as made:
        return made.render(messages=MESSAGES, bos_token="<s>", tools=None)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}\n  {% if m.role %}\n {{ m.content }}\n  {% endif %}\n{% endfor %}\n",
        "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}",
        "{{ messages | tojson(indent=2) }}{{ messages | tojson(separators=[',', ':'], sort_keys=true) }}",
        "{{ messages | tojson(ensure_ascii=true) }}{{ missing }}{{ bos_token }}{{ tools is none }}",
        "a{% generation %}b{% for m in messages %}{{ m.content | trim }}{% endfor %}{% endgeneration %}c",
        "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "{% macro f(m) %}{{ m.role | upper }}{% endmacro %}{{ f(messages[0]) }}{{ messages[-1:][0].role }}",
        "{{ strftime_now('%Y') }}",
    ],
)
def test_texts_that_transformers_gives(template: str) -> None:
    (expected,), _ = render_jinja_template([MESSAGES], chat_template=template, bos_token="<s>")
    assert rendered(template) == expected


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles\n must  alternate\x1b[31m') }}", r"fails: roles must alternate\[31m;"),
        ("one\n{% if %}", "fails: line 2: "),
        ("{{ missing.content }}", "fails: 'missing' is undefined;"),
        ("{{ 1 // 0 }}", "fails: ZeroDivisionError: "),
        ("{% include 'other' %}", "fails: TypeError: no loader"),
    ],
)
def test_errors_are_one_line_with_the_way_out(template: str, reason: str) -> None:
    with pytest.raises(
        UserError, match=f"^the checkpoint's chat template {reason}.*--chat-format NAME$"
    ) as error:
        rendered(template)
    assert "\n" not in str(error.value)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "takes longer than 3 s",
        ),
        ("{{ 'a' * 10000000000 }}", "512 MiB"),
        ("{{ '%1000000000d' % 1 }}", "512 MiB"),
        ("{{ messages[0].role.center(10**9) }}", "512 MiB"),
        (
            "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
            "512 MiB",
        ),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "RecursionError"),
        ("{{ " + "(" * 100_000, "RecursionError"),
        ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "more than 4194304 characters"),
        ("{{ raise_exception(10**5000) }}", "fails: ValueError: "),
        ("{{ raise_exception('a' * 10**6) }}", "fails: a{200};"),
    ],
)
def test_bombs(template: str, reason: str) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=reason):
        rendered(template)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ lipsum.__globals__['os'].getcwd() }}",
        "{{ (''|attr('__class__')).mro() }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ '{x.__class__}'.format_map({'x': 1}) }}",
        "{{ self._TemplateReference__context.environment }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__code__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='user') }}",
        "{{ messages[0].pop('role') }}",
    ],
)
def test_ways_out_of_the_sandbox_are_shut(template: str) -> None:
    try:
        text = rendered(template)
    except UserError:
        text = ""
    assert text == ""


@posix_only
def test_who_has_left_the_sandbox_reaches_nothing() -> None:
    code = """
import socket
from core.text.template_process import _confine
_confine()
for reach in (lambda: open("/etc/passwd"), lambda: socket.socket(), lambda: bytearray(600 << 20)):
    try:
        print(reach())
    except (OSError, MemoryError) as error:
        print(type(error).__name__)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["OSError", "OSError", "MemoryError"], result.stderr


@linux_only
def test_the_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2")
    monkeypatch.setenv("TZ", "UTC")
    with renderer("{{ 1 }}") as made:
        made.render()
        assert made._process is not None
        pid = made._process.pid
        names = {entry.partition("=")[0] for entry in Path(f"/proc/{pid}/environ").read_text().split("\0")}
        assert "TZ" in names
        assert not names & {"A_SECRET", "HOME", "PATH"}
        assert os.getsid(pid) == pid != os.getsid(0)  # an interrupt at our terminal does not reach it


def test_one_process_renders_all_and_ends_with_its_owner() -> None:
    made = Renderer("{{ n }}")
    assert made._process is None
    assert [made.render(n=i) for i in range(3)] == ["0", "1", "2"]
    process = made._process
    assert process is not None
    assert process.poll() is None
    made.close()
    assert process.poll() is not None
    assert made.render(n=4) == "4"
    process = made._process
    assert process is not None
    del made
    gc.collect()
    assert process.poll() is not None


@posix_only
def test_a_process_that_is_gone_is_an_error_once() -> None:
    with renderer("{{ n }}") as made:
        made.render(n=0)
        assert made._process is not None
        os.kill(made._process.pid, signal.SIGKILL)
        with pytest.raises(UserError, match="crashed the process"):
            made.render(n=1)
        assert made.render(n=2) == "2"


def test_no_process_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with renderer("{{ n }}") as made, pytest.raises(UserError, match=r"none starts \(No such file"):
        made.render(n=0)


def test_it_ends_when_its_input_does() -> None:
    with renderer("{{ 1 }}") as made:
        made.render()
        process = made._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(5) == 0


def test_long_texts_and_lone_surrogates_pass() -> None:
    with renderer("{{ text }}") as made:
        for text in ("é" * 2**20, "a\ud800\r\n\u2028b\0"):
            assert made.render(text=text) == text
