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

from manifests.errors import ConfigError


class AnswerCache:
    def __init__(self, folder: str):
        self.path = os.path.join(folder, "answers.sqlite")
        self._lock = threading.Lock()
        try:
            os.makedirs(folder, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            self._db.execute("pragma journal_mode=wal")
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
