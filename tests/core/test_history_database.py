"""The database file: versions, other programs, bad disks, damage."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from core.errors import UserError
from core.history import database, schema
from core.history.database import Database, NewerDatabase
from core.history.store import History
from tests.core.saved_chats import chat, reply, user


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.db"


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def history(path: Path, notes: list[str]) -> Iterator[History]:
    found = History(path, notes.append)
    yield found
    found.close()


def fill(history: History, count: int) -> list[int]:
    """Chats of four messages, long enough that each takes a page or so."""
    return [
        history.add(
            chat(
                user(1, None, f"question {i} " + "x" * 700),
                reply(2, 1, f"answer {i} " + "y" * 300),
                user(3, 2, f"and {i}?"),
                reply(4, 3, f"well {i}"),
                title=f"chat {i}",
                updated=float(i),
            )
        )
        for i in range(count)
    ]


def settled(path: Path) -> None:
    """The write-ahead log into the file."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def test_it_is_private_in_wal_mode_and_whole(path: Path, history: History) -> None:
    fill(history, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert history._database.read(lambda db: db.execute("PRAGMA foreign_keys").fetchone()) == (1,)


def test_what_goes_wrong_in_a_write_leaves_nothing(path: Path) -> None:
    data = Database(path)

    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO chats (title, created, updated, model, launch) VALUES ('a', 0, 0, '', '{}')")
        raise KeyError("halfway")

    with pytest.raises(KeyError):
        data.write(half)
    assert data.read(lambda db: db.execute("SELECT count(*) FROM chats").fetchone()) == (0,)


# --- versions ---------------------------------------------------------------------------------------


def test_a_newer_database_is_refused_and_not_touched(path: Path, history: History) -> None:
    fill(history, 1)
    other = History(path)
    other.rows()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
    history.close()
    with pytest.raises(NewerDatabase, match=r"newer llama-tui \(version 2, this one knows 1\)"):
        history.rows()
    with pytest.raises(NewerDatabase):  # and by those that had it open already
        other.rename(1, "x")
    other.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT title FROM chats").fetchall() == [("chat 0",)]
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
    assert {file.name for file in path.parent.iterdir()} <= {"history.db", "history.db.lock"}


def test_an_older_one_is_migrated_with_a_copy(
    path: Path, history: History, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(history, 3)
    history.close()
    second = "ALTER TABLE chats ADD COLUMN folder TEXT NOT NULL DEFAULT 'all'"
    monkeypatch.setattr(database, "SCRIPTS", (*schema.SCRIPTS, second))
    assert [row.title for row in history.rows()] == ["chat 2", "chat 1", "chat 0"]
    copy = path.with_name("history.version-1.db")
    assert [str(copy) in note for note in notes] == [True]
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (12,)
        assert "folder" not in str(db.execute("SELECT sql FROM sqlite_master").fetchall())
    assert (
        history._database.read(lambda db: db.execute("SELECT folder FROM chats").fetchall()) == [("all",)] * 3
    )


def test_a_migration_that_fails_changes_nothing(
    path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(history, 1)
    history.close()
    scripts = (*schema.SCRIPTS, "ALTER TABLE chats ADD COLUMN a TEXT; INSERT INTO nowhere VALUES (1)")
    with monkeypatch.context() as patch:
        patch.setattr(database, "SCRIPTS", scripts)
        with pytest.raises(UserError, match="no such table: nowhere"):
            history.rows()
    assert [row.title for row in history.rows()] == ["chat 0"]


def test_two_programs_may_make_it_at_once(path: Path) -> None:
    """Every one of several processes finds or makes it, and all of their chats are there."""
    code = (
        "import sys; from pathlib import Path; from core.history.store import History;"
        "from tests.core.saved_chats import chat, user;"
        "h = History(Path(sys.argv[1]), print);"
        "[h.add(chat(user(1, None, 'hi'))) for _ in range(20)]"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(4)]
    assert [run.wait(60) for run in runs] == [0, 0, 0, 0]
    assert len(History(path).rows(0, 1000)) == 80


# --- what a disk does -------------------------------------------------------------------------------


def test_a_full_disk(path: Path, history: History) -> None:
    numbers = fill(history, 3)
    pages = history._database.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    history._database.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    with pytest.raises(UserError, match="the disk is full"):
        fill(history, 20)
    assert history.load(numbers[-1]).title == "chat 2"
    history._database.read(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
    assert len(fill(history, 20)) == 20


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder(path: Path, history: History) -> None:
    fill(history, 1)
    history.close()
    path.parent.chmod(0o500)
    path.chmod(0o400)
    try:
        with pytest.raises(UserError, match=r"read-only|cannot be opened"):
            fill(history, 1)
    finally:
        path.parent.chmod(0o700)
        path.chmod(0o600)
    assert len(history.rows()) == 1


def test_on_a_medium_that_takes_nothing_it_can_be_read(path: Path, history: History) -> None:
    """As on a disk that is mounted read-only: SQLite finds no place for the file that readers share."""
    numbers = fill(history, 2)
    history.close()
    settled(path)
    path.with_name("history.db-wal").unlink(missing_ok=True)
    path.with_name("history.db-shm").mkdir()
    assert [row.id for row in history.rows()] == numbers[::-1]
    assert len(history.load(numbers[0]).messages) == 4
    with pytest.raises(UserError, match="read-only"):
        history.rename(numbers[0], "x")
    path.with_name("history.db-shm").rmdir()
    history.rename(numbers[0], "x")


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be opened"):
        History(tmp_path / "file" / "history.db").rows()
    (tmp_path / "history.db").mkdir()
    with pytest.raises(UserError, match="cannot be opened"):
        History(tmp_path / "history.db").rows()


def test_a_locked_database(path: Path, history: History) -> None:
    numbers = fill(history, 1)
    impatient = Database(path, patience=0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="locked by another program"):
            impatient.write(lambda db: db.execute("DELETE FROM messages"))
        other.execute("ROLLBACK")
    assert len(history.load(numbers[0]).messages) == 4
    impatient.close()


# --- damage -----------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_set_aside(path: Path, history: History, notes: list[str]) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database " * 1000)
    assert history.rows() == []
    aside = next(path.parent.glob("history.damaged-*.db"))
    assert aside.read_bytes() == b"not a database " * 1000
    assert len(notes) == 1
    assert "0 conversations" in notes[0]
    assert len(fill(history, 2)) == 2


def test_a_damaged_page_costs_what_was_on_it(path: Path, history: History, notes: list[str]) -> None:
    numbers = fill(history, 60)
    history.close()
    settled(path)
    size = path.stat().st_size
    root = history._database.read(
        lambda db: db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'").fetchone()[0]
    )
    history.close()
    with path.open("r+b") as file:  # somewhere in the messages, and nothing that all of them hang on
        for page in range(size // 4096 // 2, size // 4096 // 2 + 3):
            assert page + 1 != root
            file.seek(page * 4096)
            file.write(b"\xa5" * 4096)
    read = []
    for number in numbers:
        try:
            read.append(history.load(number))
        except KeyError:
            continue
    history.search("question")  # whichever table was hit
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    kept = history.rows(0, 1000)
    assert sum(row.messages for row in kept) >= 60 * 4 * 0.9
    assert [row.title for row in kept if not row.title.startswith("recovered")]
    assert len(notes) == len(list(path.parent.glob("history.damaged-*.db"))) <= 1
    assert fill(history, 1)[0] > numbers[-1]


def test_a_lost_table_of_chats_leaves_their_messages(path: Path, history: History, notes: list[str]) -> None:
    fill(history, 5)
    root = history._database.read(
        lambda db: db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'chats'").fetchone()[0]
    )
    history.close()
    settled(path)
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)
    rows = history.rows()
    assert [row.messages for row in rows] == [4] * 5
    assert all(row.title.startswith("recovered: question") for row in rows)
    assert "5 conversations with 20 messages" in notes[0]
    loaded = history.load(rows[0].id)
    assert [saved.message.parent for saved in loaded.messages] == [
        None,
        *(m.message.id for m in loaded.messages[:3]),
    ]
    assert loaded.head == loaded.messages[-1].message.id


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_damaged_it_goes_on(
    tmp_path_factory: pytest.TempPathFactory, seed: int, original: Path
) -> None:
    """Bytes changed, pages wiped, the end cut off: afterwards there is a sound database that takes chats."""
    rng = random.Random(seed)
    path = tmp_path_factory.mktemp("damaged") / "history.db"
    shutil.copy(original, path)
    data = bytearray(path.read_bytes())
    match seed % 3:
        case 0:
            for _ in range(rng.randint(1, 200)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 1:
            at = rng.randrange(len(data) // 4096) * 4096
            data[at : at + 4096] = rng.randbytes(4096)
        case 2:
            del data[rng.randrange(len(data)) :]
    path.write_bytes(data)
    notes: list[str] = []
    history = History(path, notes.append)
    rows = history.rows(0, 1000)
    history.search("ques")
    loaded = []
    for row in rows:
        with suppress(KeyError):  # it was on the damaged page
            loaded.append(history.load(row.id))
    number = fill(history, 1)[0]
    assert history.latest() is not None
    assert history.load(number).title == "chat 0"
    history.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    aside = list(path.parent.glob("history.damaged-*.db"))
    assert len(notes) == len(aside) <= 2
    assert loaded or aside  # nothing vanished without a word


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "history.db"
    history = History(path)
    fill(history, 40)
    history.close()
    settled(path)
    return path


def test_of_two_that_find_the_damage_one_sets_it_aside(
    path: Path, history: History, notes: list[str]
) -> None:
    fill(history, 3)
    history.close()
    settled(path)
    others = [History(path, notes.append) for _ in range(4)]
    for other in others:
        other.rows()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    threads = [threading.Thread(target=lambda other=other: fill(other, 2)) for other in others]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(path.parent.glob("history.damaged-*.db"))) == 1
    assert len(notes) == 1
    assert len(history.rows(0, 100)) == 8
    for other in others:
        other.close()


def test_a_file_that_is_deleted_under_us_is_made_again(path: Path, history: History) -> None:
    fill(history, 1)
    path.unlink()
    assert history.rows() == []
    assert len(fill(history, 1)) == 1
