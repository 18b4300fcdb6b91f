"""config.toml as it is understood: values, and a line for whatever is wrong."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config.lines import line_of
from core.config.read import Config, read_config
from core.config.write import save_preset
from core.errors import UserError
from core.presets import PRESET_PARAMS, SHIPPED

GOOD = '''\
# mine
[defaults]
temperature = 1          # whole numbers will do
top_p = "off"
seed = "random"
context = 2048
vram = "6GB"
offload_exclusion = ["w1", "layers.0-3"]
cpu_layers = "w2,w3"
device = "cuda:1"
chat_format = "none"
mirostat = 2

[presets.terse]
temperature = 0.1
max_tokens = 64
system = """
Be brief.
Always."""

[keys]
regenerate = "f5"
preset = "ctrl+b,f10"

[ui]
preset = "terse"
theme = "nord"
history = false
ascii = false
bell = false
'''


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path)


def test_what_a_good_file_says(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert config.warnings == ()
    assert config.defaults == {
        "temperature": 1.0, "top_p": 1.0, "seed": None, "context": 2048, "vram": 6 * 10**9,
        "offload_exclusion": ("w1", "layers.0-3"), "cpu_layers": ("w2", "w3"), "device": "cuda:1",
        "chat_format": "none", "mirostat": 2,
    }  # fmt: skip
    assert isinstance(config.defaults["temperature"], float)
    terse = {"temperature": 0.1, "max_tokens": 64, "system": "Be brief.\nAlways."}
    assert config.presets == {"terse": terse}
    assert list(config.known_presets) == [*SHIPPED, "terse"]
    assert config.keys == {"regenerate": "f5", "preset": "ctrl+b,f10"}
    assert (config.preset, config.theme, config.history) == ("terse", "nord", False)
    assert (config.ascii, config.bell) == (False, False)
    assert config.place("ui", "theme") == "config.toml line 27"


def test_a_preset_of_a_shipped_name_wins_and_keeps_its_place(tmp_path: Path) -> None:
    config = read(tmp_path, "[presets.precise]\ntemperature = 0\n")
    assert list(config.known_presets) == list(SHIPPED)
    assert config.known_presets["precise"] == {"temperature": 0.0}


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        (
            "[defaults]\n\ntemperature = 9\ntop_k = 3",
            ["3: temperature 9: out of range, give a number from 0 to 5"],
        ),
        (
            "[defaults]\ntop_k = 1.5\ntop_k2 = 1",
            [
                "2: top_k 1.5: give a whole number from 0 to 1000000",
                "3: top_k2 is unknown; did you mean top_k?",
            ],
        ),
        ("[defaults]\nmax_tokens = true", ["2: max_tokens true: give a whole number from 1 to 1000000"]),
        ("[defaults]\ntemperature = false", ["2: temperature false: give a number from 0 to 5"]),
        ('[defaults]\ntemperature = "0.5"', ['2: temperature "0.5": give a number from 0 to 5']),
        ("[defaults]\ntemperature = nan", ["2: temperature nan: out of range, give a number from 0 to 5"]),
        ("[defaults]\nmirostat = 3", ["2: mirostat '3': choose one of 0, 1, 2"]),
        ('[defaults]\nmirostat = "2"', ['2: mirostat "2": give one of 0, 1, 2']),
        ("[defaults]\nvram = 6", ["2: vram 6: a size needs its unit; give 6GB or 6GiB"]),
        ("[defaults]\nsystem = 3", ["2: system 3: give a text in quotes"]),
        ("[defaults]\nsystem = 1979-05-27", ['2: system "1979-05-27": give a text in quotes']),
        (
            "[defaults]\noffload_exclusion = [1]",
            ['2: offload_exclusion [1]: give names in quotes, such as "w1,w2" or ["w1", "w2"]'],
        ),
        ("temperature = 1", ["1: temperature belongs below [defaults]"]),
        ("\n[preset.mine]\ntemperature = 1", ["2: [preset] is no section of it; did you mean presets?"]),
        ("ui = 3", ["1: ui is a section; write [ui] and its entries below"]),
        ("[[ui]]\ntheme = 'x'", ["1: ui is a section; write [ui] and its entries below"]),
        ("[presets]\nmine = 3", ["2: mine is no preset; write [presets.NAME] and its values below"]),
        ('[presets."my own"]\n', ["1: preset 'my own': give a name of letters, digits, - and _, at most 32"]),
        (
            "[presets.mine]\ntop_p = 0.5\ndevice = 'cpu'",
            [
                "3: device is chosen when a model is loaded, so it cannot be in a preset; put it "
                "below [defaults]"
            ],
        ),
        ("[keys]\nregenerate = 5", ['2: regenerate 5: give a key in quotes, such as "f5" or "ctrl+r,f5"']),
        (
            "[ui]\nhistory = 1\nthemes = 'x'\nascii = 'yes'",
            [
                "2: history 1: give true or false",
                "3: themes is unknown; did you mean theme?",
                '4: ascii "yes": give true or false',
            ],
        ),
        (
            '[ui]\n"a\\u001b[2J" = 1',
            ["2: 'a\\x1b[2J' is unknown; there are preset, theme, history, ascii, bell, mouse"],
        ),
    ],
)
def test_what_is_wrong_is_a_warning_with_its_line(tmp_path: Path, text: str, warnings: list[str]) -> None:
    said = [f"config.toml line {warning}; ignored" for warning in warnings]
    assert list(read(tmp_path, text).warnings) == said


def test_the_rest_of_a_file_still_counts(tmp_path: Path) -> None:
    config = read(
        tmp_path, "[defaults]\ntemperature = 9\ntop_k = 3\n[nonsense]\n[ui]\ntheme = 3\nhistory = false"
    )
    assert config.defaults == {"top_k": 3}
    assert config.history is False
    assert len(config.warnings) == 3


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (b"[defaults]\ntop_k = 1\ntop_k\n", "config.toml line 3: this is no TOML (Unexpected character"),
        (b"a = 1\na = 2\n", 'config.toml line 2: this is no TOML (Key "a" already exists)'),
        (b"[a]\n[a.b]\n[a.b]\n", "config.toml line 3: this is no TOML"),
        (b"a = 1\nb = '\xff'\n", "config.toml line 2: this is not UTF-8; nothing of it counts"),
        (b"a = " + b"[" * 5000, "config.toml line 1: this is no TOML"),
        (b"a = " + b"9" * 5000, "config.toml line 1: this is no TOML"),
    ],
)
def test_a_file_that_is_no_toml_is_one_warning(tmp_path: Path, data: bytes, warning: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(data)
    config = read_config(path)
    assert len(config.warnings) == 1
    assert config.warnings[0].startswith(warning)
    assert config.warnings[0].endswith("; nothing of it counts")
    assert config == Config(path, warnings=config.warnings)


def test_no_file_says_nothing_and_one_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    assert read_config(tmp_path / "config.toml") == Config(tmp_path / "config.toml")
    assert read_config(tmp_path).warnings == (
        f"{tmp_path}: cannot be read (Is a directory); nothing of it counts",
    )
    locked = tmp_path / "locked.toml"
    locked.write_text("[ui]")
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user may read everything")
    assert "cannot be read (Permission denied)" in read_config(locked).warnings[0]
    locked.chmod(stat.S_IRUSR)


def test_line_ends_and_byte_order_mark_of_other_systems(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf[defaults]\r\ntop_k = 3\r\ntop_p = 2\r\n")
    config = read_config(path)
    assert config.defaults == {"top_k": 3}
    assert config.warnings[0].startswith("config.toml line 3: top_p 2")


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    config = read(tmp_path, "[ui]\n" + "".join(f"key{i} = 1\n" for i in range(100)))
    assert len(config.warnings) == 21
    assert config.warnings[19].startswith("config.toml line 21: key19 is unknown")
    assert config.warnings[20] == "config.toml: 80 more entries are ignored"


def test_the_shipped_presets_pass_their_own_checks(tmp_path: Path) -> None:
    lines = [f"[presets.{name}]\n" + "".join(f"{k} = {v}\n" for k, v in preset.items())
             for name, preset in SHIPPED.items()]  # fmt: skip
    config = read(tmp_path, "\n".join(lines))
    assert config.warnings == ()
    assert config.presets == SHIPPED
    assert len({frozenset(preset) for preset in SHIPPED.values()}) == 1
    assert {key for preset in SHIPPED.values() for key in preset} <= {param.key for param in PRESET_PARAMS}


# --- lines ----------------------------------------------------------------------------------------

LINES = '''\
# comment = 1
top = 1

[defaults] # header = 2
"top_p" = 2
system = """
temperature = 3
[keys]"""
temperature = 9
presets.x = 1
   [presets.a]
   x = 1
[ui]
theme = "x"
[presets.b]
y = 2
[presets]
inline = { q = 1, z = { zz = 3 } }
[[rows]]
a = 1
[[rows]]
b = 2
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("top", 2), ("defaults", 4), ("defaults top_p", 5), ("defaults system", 6),
        ("defaults temperature", 9), ("defaults presets x", 10), ("presets", 11), ("presets a", 11),
        ("presets a x", 12), ("ui", 13), ("ui theme", 14), ("presets b", 15), ("presets b y", 16),
        ("presets inline", 18), ("presets inline z zz", 18), ("rows", 19), ("rows b", 22),
        ("ui unknown", 13), ("ui theme x", 14), ("nowhere", None),
    ],
)  # fmt: skip
def test_the_line_of_a_key(path: str, line: int | None) -> None:
    assert line_of(LINES, path.split()) == line


def test_the_line_of_dotted_keys_and_of_a_table_over_several_lines() -> None:
    text = (
        'ui.theme = "x"\n"ui" . \'history\' = 3\npresets = { a = { x = 1 },\n b = { y = 2 } }\n'
        "defaults.top_k = 1\n"
    )
    for path, line in (("ui theme", 1), ("ui history", 2), ("presets a x", 3), ("presets b", 4),
                       ("presets b y", 4), ("defaults", 5), ("defaults top_k", 5)):  # fmt: skip
        assert line_of(text, path.split()) == line, path


_names = st.lists(st.sampled_from(["a", "b", "c", "d.e", "f g"]), unique=True, max_size=4)
_noise = st.lists(st.sampled_from(["", "# a = 1", "  # [a]", "\t"]), max_size=2)


@given(st.lists(st.tuples(_noise, _names), min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"]))
def test_lines_of_any_layout(tables: list[tuple[list[str], list[str]]], end: str) -> None:
    """The oracle is where this test has put each key."""
    lines: list[str] = []
    wanted: dict[tuple[str, str], int] = {}
    for index, (noise, names) in enumerate(tables):
        lines += [*noise, f"[t{index}]"]
        for name in names:
            lines += [*noise, f'"{name}" = """', "a = 1", '"""']
            wanted[f"t{index}", name] = len(lines) - 2
    text = end.join(lines)
    for path, line in wanted.items():
        assert line_of(text, path) == line


_pieces = st.sampled_from(
    [
        "[defaults]",
        "[presets.a]",
        "[[ui]]",
        "[keys",
        "a.b = 1",
        "ui.theme = ''",
        "x = {",
        "}",
        '"""',
        "= 3",
        "temperature = 9",
        "presets = 1",
        "\x00",
        "'",
        "# [ui]",
        "[ui.theme]",
        "top_k = 1_000",
        "nan",
        "\r",
    ]
)


@given(st.lists(_pieces | st.text(max_size=5), max_size=8).map("\n".join))
def test_no_text_is_an_error_and_what_is_written_is_read_back(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        before, data = read_config(path), path.read_bytes()
        try:
            save_preset(path, "new", {"temperature": 0.5})
        except UserError:
            assert path.read_bytes() == data
            return
        after = read_config(path)
        assert after.presets == {**before.presets, "new": {"temperature": 0.5}}
        assert (after.defaults, after.keys, after.theme) == (before.defaults, before.keys, before.theme)
        assert len(after.warnings) == len(before.warnings)
