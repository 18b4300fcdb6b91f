"""The command line as a program sees it: stdout, stderr, exit status."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.engine.backend import Sink
from core.engine.commands import Command, Load, Score
from core.engine.events import Event, Failed, Loading, Notice, Perplexity, Ready, Scored, Scoring
from core.options import PARAMS, LoadOptions, default_values
from tests.fake_backend import MODEL
from tui import cli, perplexity

Run = Callable[..., tuple[int, str, str]]


class Input(io.StringIO):
    """A stdin that is, or is not, a terminal."""

    def __init__(self, text: str = "", *, terminal: bool = False) -> None:
        super().__init__(text)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def reconfigure(self, **options: str) -> None:
        pass


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*argv: object, stdin: Input | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", stdin or Input(terminal=True))
        code = cli.main([str(arg) for arg in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_golden_tokens_of_a_real_checkpoint(run: Run, stories: Path) -> None:
    code, out, _ = run(
        stories, stories / "tokenizer.model", "--raw", "--prompt", "", "--temperature", 0,
        "--max-tokens", 199, "--dtype", "float32", "--json",
    )  # fmt: skip
    reply = json.loads(out)
    assert code == 0
    assert reply["tokens"] == json.loads((stories / "golden_tokens.json").read_text())["greedy"]
    golden = (stories / "golden_greedy200.txt").read_text()
    assert golden.startswith(reply["text"])
    assert len(reply["surprise"]) == 199


def test_text_goes_to_stdout_and_numbers_to_stderr(run: Run, stories: Path) -> None:
    code, out, err = run(stories, "--prompt", "Once upon a", "--temperature", 0, "--max-tokens", 12)
    assert code == 0
    assert out.startswith(" time, there was a little girl named")
    assert out.endswith("\n")
    assert "stories260K" in err
    assert "12 tokens" in err
    assert "tok/s" in err
    assert "tok/s" not in out


def test_stdin_is_a_prompt_and_a_script_a_conversation(run: Run, stories: Path, tmp_path: Path) -> None:
    code, out, _ = run(stories, "--json", "--max-tokens", 5, stdin=Input("Once upon a time\n"))
    assert code == 0
    assert json.loads(out)["prompt_tokens"] == 5  # BOS and four words
    script = tmp_path / "script.txt"
    script.write_text("Hello\n\nAnd then?\nThe end")
    stats = tmp_path / "stats.jsonl"
    greedy = ("--json", "--chat-format", "llama2", "--max-tokens", 5, "--temperature", 0)
    code, out, _ = run(stories, "--script", script, *greedy, "--stats", stats)
    replies = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(replies) == 3  # a blank line says nothing
    assert replies[0]["cached_tokens"] == 0
    assert replies[2]["cached_tokens"] == replies[1]["prompt_tokens"] + 4
    assert [json.loads(line) for line in stats.read_text().splitlines()] == replies
    code, out, _ = run(stories, "--script", "-", *greedy, stdin=Input("Hello\n"))
    assert json.loads(out)["tokens"] == replies[0]["tokens"]


def test_perplexity_is_one_line_or_one_object(run: Run, stories: Path) -> None:
    """The text is the model's own greedy one, so that it is hardly surprised."""

    class Untouched(Input):
        def read(self, size: int | None = -1) -> str:
            raise AssertionError("stdin is read")

    argv = (stories, "--perplexity", stories / "golden_greedy200.txt", "--dtype", "float32", "--context", 64)
    code, out, err = run(*argv, "--json", stdin=Untouched("Hello"))
    result = json.loads(out)
    assert code == 0
    assert list(result) == ["perplexity", "tokens", "windows", "tok_s"]
    assert 1 < result["perplexity"] < 4
    assert (result["tokens"], result["windows"]) == (201 - 4, 4)
    assert "stories260K · float32 · cpu" in err
    assert err.count("\n") == 1
    code, out, _ = run(*argv, "--rows", 5, stdin=Untouched())
    assert out.startswith(f"perplexity {result['perplexity']:.2f} · 197 tokens in 4 windows · ")
    assert out.endswith(" tok/s\n")
    code, out, _ = run(*argv, "--tokens", 50)
    assert "49 tokens in 1 window ·" in out


def test_a_perplexity_that_cannot_be_names_the_file(run: Run, stories: Path, tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("a")
    code, out, err = run(stories, "--perplexity", text)
    assert (code, out) == (2, "")
    assert f"llama-tui: --perplexity {text}: the text has fewer than 2 tokens" in err


class Scripted:
    """A backend that loads with a notice and then measures, to a given end."""

    def __init__(self, *ends: Event) -> None:
        self._ends = ends

    def start(self, sink: Sink) -> None:
        self._sink = sink

    def submit(self, command: Command) -> None:
        told: tuple[Event, ...] = ()
        match command:
            case Load():
                told = (Loading("reading"), Notice("heed this"), Ready(MODEL))
            case Score():
                told = (Scoring(0, 120, 4095, 40.0, None), Scoring(0, 2048, 4095, 41.0, 20.9755), *self._ends)
        for event in told:
            self._sink(event)

    def close(self, timeout: float) -> bool:
        return True


def measured(*ends: Event) -> int:
    sample = perplexity.Sample("a.txt", "some text", None, None)
    return perplexity.run(Scripted(*ends), LoadOptions("anywhere"), sample, as_json=False)


def test_progress_of_a_perplexity_is_one_line_for_who_looks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Perplexity(20.9755, 4095, 1, 41.5)
    assert measured(Scored(0, result)) == 0
    out, err = capsys.readouterr()
    assert out == "perplexity 20.98 · 4095 tokens in 1 window · 41.5 tok/s\n"
    assert err.splitlines()[0] == "heed this"
    assert len(err.splitlines()) == 2
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert measured(Scored(0, result)) == 0
    out, err = capsys.readouterr()
    assert out == "perplexity 20.98 · 4095 tokens in 1 window · 41.5 tok/s\n"
    assert err.split("\r\x1b[K") == [
        "",
        "reading",
        "heed this\n",
        "fake-135m · float16 · cpu · chatml format · context 4096 · loaded in 1.0 s\n",
        "120 of 4095 tokens · 40.0 tok/s · 99 s left",
        "2048 of 4095 tokens · 41.0 tok/s · 50 s left · perplexity 20.98",
        "",
    ]


def test_a_fault_in_a_perplexity_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert measured(Failed("ValueError: oh", user=False), Scored(0, error="ValueError: oh")) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\nllama-tui: ValueError: oh\n")


def test_a_system_prompt_enters_the_first_message(run: Run, stories: Path) -> None:
    lengths = []
    for more in ([], ["--system", "Be brief."], ["--sys", "Be brief."]):
        _, out, _ = run(
            stories, "--prompt", "Hi", "--json", "--max-tokens", 1, "--chat-format", "llama2", *more
        )  # fmt: skip
        lengths.append(json.loads(out)["prompt_tokens"])
    assert lengths[0] < lengths[1] == lengths[2]


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (["--temperature", "0.3"], "temperature", 0.3),
        (["--top_p", "0.5"], "top_p", 0.5),
        (["--top-k", "7"], "top_k", 7),
        (["--min-p", "off"], "min_p", 0.0),
        (["--repeat_penalty", "1.2"], "repeat_penalty", 1.2),
        (["--mirostat", "2"], "mirostat", 2),
        (["--mirostat-ent", "3"], "mirostat_tau", 3.0),
        (["--mirostat-lr", "0.2"], "mirostat_eta", 0.2),
        (["--seed", "7"], "seed", 7),
        (["--max_len", "64"], "context", 64),
        (["--cpu"], "device", "cpu"),
        (["--device", "cuda:1"], "device", "cuda:1"),
        (["--f16"], "dtype", "float16"),
        (["--sys", "x"], "system", "x"),
        (["--chat-format", "none"], "chat_format", "none"),
        (["--vram", "6GB"], "vram", 6 * 10**9),
        (["--ram", "1GiB"], "ram", 2**30),
        (["--quant", "int8-mixed"], "quant", "int8-mixed"),
        (["--offload_exclusion", "w1", "w2,w3"], "offload_exclusion", ("w1", "w2", "w3")),
        (["--offload-exclusion", "[w1,", "w2]"], "offload_exclusion", ("w1", "w2")),
        (["--offload-exclusion", "w1", "--offload-exclusion", "w2"], "offload_exclusion", ("w1", "w2")),
        (["--cpu-layers", "layers.0-3", "output"], "cpu_layers", ("layers.0-3", "output")),
    ],
)
def test_spellings_old_and_new(flags: list[str], key: str, value: object) -> None:
    request = cli.parse(["--demo", "--prompt", "x", *flags])
    assert request.start.values == default_values() | {key: value}


def test_flags_of_placement_become_options() -> None:
    given = cli.parse(
        ["--synthetic", "7B", "--prompt", "1", "--device", "sim", "--sim-vram", "3GB", "--sim_link", "2.5",
         "--vram", "2GB", "--ram", "9GB", "--offload_exclusion", "w1", "w2", "--cpu_layers", "output"]
    ).options  # fmt: skip
    assert given == LoadOptions(
        "", None, device="sim", synthetic="7b", offload=True, keep=("w1", "w2"), cpu_layers=("output",),
        vram=2 * 10**9, ram=9 * 10**9, sim_vram=3 * 10**9, sim_link=2.5,
    )  # fmt: skip
    for flag in ("--offload", "--use_offload"):
        plain = cli.parse(["--synthetic", "7b", "--prompt", "1", flag]).options
        assert plain == LoadOptions("", None, synthetic="7b", offload=True)
    assert cli.parse(["--synthetic", "7b", "--prompt", "1"]).options == LoadOptions("", None, synthetic="7b")


def test_every_parameter_has_its_flag_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(flag in text for param in PARAMS for flag in param.flags)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "missing folder": (["/nowhere", "--prompt", "x"], "/nowhere: no such file or folder"),
    "missing folder, empty stdin": (["/nowhere"], "/nowhere: no such file or folder"),
    "missing tokenizer": (["STORIES", "/no/tok", "--prompt", "x"], "/no/tok: no such tokenizer"),
    "nothing": (["--prompt", "x"], "no checkpoint; give its folder"),
    "two models": (["STORIES", "--demo", "--prompt", "x"], "--demo stands in for the checkpoint"),
    "out of range": (["STORIES", "--prompt", "x", "--temperature", "-3"], "--temperature -3: out of range"),
    "not a number": (
        ["STORIES", "--prompt", "x", "--top-p", "much"],
        "--top-p 'much': give a number from 0 to 1",
    ),
    "not finite": (["STORIES", "--prompt", "x", "--temperature", "nan"], "--temperature nan: out of range"),
    "no choice": (["STORIES", "--prompt", "x", "--mirostat", "3"], "choose one of 0, 1, 2"),
    "no such flag": (["STORIES", "--prompt", "x", "--topp", "1"], "unrecognized arguments: --topp"),
    "no value": (["STORIES", "--prompt", "x", "--seed"], "expected one argument"),
    "empty prompt": (["STORIES", "--prompt", " "], "--prompt is empty"),
    "empty stdin": (["STORIES"], "stdin is empty"),
    "both": (["STORIES", "--prompt", "x", "--script", "y"], "leave one out"),
    "no script": (["STORIES", "--script", "/no/script"], "/no/script: cannot be read"),
    "stats": (["STORIES", "--prompt", "x", "--stats", "/no/dir/f"], "/no/dir/f: cannot be written"),
    "tags": (
        ["STORIES", "--prompt", "[INST] hi", "--chat-format", "llama2"],
        "[INST] is a mark of the llama2",
    ),
    "too long": (["STORIES", "--prompt", "word " * 50, "--context", "16"], "do not fit in the context 16"),
    "beyond the model": (["STORIES", "--prompt", "x", "--context", "9999"], "this model's limit is 4096"),
    "other tokenizer": (
        ["STORIES", "LLAMA2", "--prompt", "x"],
        "the tokenizer has 32000 tokens, but the embedding of stories260K has 512",
    ),
    "bench": (["STORIES", "--bench", "--plan"], "--bench and --plan are both given"),
    "perplexity of nothing": (
        ["STORIES", "--perplexity", "/no/text"],
        "--perplexity /no/text: cannot be read",
    ),
    "perplexity of a folder": (["STORIES", "--perplexity", "STORIES"], "cannot be read (Is a directory)"),
    "perplexity of no text": (
        ["STORIES", "--perplexity", "STORIES/consolidated.00.pth"],
        "consolidated.00.pth: byte 64 is 0x80, which is not UTF-8",
    ),
    "perplexity of an empty file": (["STORIES", "--perplexity", "/dev/null"], "/dev/null: the file is empty"),
    "perplexity and prompt": (
        ["STORIES", "--perplexity", "/no/text", "--prompt", "x"],
        "--perplexity and --prompt are both given",
    ),
    "perplexity and script": (
        ["STORIES", "--perplexity", "/no/text", "--script", "-"],
        "--perplexity and --script are both given",
    ),
    "perplexity and stats": (
        ["STORIES", "--perplexity", "/no/text", "--stats", "/dev/null"],
        "--stats keeps replies; with --perplexity use --json",
    ),
    "one token": (
        ["STORIES", "--perplexity", "/no/text", "--tokens", "1"],
        "--tokens 1: give a whole number of at least 2",
    ),
    "no row": (["STORIES", "--perplexity", "/no/text", "--rows", "-1"], "--rows -1: give a whole number"),
    "tokens of what": (["STORIES", "--prompt", "x", "--tokens", "9"], "--tokens goes with --perplexity FILE"),
    "rows of what": (["STORIES", "--prompt", "x", "--rows", "9"], "--rows goes with --perplexity FILE"),
    "synthetic": (
        ["--synthetic", "8b", "--prompt", "1"],
        "--synthetic 8b: there is no such shape; choose 1b, 7b",
    ),
    "two models again": (
        ["STORIES", "--synthetic", "7b"],
        "--synthetic stands in for the checkpoint, but '",
    ),
    "two stand-ins": (["--demo", "--synthetic", "7b"], "but --demo is given too; leave one out"),
    "vram": (["STORIES", "--vram", "6"], "--vram 6: a size needs its unit; give 6GB or 6GiB"),
    "ram": (["STORIES", "--ram", "much"], "--ram 'much': give a size with its unit"),
    "vram of what": (
        ["STORIES", "--prompt", "x", "--cpu", "--vram", "6GB"],
        "--vram needs a device to stream to, and this is the CPU",
    ),
    "offload of the CPU": (
        ["STORIES", "--prompt", "x", "--device", "cpu", "--use_offload"],
        "--offload needs a device to stream to, and this is the CPU; leave it out, or try --device sim",
    ),
    "exclusion": (
        ["STORIES", "--prompt", "x", "--offload_exclusion", "w1", "w9"],
        "--offload-exclusion w9: no such weights; the names are wq wk wv wo w1 w2 w3 attention",
    ),
    "layers": (["STORIES", "--prompt", "x", "--cpu-layers", "layers.9-2"], "the layers run backwards"),
    "no such layer": (
        ["--synthetic", "7b", "--prompt", "1", "--cpu_layers", "layers.32"],
        "--cpu-layers layers.32: this model has layers 0 to 31",
    ),
    "sim vram": (["STORIES", "--prompt", "x", "--sim-vram", "1GB"], "--sim-vram goes with --device sim"),
    "sim link": (
        ["STORIES", "--prompt", "x", "--device", "sim", "--sim-link", "0"],
        "--sim-link 0: give GB/s from 0.001 to 10000",
    ),
    "plan and prompt": (["STORIES", "--plan", "--prompt", "x"], "--plan and --prompt are both given"),
    "plan and stats": (["STORIES", "--plan", "--stats", "/dev/null"], "--plan and --stats are both given"),
    "plan that does not fit": (
        [
            "--synthetic",
            "7b",
            "--plan",
            "--device",
            "sim",
            "--sim-vram",
            "2GB",
            "--json",
            "--kernels",
            "torch",
        ],
        "it needs 4.74 GB of simulated VRAM and has 2 GB, 2.75 GB too little; what helps: --context",
    ),
    "clear more": (["STORIES", "--clear-cache"], "--clear-cache deletes files and does nothing else"),
    "quant": (["STORIES", "--prompt", "x", "--quant", "int3"], "--quant 'int3': choose one of none, int8,"),
    "kv": (["STORIES", "--prompt", "x", "--kv", "int4"], "--kv 'int4': choose one of float, int8"),
    "8bit": (["STORIES", "--use_8bit", "--quant", "nf4"], "--use_8bit and --quant nf4 are both given"),
    "llama3": (
        ["STORIES", "--prompt", "x", "--chat-format", "llama3"],
        "--chat-format llama3: this tokenizer has no <|begin_of_text|>",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_on_stderr_and_status_2(
    run: Run, stories: Path, shared_data: Path, case: str
) -> None:
    argv, message = MISTAKES[case]
    places = {"STORIES": str(stories), "LLAMA2": str(shared_data / "llama2" / "tokenizer.model")}
    argv = [re.sub("^(STORIES|LLAMA2)", lambda match: places[match[0]], arg) for arg in argv]
    code, out, err = run(*argv, stdin=Input())
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("llama-tui: ")
    assert message in err


def test_the_cache_is_cleared_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.weights import packed_files

    files = [(Path("/cache/a.packed"), 13_500_000_000), (Path("/cache/b.packed"), 500_000_000)]
    monkeypatch.setattr(packed_files, "clear", lambda: files)
    code, out, err = run("--clear-cache", stdin=Input())
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "deleted /cache/a.packed (13.5 GB)",
        "deleted /cache/b.packed (500 MB)",
        "14 GB in 2 files",
    ]
    files.clear()
    assert run("--clear-cache") == (0, "there were no packed files\n", "")


def test_no_terminal_is_said(run: Run, stories: Path) -> None:
    code, out, err = run(stories)  # stdin a terminal, stdout captured
    assert (code, out) == (2, "")
    assert "no terminal to draw on; give --prompt TEXT" in err


@pytest.fixture
def program() -> list[str]:
    return [sys.executable, "-c", "import sys; from tui.cli import main; sys.exit(main())"]


@pytest.mark.alone
def test_ctrl_c_hands_over_what_was_said_and_exits_130(program: list[str], stories: Path) -> None:
    argv = [*program, str(stories), "--prompt", "Once", "--temperature", "0", "--max-tokens", "9999"]
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        # A shell's background jobs ignore interrupts, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        first = os.read(process.stdout.fileno(), 10)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        began = time.perf_counter()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.perf_counter() - began < 3
    assert first
    assert out.endswith(b"\n")
    assert b"cancelled" in err
    assert b"Traceback" not in err


@pytest.mark.alone
def test_ctrl_c_ends_a_perplexity_with_130_and_no_result(
    program: list[str], stories: Path, shared_data: Path
) -> None:
    text = shared_data / "text" / "wikitext2.test.raw"
    with subprocess.Popen(
        [*program, str(stories), "--perplexity", str(text), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        assert b"stories260K" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        began = time.perf_counter()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.perf_counter() - began < 4
    assert (out, err) == (b"", b"")


def test_a_reader_that_leaves_is_no_traceback(program: list[str], stories: Path) -> None:
    argv = [*program, str(stories), "--prompt", "Once", "--temperature", "0", "--max-tokens", "3000"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 10)
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(timeout=20)
    assert process.returncode == 1
    assert b"Traceback" not in err
    assert b"BrokenPipe" not in err


def test_mistakes_are_told_without_importing_torch(program: list[str]) -> None:
    code = "import sys; from tui.cli import main; main(['/nowhere']); assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
