"""Wait for a study's SQLite file that another program has locked, and say so."""

import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

TRY_S = 1.0
"""How long SQLite waits by itself, ignoring Ctrl-C."""

SAY_AFTER_S = 10.0
"""Optuna and the report lock it for moments; a viewer may for minutes."""

SAY_EVERY_S = 60.0

_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

T = TypeVar("T")


def connect(file: Path, mode: str) -> "PatientConnection":
    """Open a file that exists, `ro` or `rw`."""
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode={mode}", uri=True, timeout=TRY_S,
                           factory=PatientConnection)


class PatientCursor(sqlite3.Cursor):
    """A cursor whose statements wait until no other program blocks them."""

    def execute(self, *arguments: Any) -> "PatientCursor":
        """As in sqlite3."""
        return _patiently(self.connection, lambda: super(PatientCursor, self).execute(*arguments))

    def executemany(self, *arguments: Any) -> "PatientCursor":
        """As in sqlite3."""
        return _patiently(self.connection, lambda: super(PatientCursor, self).executemany(*arguments))


class PatientConnection(sqlite3.Connection):
    """A connection whose statements and transactions wait until no other program blocks them."""

    def cursor(self, *_: Any) -> PatientCursor:  # type: ignore[override]
        """A cursor that waits."""
        return super().cursor(PatientCursor)

    def execute(self, *arguments: Any) -> PatientCursor:
        """As in sqlite3."""
        return self.cursor().execute(*arguments)

    def commit(self) -> None:
        """As in sqlite3."""
        _patiently(self, super().commit)


def _patiently(connection: sqlite3.Connection, work: Callable[[], T]) -> T:
    began, say_at = time.monotonic(), SAY_AFTER_S
    while True:
        try:
            done = work()
        except sqlite3.OperationalError as error:
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) not in _LOCKED:
                raise
            waited_s = time.monotonic() - began
            if waited_s >= say_at:
                say_at = waited_s + SAY_EVERY_S
                print(f"{_file(connection)}: another program has locked it for {waited_s:.0f} s; waiting for it. Close "
                      "what has it open, a viewer or a copy under way; the study continues by itself.", file=sys.stderr,
                      flush=True)
            time.sleep(0.05)  # SQLite returns some errors without waiting
        else:
            return done


def _file(connection: sqlite3.Connection) -> str:
    """The path of the connection's database, which SQLite returns without a lock."""
    [(_, _, path), *_] = sqlite3.Connection.cursor(connection).execute("PRAGMA database_list").fetchall()
    return str(path)
