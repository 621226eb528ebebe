"""Every request and every reply, kept in SQLite: what was paid for is never lost, and never paid for again.

A request is put down before it is sent and its reply as soon as it is there, each in a transaction of its own that is
on the disk before anything else happens. So at a kill, or when power fails, what is lost is at most the reply to a
request that was in flight, and the ledger says so: it was sent and no answer is known, so it may have been paid for.

Processes of one machine may share a ledger. Whoever sends a request owns it meanwhile; the others wait for the reply.
Each process holds a lock on a file of its own in the folder beside the ledger, by which the others see that it lives.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from multifaceted.inference.entries import Claim, Entry, Kept, Totals
from multifaceted.inference.owners import Owners
from multifaceted.inference.requests import EngineError

VERSION = 1
APPLICATION = 0x4D464C47  # "MFLG": what tells a ledger from other SQLite files
PATIENCE = 60
"""Seconds to wait for another process that writes."""

_SCHEMA = """
CREATE TABLE requests (
    key TEXT PRIMARY KEY,      -- SHA-256 of the request
    model TEXT NOT NULL,
    request TEXT NOT NULL,     -- JSON: endpoint, model, messages, settings, sample, seed
    sends INTEGER NOT NULL,    -- how often it was sent
    refused INTEGER NOT NULL,  -- ... and an error came back, which costs nothing
    lost INTEGER NOT NULL,     -- ... and nothing came back, though it may have been paid for
    owner TEXT,                -- who is waiting for the answer now
    reserved REAL NOT NULL,    -- what the answer costs at most, while somebody waits
    reply TEXT,                -- JSON, as the server sent it
    cost REAL,                 -- of the reply
    sent_at REAL NOT NULL,
    replied_at REAL
);
CREATE INDEX in_flight ON requests (owner) WHERE owner IS NOT NULL;
CREATE TABLE totals (
    model TEXT PRIMARY KEY,
    sends INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    replies INTEGER NOT NULL,
    reserved REAL NOT NULL,
    spent REAL NOT NULL        -- by replies, and at most by what is lost
);
"""


class Ledger:
    """An open ledger; to be used in the thread that opened it.

    Raises:
        EngineError: the file is no ledger, or one of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._owners = Owners(path.with_name(f".{path.name}.owners"))
        with contextlib.ExitStack() as on_failure:
            try:
                self._database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
                on_failure.callback(self._database.close)
                self._prepare()
            except sqlite3.Error as error:
                raise EngineError(f"{path} cannot be the ledger of requests ({error}); name another file") from None
            on_failure.pop_all()

    def _prepare(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self._database.execute(f"PRAGMA {pragma}")
        with self._transaction():
            application = self._database.execute("PRAGMA application_id").fetchone()[0]
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if not self._database.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _SCHEMA.split(";\n"):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA application_id={APPLICATION}")
                self._database.execute(f"PRAGMA user_version={VERSION}")
            elif application != APPLICATION:
                raise EngineError(f"{self.path} is a database of something else; name another file for the ledger")
            elif version != VERSION:
                raise EngineError(
                    f"{self.path} is a ledger of version {version}; this release reads version {VERSION}. Go on with"
                    " the release that wrote it, or name another file: what is in this one will then be asked anew"
                )

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what this process still waits for, which counts as lost."""
        if self._owners.is_known:
            self._lose_all(self._owners.me)
            self._owners.leave()
        self._database.close()

    def kept(self, entry: Entry) -> str | None:
        """The reply to a request, in JSON; None where there is none."""
        row = self._database.execute("SELECT reply FROM requests WHERE key = ?", (entry.key,)).fetchone()
        return None if row is None else row[0]

    def totals(self, model: str) -> Totals:
        """What was asked of a model."""
        row = self._database.execute(
            "SELECT sends, refused, lost, replies, reserved, spent FROM totals WHERE model = ?", (model,)
        ).fetchone()
        return Totals(**dict(zip(Totals.__slots__, row, strict=True))) if row else Totals()

    def claim(
        self, entry: Entry, most_it_costs: float, *, max_requests: int | None, max_spend: float | None
    ) -> Kept | Claim:
        """Reserve a request and put it down as sent, unless it is answered, under way, or beyond a cap.

        Caps are on the model's totals in this ledger, so they hold for all who share it and over restarts.
        """
        self._owners.join()
        with self._transaction():
            key = entry.key
            row = self._database.execute("SELECT reply, owner FROM requests WHERE key = ?", (key,)).fetchone()
            if row is not None and row[0] is not None:
                return Kept(reply=row[0])
            if row is not None and row[1] is not None:
                return Claim.BUSY
            totals = self.totals(entry.model)
            if max_requests is not None and totals.sends + 1 > max_requests:
                return Claim.TOO_MANY
            if max_spend is not None and totals.spent + most_it_costs > max_spend:
                return Claim.TOO_DEAR
            if max_spend is not None and totals.spent + totals.reserved + most_it_costs > max_spend:
                return Claim.WAIT
            self._database.execute(
                "INSERT INTO requests VALUES (?, ?, ?, 1, 0, 0, ?, ?, NULL, NULL, ?, NULL) ON CONFLICT (key) DO UPDATE"
                " SET sends = sends + 1, owner = excluded.owner, reserved = excluded.reserved,"
                " sent_at = excluded.sent_at",
                (key, entry.model, entry.text, self._owners.me, most_it_costs, time.time()),
            )
            self._database.execute(
                "INSERT INTO totals VALUES (?, 1, 0, 0, 0, ?, 0) ON CONFLICT (model) DO UPDATE"
                " SET sends = sends + 1, reserved = reserved + excluded.reserved",
                (entry.model, most_it_costs),
            )
            return Claim.GRANTED

    def settle(self, entry: Entry, reply: str, cost: float | None) -> None:
        """Keep the reply, in JSON, to a request that was granted; a cost that is not known is the reserved one."""
        with self._transaction():
            self._database.execute(
                "UPDATE requests SET reply = ?, cost = coalesce(?, reserved), replied_at = ? WHERE key = ?",
                (reply, cost, time.time(), entry.key),
            )
            self._release(entry.key, "replies", spent="cost")

    def refuse(self, entry: Entry) -> None:
        """Free a request that was granted, and to which an error came back: nothing is paid."""
        with self._transaction():
            self._database.execute("UPDATE requests SET refused = refused + 1 WHERE key = ?", (entry.key,))
            self._release(entry.key, "refused", spent="0")

    def lose(self, entry: Entry) -> None:
        """Free a request that was granted, and to which nothing came back: it counts as paid for."""
        with self._transaction():
            self._lose(entry.key)

    def lose_what_the_dead_asked(self) -> int:
        """Free what was asked by processes that are gone; returns how many requests that were."""
        owners = self._database.execute("SELECT DISTINCT owner FROM requests WHERE owner IS NOT NULL").fetchall()
        others = [owner for (owner,) in owners if owner != self._owners.me]
        return sum(self._lose_all(owner) for owner in others if self._owners.is_gone(owner))

    def _lose_all(self, owner: str) -> int:
        with self._transaction():
            keys = self._database.execute("SELECT key FROM requests WHERE owner = ?", (owner,)).fetchall()
            for (key,) in keys:
                self._lose(key)
        return len(keys)

    def _lose(self, key: str) -> None:
        self._database.execute("UPDATE requests SET lost = lost + 1 WHERE key = ?", (key,))
        self._release(key, "lost", spent="reserved")

    def _release(self, key: str, counted_as: str, *, spent: str) -> None:
        """Move a request's reservation to what is spent, within a transaction. The names are columns."""
        self._database.execute(
            f"UPDATE totals SET {counted_as} = totals.{counted_as} + 1, reserved = totals.reserved - r.reserved,"  # noqa: S608
            f" spent = totals.spent + {'r.' * (spent != '0')}{spent}"
            " FROM requests AS r WHERE r.key = ? AND totals.model = r.model",
            (key,),
        )
        self._database.execute("UPDATE requests SET owner = NULL, reserved = 0 WHERE key = ?", (key,))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")
