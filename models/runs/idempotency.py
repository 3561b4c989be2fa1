from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.core.errors import KeyReused
from models.runs.submission import NewRun, Submitted

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class StoredKey:
    body_hash: str
    run_id: str
    session_id: str


# Wait here for the transaction that has the key; only a second statement sees its row.
_TAKE_KEYS = text("""
    INSERT INTO idempotency_keys (caller, key, body_hash, run_id, session_id)
    SELECT * FROM unnest(CAST(:callers AS text[]), CAST(:keys AS text[]), CAST(:hashes AS text[]),
                         CAST(:run_ids AS text[]), CAST(:sessions AS text[]))
        AS k(caller, key, hash, run_id, session_id)
    ORDER BY k.caller, k.key
    ON CONFLICT (caller, key) DO NOTHING
    RETURNING caller, key
""")

_READ_KEYS = text("""
    SELECT k.caller, k.key, k.body_hash, k.run_id, k.session_id
    FROM unnest(CAST(:callers AS text[]), CAST(:keys AS text[])) AS wanted(caller, key)
    JOIN idempotency_keys k USING (caller, key)
""")

_DROP_KEYS = text("""
    DELETE FROM idempotency_keys k
    USING unnest(CAST(:callers AS text[]), CAST(:keys AS text[])) AS d(caller, key)
    WHERE k.caller = d.caller AND k.key = d.key
""")


def answer_repeats(conn: Connection, items: Sequence[NewRun]) -> dict[str, Submitted | KeyReused]:
    """Store the keys of the items, and answer those whose key has an answer already, by run id.

    A second transaction with the same key waits here for the first, and gets its answer.
    """
    former = _answer_by_former_keys(conn, [item for item in items if item.former_key is not None])
    keyed = {item.key: item for item in items if item.key is not None and item.run_id not in former}
    if not keyed:
        return former
    taken = take_keys(conn, list(keyed.values()))
    known = read_keys(conn, keyed.keys() - taken)
    return former | {keyed[key].run_id: _repeat(keyed[key], stored) for key, stored in known.items()}


def _answer_by_former_keys(conn: Connection, items: Sequence[NewRun]) -> dict[str, Submitted | KeyReused]:
    """Answer repeats of keys stored before each admin had its own namespace; another body is no repeat."""
    known = read_keys(conn, [key for item in items for key in (item.key, item.former_key) if key is not None])
    return {
        item.run_id: Submitted(stored.run_id, stored.session_id, replayed=True)
        for item in items
        if item.former_key is not None and item.key not in known
        if (stored := known.get(item.former_key)) is not None and stored.body_hash == (item.body_hash or "")
    }


def _repeat(item: NewRun, stored: StoredKey) -> Submitted | KeyReused:
    if stored.body_hash != (item.body_hash or ""):
        return KeyReused(item.idempotency_key or "")
    return Submitted(stored.run_id, stored.session_id, replayed=stored.run_id != item.run_id)


def take_keys(conn: Connection, items: Sequence[NewRun]) -> set[Key]:
    parameters = _keys([item.key for item in items if item.key is not None])
    rows = conn.execute(
        _TAKE_KEYS,
        {
            **parameters,
            "hashes": [item.body_hash or "" for item in items],
            "run_ids": [item.run_id for item in items],
            "sessions": [item.own_session for item in items],
        },
    )
    return {(row.caller, row.key) for row in rows}


def read_keys(conn: Connection, keys: Collection[Key]) -> dict[Key, StoredKey]:
    if not keys:
        return {}
    rows = conn.execute(_READ_KEYS, _keys(keys))
    return {(row.caller, row.key): StoredKey(row.body_hash, row.run_id, row.session_id) for row in rows}


def drop_keys(conn: Connection, keys: Collection[Key]) -> None:
    if keys:
        conn.execute(_DROP_KEYS, _keys(keys))


def _keys(keys: Collection[Key]) -> dict[str, list[str]]:
    return {"callers": [caller for caller, _ in keys], "keys": [key for _, key in keys]}
