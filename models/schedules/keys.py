"""Idempotency keys of requests that change schedules: a repeat changes nothing, however late it comes.

Kept as long as those of submissions. Store them under the lock of their schedule only: then no transaction waits for
the key of another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from models.core.callers import Caller
from models.core.errors import KeyReused
from models.runs.idempotency import Key, read_keys

_STORE: Final = text("""
    INSERT INTO idempotency_keys (caller, key, body_hash, run_id, session_id)
    SELECT k.caller, k.key, k.hash, '', ''
    FROM unnest(CAST(:callers AS text[]), CAST(:keys AS text[]), CAST(:hashes AS text[])) AS k(caller, key, hash)
    ORDER BY k.caller, k.key
    ON CONFLICT (caller, key) DO NOTHING
""")


@dataclass(frozen=True, slots=True)
class ChangeKey:
    """Key under which a caller asks for one change of a schedule; ``act`` is the kind of the change."""

    act: str
    caller: Caller
    schedule_id: str
    key: str
    body_hash: str

    @property
    def stored(self) -> Key:
        return f"{self.act}\x1f{self.caller.key_space}", f"{self.schedule_id} {self.key}"


def is_repeat(conn: Connection, key: ChangeKey) -> bool | KeyReused:
    """Return whether this request was made before; KeyReused if another one was made under its key."""
    known = read_keys(conn, [key.stored]).get(key.stored)
    if known is None:
        return False
    return True if known.body_hash == key.body_hash else KeyReused(key.key)


def store_keys(conn: Connection, keys: Sequence[ChangeKey]) -> None:
    if keys:
        callers, names = zip(*(key.stored for key in keys), strict=True)
        hashes = [key.body_hash for key in keys]
        conn.execute(_STORE, {"callers": list(callers), "keys": list(names), "hashes": hashes})
