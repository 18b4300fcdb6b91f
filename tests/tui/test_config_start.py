"""What every setting begins with: flag, environment, preset, config.toml, table; and --locate."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from core.config.read import Config, read_config
from core.errors import UserError
from core.options import PARAMS, LoadOptions, Value, default_values
from core.presets import SHIPPED
from tests.tui.test_cli import Input
from tui import cli
from tui.settings import Settings
from tui.start_values import resolve

Run = Callable[..., tuple[int, str, str]]
NOWHERE = Config(Path("config.toml"))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes the user's configuration."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv("LLAMA_TUI_CONFIG", str(path))
    for param in PARAMS:
        monkeypatch.delenv(f"LLAMA_TUI_{param.key.upper()}", raising=False)

    def written(text: str) -> Path:
        path.write_text(text)
        return path

    return written


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*argv: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", Input(terminal=True))
        code = cli.main([str(arg) for arg in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


# Who says what of temperature, and what holds: typed, environment, preset, config.toml.
LEVELS: list[tuple[float | None, str | None, float | None, float | None, float]] = [
    (None, None, None, None, 0.6),
    (None, None, None, 0.4, 0.4),
    (None, None, 0.3, None, 0.3),
    (None, None, 0.3, 0.4, 0.3),
    (None, "0.2", None, None, 0.2),
    (None, "0.2", None, 0.4, 0.2),
    (None, "0.2", 0.3, 0.4, 0.2),
    (None, "", 0.3, 0.4, 0.3),
    (0.1, None, None, None, 0.1),
    (0.1, None, 0.3, 0.4, 0.1),
    (0.1, "0.2", 0.3, 0.4, 0.1),
    (0.6, "0.2", 0.3, 0.4, 0.6),
]


@pytest.mark.parametrize(("typed", "variable", "preset", "default", "held"), LEVELS)
def test_who_comes_first(
    typed: float | None, variable: str | None, preset: float | None, default: float | None, held: float
) -> None:
    config = Config(
        Path("config.toml"),
        defaults={} if default is None else {"temperature": default, "top_k": 9},
        presets={"mine": {} if preset is None else {"temperature": preset, "min_p": 0.2}},
    )
    start = resolve(
        {} if typed is None else {"temperature": typed},
        "mine",
        {} if variable is None else {"LLAMA_TUI_TEMPERATURE": variable},
        config,
    )
    beside: dict[str, Value] = {} if default is None else {"top_k": 9}
    beside |= {} if preset is None else {"min_p": 0.2}
    assert start.values == default_values() | beside | {"temperature": held}
    assert (start.preset, start.notes) == ("mine", ())
    settings = Settings(start.values, start.presets, start.preset, start.replaced)
    marked = {param.key for param in PARAMS if settings.is_changed(param)}
    assert marked == beside.keys() | ({"temperature"} if held != 0.6 else set())
    kept = preset is None or held == preset
    assert settings.preset_words == ("mine" if kept else "mine*")


@pytest.mark.parametrize(
    ("asked", "variable", "configured", "chosen"),
    [
        ("creative", "precise", "mirostat", "creative"),
        (None, "precise", "mirostat", "precise"),
        (None, "", "mirostat", "mirostat"),
        (None, None, "mirostat", "mirostat"),
        (None, None, None, None),
    ],
)
def test_who_names_the_preset(
    asked: str | None, variable: str | None, configured: str | None, chosen: str | None
) -> None:
    environ = {} if variable is None else {"LLAMA_TUI_PRESET": variable}
    start = resolve({}, asked, environ, Config(Path("c"), preset=configured))
    assert start.preset == chosen
    assert start.values == default_values() | (SHIPPED[chosen] if chosen else {})


ENVIRONMENT: list[tuple[str, str, str, Value]] = [
    ("LLAMA_TUI_QUANT", "int8", "quant", "int8"),
    ("LLAMA_TUI_DEVICE", "cuda:1", "device", "cuda:1"),
    ("LLAMA_TUI_VRAM", "6GB", "vram", 6 * 10**9),
    ("LLAMA_TUI_OFFLOAD_EXCLUSION", "w1,w2", "offload_exclusion", ("w1", "w2")),
    ("LLAMA_TUI_SEED", "random", "seed", None),
    ("LLAMA_TUI_SYSTEM", "Be brief.", "system", "Be brief."),
]


@pytest.mark.parametrize(("name", "text", "key", "value"), ENVIRONMENT)
def test_the_environment_sets_any_parameter(name: str, text: str, key: str, value: Value) -> None:
    assert resolve({}, None, {name: text}, NOWHERE).values == default_values() | {key: value}


def test_what_the_environment_means_nothing_by() -> None:
    for environ, message in (
        ({"LLAMA_TUI_TEMPERATURE": "9"}, "LLAMA_TUI_TEMPERATURE 9: out of range, give a number from 0 to 5"),
        ({"LLAMA_TUI_QUANT": "int3"}, "LLAMA_TUI_QUANT 'int3': choose one of none, int8,"),
        ({"LLAMA_TUI_PRESET": "wild"}, "LLAMA_TUI_PRESET 'wild': there is no such preset; choose precise, "),
    ):
        with pytest.raises(UserError, match=message):
            resolve({}, None, environ, NOWHERE)
    environ = {"LLAMA_TUI_TEMPRATURE": "1", "LLAMA_TUI_CACHE": "/x", "LLAMA_TUI_NATIVE": "0", "LLAMA": "x"}
    assert resolve({}, None, environ, NOWHERE).notes == (
        "LLAMA_TUI_TEMPRATURE is unknown; did you mean LLAMA_TUI_TEMPERATURE?; ignored",
    )


def test_an_unknown_preset_is_refused_where_it_is_typed_and_noted_where_it_is_configured(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[presets.mine]\n[ui]\npreset = 'wild'\n")
    config = read_config(path)
    listing = "there is no such preset; choose precise, balanced, creative, mirostat, mine"
    with pytest.raises(UserError, match=f"--preset 'wild': {listing}"):
        resolve({}, "wild", {}, config)
    start = resolve({}, None, {}, config)
    assert start.notes == (f"config.toml line 3: preset 'wild': {listing}; ignored",)
    assert start.values == default_values()


def test_configured_values_reach_the_options(write: Callable[[str], Path]) -> None:
    write(
        '[defaults]\ndevice = "sim"\nquant = "int8"\nvram = "3GB"\noffload_exclusion = "w1"\ncontext = 64\n'
    )
    argv = ["--synthetic", "1b", "--prompt", "1"]
    configured = LoadOptions(
        "", None, device="sim", synthetic="1b", quant="int8", vram=3 * 10**9, keep=("w1",), offload=True,
        context=64,
    )  # fmt: skip
    assert cli.parse(argv).options == configured
    assert cli.parse([*argv, "--sim-vram", "4GB"]).options != configured  # allowed: the device is configured
    typed = cli.parse(
        [*argv, "--use_8bit", "--offload-exclusion", "auto", "--vram", "auto", "--context", "auto"]
    )
    assert typed.options == LoadOptions("", None, device="sim", synthetic="1b", quant="int8")


@pytest.mark.parametrize(
    ("alias", "key", "value"),
    [("--use_8bit", "quant", "int8"), ("--f16", "dtype", "float16"), ("--cpu", "device", "cpu")],
)
def test_a_typed_alias_wins(write: Callable[[str], Path], alias: str, key: str, value: str) -> None:
    write('[defaults]\nquant = "nf4"\ndtype = "float32"\ndevice = "sim"\n')
    assert cli.parse(["--synthetic", "1b", "--prompt", "1", alias]).start.values[key] == value


def test_wishes_for_a_device_do_not_hinder_the_cpu(write: Callable[[str], Path]) -> None:
    write('[defaults]\nvram = "6GB"\ncpu_layers = "none"\ncontext = 64\n')
    request = cli.parse(["--synthetic", "1b", "--prompt", "1", "--cpu"])
    assert request.options == LoadOptions("", None, device="cpu", synthetic="1b", context=64)
    assert request.start.notes == ("config.toml line 2: vram needs a device, and this is the CPU; ignored",)
    with pytest.raises(UserError, match=r"^--vram needs a device to stream to"):
        cli.parse(["--synthetic", "1b", "--prompt", "1", "--cpu", "--vram", "6GB"])


def test_a_refusal_says_who_set_the_flag(
    run: Run, write: Callable[[str], Path], stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("[defaults]\ncontext = 9999\n")
    code, out, err = run(stories, "--prompt", "x")
    assert (code, out) == (2, "")
    limit = "llama-tui: --context 9999: this model's limit is 4096; give at most that"
    assert err == f"{limit} (set by config.toml line 2)\n"
    assert run(stories, "--prompt", "x", "--context", 9999) == (2, "", f"{limit}\n")
    monkeypatch.setenv("LLAMA_TUI_CPU_LAYERS", "layers.30")
    code, out, err = run("--synthetic", "1b", "--plan", "--device", "sim")
    assert "this model has layers 0 to 21" in err
    assert err.endswith("(set by LLAMA_TUI_CPU_LAYERS)\n")


def test_a_reply_without_a_screen_has_the_users_settings(
    run: Run, write: Callable[[str], Path], stories: Path
) -> None:
    write("[defaults]\ntemperature = 9\nmax_tokens = 4\n[presets.mine]\ntemperature = 0\nmax_tokens = 3\n")
    code, out, err = run(stories, "--prompt", "Once upon a", "--json")
    assert code == 0
    assert len(json.loads(out)["tokens"]) == 4
    assert err.startswith(
        "config.toml line 2: temperature 9: out of range, give a number from 0 to 5; ignored\n"
    )
    code, out, _ = run(stories, "--prompt", "Once upon a", "--preset", "mine", "--max-tokens", 2)
    assert out == " time,\n"  # greedy


def test_a_plan_has_the_users_settings(run: Run, write: Callable[[str], Path]) -> None:
    write('[defaults]\ndevice = "sim"\nquant = "int8"\ncontext = 512\n[nonsense]\n')
    code, out, err = run("--synthetic", "1b", "--plan", "--json")
    plan = json.loads(out)
    assert code == 0
    assert (plan["device"], plan["quant"], plan["context"]) == ("sim", "int8", 512)
    assert err.startswith("config.toml line 5: [nonsense] is no section of it")


@pytest.mark.parametrize(
    ("text", "flags", "history"),
    [
        ("", [], True),
        ("", ["--no-history"], False),
        ("[ui]\nhistory = false\n", [], False),
        ("[ui]\nhistory = true\n", ["--no-history"], False),
    ],
)
def test_whether_conversations_are_kept(
    write: Callable[[str], Path], text: str, flags: list[str], history: bool
) -> None:
    write(text)
    assert cli.parse(["--synthetic", "1b", "--prompt", "1", *flags]).history is history


def places(out: str) -> Mapping[str, str]:
    return dict(line.split(maxsplit=1) for line in out.splitlines())


def test_locate_prints_where_things_are(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"LLAMA_TUI_{name}", str(tmp_path / f"my {name}"))
    code, out, err = run("--locate")
    assert (code, err) == (0, "")
    found = places(out)
    assert list(found) == ["config", "history", "cache", "log"]
    assert found["config"] == str(tmp_path / "my CONFIG")
    assert found["history"] == str(tmp_path / "my DATA" / "history.db")
    assert found["cache"] == str(tmp_path / "my CACHE")
    assert found["log"].endswith("llama-tui.log")
    assert list(tmp_path.iterdir()) == []


def test_locate_follows_the_platform_and_is_given_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.delenv(f"LLAMA_TUI_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/my/config")
    monkeypatch.setenv("XDG_DATA_HOME", "/my/data")
    found = places(run("--locate")[1])
    if sys.platform == "linux":
        assert found["config"] == "/my/config/llama-tui/config.toml"
        assert found["history"] == "/my/data/llama-tui/history.db"
    code, out, err = run("--locate", "--demo")
    assert (code, out) == (2, "")
    assert err == "llama-tui: --locate prints where the files are and does nothing else; give it alone\n"


@pytest.mark.parametrize(
    ("text", "flags", "mouse"),
    [
        ("", [], True),
        ("", ["--no-mouse"], False),
        ("[ui]\nmouse = false\n", [], False),
        ("[ui]\nmouse = true\n", ["--no-mouse"], False),
    ],
)
def test_the_mouse_is_left_to_the_terminal_where_that_is_wanted(
    write: Callable[[str], Path], text: str, flags: list[str], mouse: bool
) -> None:
    write(text)
    assert cli.parse(["--synthetic", "1b", "--prompt", "1", *flags]).mouse is mouse
