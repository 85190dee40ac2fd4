"""Answers by the hash of their request, on disk, so that a rerun asks nothing twice.

One SQLite file in write-ahead mode: several processes of one machine may read and write it, a
killed process loses nothing that it stored. SQLite's locks do not hold on most network disks: on a
cluster name a folder on each node's own disk.

The key covers model, prompt, pictures, schema and sampling, and neither address nor API key.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time

from manifests.errors import ConfigError

WAIT_S = 60.0  # for another process that has the file locked


class AnswerCache:
    def __init__(self, folder: str):
        self.path = os.path.join(folder, "answers.sqlite")
        self._lock = threading.Lock()
        try:
            os.makedirs(folder, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
            _write_ahead(self._db)
            self._db.execute("pragma synchronous=normal")
            self._db.execute("create table if not exists answers (key blob primary key, text text not null, "
                             "tokens_in integer not null, tokens_out integer not null) without rowid")
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"cannot keep answers in {self.path}: {error}") from None

    def get(self, key: bytes) -> tuple[str, int, int] | None:
        with self._lock:
            return self._db.execute("select text, tokens_in, tokens_out from answers where key = ?", (key,)).fetchone()

    def put(self, key: bytes, text: str, tokens_in: int, tokens_out: int) -> None:
        with self._lock:
            self._db.execute("insert or ignore into answers values (?, ?, ?, ?)", (key, text, tokens_in, tokens_out))

    def __len__(self) -> int:
        with self._lock:
            return self._db.execute("select count(*) from answers").fetchone()[0]

    def close(self) -> None:
        with self._lock:
            self._db.close()


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch to write-ahead mode. While another process does the same, SQLite does not wait but says at once that the
    file is locked: waited for here."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            db.execute("pragma journal_mode=wal")
            return
        except sqlite3.OperationalError as error:
            kind = error.sqlite_errorcode & 0xFF  # the bits above say what it was busy with
            if kind != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
