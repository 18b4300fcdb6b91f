"""Changes to config.toml: comments, layout, modes and links stay; two writers lose nothing."""

from __future__ import annotations

import multiprocessing
import os
import stat
import tomllib
from pathlib import Path

import pytest
from filelock import FileLock

from core.config import write
from core.config.read import read_config
from core.config.write import save_preset, save_ui
from core.errors import UserError
from core.options import default_values
from core.presets import SHIPPED, kept_values

MINE = """\
# what I like
[defaults]   # at start
temperature = 0.7  # warm

[presets.mine]   # for poems
temperature = 1.1   # hot
top_k = 3

# the last section
[ui]
theme = 'nord'"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_a_first_write_makes_the_file_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "config.toml"
    assert save_preset(path, "mine", {"temperature": 0.5, "mirostat": 2, "system": 'a "b"\nc'}) is False
    save_ui(path, "theme", "nord")
    assert tomllib.loads(path.read_text()) == {
        "presets": {"mine": {"temperature": 0.5, "mirostat": 2, "system": 'a "b"\nc'}},
        "ui": {"theme": "nord"},
    }
    assert path.read_text().splitlines()[0] == "[presets.mine]"
    assert sorted(file.name for file in path.parent.iterdir()) == ["config.toml", "config.toml.lock"]


def test_only_what_changes_changes(path: Path) -> None:
    path.write_text(MINE)
    assert save_preset(path, "mine", {"temperature": 0.9, "min_p": 0.1}) is True
    save_ui(path, "theme", "gruvbox")
    save_ui(path, "history", False)
    assert path.read_text() == MINE.replace("1.1 ", "0.9 ").replace("top_k = 3", "min_p = 0.1").replace(
        "'nord'", '"gruvbox"\nhistory = false'
    ) + "\n"  # fmt: skip


def test_a_preset_is_added_below_what_is_there(path: Path) -> None:
    path.write_text(MINE)
    assert save_preset(path, "other", {"temperature": 0.1}) is False
    assert path.read_text() == f"{MINE}\n\n[presets.other]\ntemperature = 0.1\n"
    config = read_config(path)
    assert config.warnings == ()
    assert config.presets == {"mine": {"temperature": 1.1, "top_k": 3}, "other": {"temperature": 0.1}}
    assert (config.theme, config.defaults) == ("nord", {"temperature": 0.7})


@pytest.mark.parametrize(
    "text",
    [
        "presets = {}\n",
        "presets = { a = { top_k = 1 } }\n",
        "presets.a.top_k = 1\n",
        "[presets]\na = { top_k = 1 }\n",
        "[presets.a]\ntop_k = 1\n[ui]\n[presets.b]\ntop_k = 2\n",
        "[ui]\npreset = 'a'\n\n\n",
        "[presets.new]\n[presets.a]\n",
        "presets.new.temperature = 1",
    ],
)
def test_any_way_to_write_presets_can_be_added_to(path: Path, text: str) -> None:
    path.write_text(text)
    wanted = tomllib.loads(text)
    wanted.setdefault("presets", {})["new"] = {"temperature": 0.5, "top_k": 0}
    wanted.setdefault("ui", {})["theme"] = "nord"
    save_preset(path, "new", {"temperature": 0.5, "top_k": 0})
    save_ui(path, "theme", "nord")
    assert tomllib.loads(path.read_text()) == wanted


def test_all_that_can_be_set_is_read_back_as_it_was(path: Path) -> None:
    values = default_values() | {"seed": 2**63 - 1, "max_tokens": 7, "system": "\t[x] = 'y'", "top_p": 1.0}
    kept = kept_values(values)
    assert set(kept) == {*SHIPPED["balanced"], "seed", "max_tokens", "system"}
    save_preset(path, "all", kept)
    config = read_config(path)
    assert (config.presets["all"], config.warnings) == (kept, ())


@pytest.mark.parametrize("name", ["", "my own", "a.b", "ä", "x" * 33, "a]", "a\nb"])
def test_a_name_that_cannot_be_is_refused(path: Path, name: str) -> None:
    with pytest.raises(UserError, match="give a name of letters, digits, - and _"):
        save_preset(path, name, {})
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[ui\n", "config.toml line 1: this is no TOML"),
        ("ui = 3\n", "ui is not a section in it"),
        ("[[ui]]\n", "ui is not a section in it"),
    ],
)
def test_what_cannot_be_changed_is_left_as_it_is(path: Path, text: str, reason: str) -> None:
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        save_ui(path, "theme", "nord")
    assert str(refused.value).startswith(f"{path} is left as it is: {reason}")
    assert path.read_text() == text


def test_a_file_that_is_not_utf8_or_no_file_is_left_alone(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"# \xff\n")
    with pytest.raises(UserError, match="line 1: this is not UTF-8"):
        save_ui(path, "theme", "nord")
    assert path.read_bytes() == b"# \xff\n"
    with pytest.raises(UserError, match="it is no regular file"):
        save_ui(tmp_path, "theme", "nord")
    with pytest.raises(UserError, match="cannot be written"):
        save_ui(path / "below a file", "theme", "nord")


def test_mode_and_link_stay(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "llama.toml"
    target.parent.mkdir()
    target.write_text("# mine\n")
    target.chmod(0o640)
    path.symlink_to(target)
    save_ui(path, "theme", "nord")
    assert path.is_symlink()
    assert target.read_text() == '# mine\n\n[ui]\ntheme = "nord"\n'
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_line_ends_stay(path: Path) -> None:
    path.write_bytes(b"# mine\r\n[ui]\r\ntheme = 'a'\r\n")
    save_ui(path, "theme", "b")
    assert path.read_bytes() == b'# mine\r\n[ui]\r\ntheme = "b"\r\n'


def test_a_write_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(MINE)

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        save_ui(path, "theme", "gruvbox")
    assert path.read_text() == MINE
    assert {file.name for file in path.parent.iterdir()} <= {"config.toml", "config.toml.lock"}


def test_who_holds_the_lock_too_long_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_WAIT_S", 0.05)
    with (
        FileLock(path.with_name("config.toml.lock")),
        pytest.raises(UserError, match="another program has held"),
    ):
        save_ui(path, "theme", "nord")


def _save_some(path: Path, writer: int) -> None:
    for number in range(5):
        save_preset(path, f"p{writer}-{number}", {"top_k": number})


def test_writers_at_once_lose_nothing(path: Path) -> None:
    path.write_text("# mine\n")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_save_some, args=(path, writer)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(20)
        assert process.exitcode == 0
    presets = read_config(path).presets
    assert presets == {f"p{w}-{n}": {"top_k": n} for w in range(4) for n in range(5)}
    assert path.read_text().startswith("# mine\n")
