"""The database file: opened, brought up to date, and replaced where it is damaged."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import TypeVar

from core.errors import UserError
from core.history.rows import Damaged
from core.history.salvage import salvage
from core.history.schema import SCRIPTS

T = TypeVar("T")
Notify = Callable[[str], None]

_PATIENCE_S = 2.0  # for another program that writes at the moment
_OPENING_S = 60.0  # for another program that migrates or saves what it can of a damaged database


class NewerDatabase(UserError):
    """The database was written by a later version of this program, which we must not touch."""


class Database:
    """The SQLite database at `path`, opened at the first use and made where there is none.

    One call at a time, from any thread. A damaged database is set aside under another name, what can be
    read of it goes into a new one, and `notify` is told. Whatever else goes wrong is a UserError.
    """

    def __init__(
        self, path: Path, notify: Notify = lambda text: None, *, patience: float = _PATIENCE_S
    ) -> None:
        self.path = path
        self.notify, self._patience = notify, patience
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and number of what is open

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` makes of the database. UserError where that cannot be read."""
        return self._attempt(work)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The same for work that changes it: all of it is saved, or nothing. Raises UserError."""

        def transaction(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                _refuse_newer(_version(connection), self.path)  # another program may have migrated it
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has rolled it back already
                    connection.execute("ROLLBACK")
                raise
            return result

        return self._attempt(transaction)

    def interrupt(self) -> None:
        """End a call that runs on another thread."""
        connection = self._connection
        if connection is not None:
            with suppress(sqlite3.ProgrammingError):  # it was closed in this moment
                connection.interrupt()

    def close(self) -> None:
        """Give the file back; the next call opens it again."""
        with self._lock:
            self._disconnect()

    # --- calls ----------------------------------------------------------------------------------

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                try:
                    return work(self._connected())
                except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                    if not _is_damage(error):
                        raise
                    self._replace()
                    return work(self._connected())
            except (sqlite3.IntegrityError, sqlite3.ProgrammingError):  # faults of ours, or the caller's
                raise
            except (sqlite3.Error, OSError) as error:
                if _code(error) == sqlite3.SQLITE_READONLY:
                    self._disconnect()  # it may not be so for ever
                raise UserError(f"the history {self.path} {_reason(error)}") from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._file != _identity(self.path):
            self._disconnect()  # another program has set the file aside, or it was deleted
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):  # a damaged file cannot even be closed in good order
                self._connection.close()
            self._connection = None

    # --- opening --------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = self._connect()
        try:
            version = _version(connection)
            _refuse_newer(version, self.path)
            if version < len(SCRIPTS):
                with self._alone():
                    self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _frozen(self, error: sqlite3.OperationalError) -> bool:
        """Whether the folder takes no files, which even reading needs, and nobody is about to write."""
        log = Path(f"{self.path}-wal")
        unwritable = _code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        return unwritable and self.path.is_file() and not (log.exists() and log.stat().st_size)

    def _connect(self, *, frozen: bool = False) -> sqlite3.Connection:
        # What people write is theirs alone; SQLite's other files take this mode over.
        with suppress(OSError):
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        self._file = _identity(self.path)  # before anything is read that may turn out to be damaged
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}{'?immutable=1' if frozen else ''}",
            timeout=self._patience,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")  # what was said outlives a power cut too
        except BaseException as error:
            connection.close()
            if not frozen and isinstance(error, sqlite3.OperationalError) and self._frozen(error):
                return self._connect(frozen=True)
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Bring the database up to date, with a copy of what was there before."""
        version = _version(connection)
        _refuse_newer(version, self.path)
        if version == 0:
            connection.execute("PRAGMA journal_mode = WAL")
        elif version < len(SCRIPTS):
            copy = _unused(self.path, f"version-{version}")
            with closing(sqlite3.connect(copy)) as target:
                connection.backup(target)
            self.notify(f"the history was brought up to date; a copy of what it was is {copy}")
        for number, script in enumerate(SCRIPTS[version:], version + 1):
            try:
                connection.executescript(
                    f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;"
                )
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _alone(self) -> AbstractContextManager[object]:
        """Held while the file is made, migrated or replaced: one program at a time. Raises TimeoutError."""
        from filelock import FileLock  # slow to import, and needed once in the life of a database

        return FileLock(self.path.with_name(f"{self.path.name}.lock"), timeout=_OPENING_S)

    # --- damage ---------------------------------------------------------------------------------

    def _replace(self) -> None:
        """Set the damaged file aside and put a new one with all that can be read in its place."""
        with self._alone():
            self._disconnect()
            if self._file != _identity(self.path):
                return  # another program has done it
            aside = _unused(self.path, time.strftime("damaged-%Y-%m-%d"))
            # The log first: left behind, it would be taken for that of the new file.
            for ending in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    os.rename(f"{self.path}{ending}", f"{aside}{ending}")
            connection = self._connect()
            try:
                self._migrate(connection)
                saved = salvage(aside, connection)
            finally:
                connection.close()
        self.notify(
            f"the history was damaged and set aside as {aside}; {saved.chats} conversations with "
            f"{saved.messages} messages could be read and are in the new one"
        )


def _is_damage(error: Exception) -> bool:
    """Whether the file itself is wrong. SQLite quotes what it cannot read, which need not be a text."""
    damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(error, (Damaged, UnicodeDecodeError)) or _code(error) in damage


def _code(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return f"cannot be opened ({error.strerror or error})"
    match _code(error):
        case sqlite3.SQLITE_FULL:
            return "cannot be written: the disk is full"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return "cannot be written: it is read-only"
        case sqlite3.SQLITE_CANTOPEN:
            return "cannot be opened"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "is locked by another program"
        case sqlite3.SQLITE_INTERRUPT:
            return "was not read to the end"
    return "is locked by another program" if isinstance(error, TimeoutError) else f"cannot be used ({error})"


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _refuse_newer(version: int, path: Path) -> None:
    if version > len(SCRIPTS):
        raise NewerDatabase(
            f"the history {path} is of a newer llama-tui (version {version}, this one knows {len(SCRIPTS)}); "
            "update llama-tui, or set LLAMA_TUI_DATA to another folder"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _unused(path: Path, word: str) -> Path:
    """A name beside `path` that nothing has: "history.WORD.db", with a number where that is taken."""
    number = 1
    while True:
        name = path.with_name(f"{path.stem}.{word}{f'-{number}' if number > 1 else ''}{path.suffix}")
        if not name.exists():
            return name
        number += 1
