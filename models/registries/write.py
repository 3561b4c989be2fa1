"""Create, change and delete entries of the registries, one write after another on all replicas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import orjson
from sqlalchemy import Connection, Row, text

from models.auth.audit import Act, audited_act, record_acts
from models.claims.script_syncs import queue_script_removal, queue_script_sync
from models.core.callers import ADMIN, Caller
from models.core.errors import BadEntry, EntryExists, EntryNotFound, EntryReferenced, RegistryFull
from models.registries.changes import NOUNS, fault_of, merged, script_of
from models.registries.read import as_entry
from models.registries.records import Entry, JsonObject, Kind, record_of

# Of one registry: its entries, and the bytes of their records and contents.
MOST_ENTRIES: Final = 1_000
MOST_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CreateEntry:
    """Entry to create. ``write_id`` is of the request: a repeat after a lost COMMIT returns what it created."""

    kind: Kind
    name: str
    entry: Entry
    write_id: str
    caller: Caller = ADMIN


@dataclass(frozen=True, slots=True)
class ChangeEntry:
    """Fields to set; a null one is kept, an empty one removed where it may lack."""

    kind: Kind
    name: str
    change: JsonObject
    caller: Caller = ADMIN


@dataclass(frozen=True, slots=True)
class DeleteEntry:
    kind: Kind
    name: str
    caller: Caller = ADMIN


@dataclass(frozen=True, slots=True)
class EntryWritten:
    """Entry as it is after the write, None once it is deleted. ``runners_to_sync``: those to be told of a script."""

    entry: Entry | None
    changed: bool = True
    runners_to_sync: frozenset[str] = frozenset()


EntryWrite: TypeAlias = CreateEntry | ChangeEntry | DeleteEntry
WriteResult: TypeAlias = EntryWritten | EntryNotFound | EntryExists | EntryReferenced | BadEntry | RegistryFull

# Held from before the first read of a write to its end: the next one sees all that this one stored. Registries are
# written by people, so writes may wait for each other.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('coordinator.registries', 0))")

_READ = text("""
    SELECT e.kind, e.name, CAST(e.record AS text) AS record, e.content, e.created_at, e.modified_at, e.write_id
    FROM registry_entries e WHERE e.kind = CAST(:kind AS text) AND e.name = CAST(:name AS text)
    FOR UPDATE
""")

_SIZE = text("""
    SELECT count(*) AS entries, coalesce(sum(size), 0) AS size FROM registry_entries WHERE kind = CAST(:kind AS text)
""")

_CREATE = text("""
    INSERT INTO registry_entries (kind, name, record, content, size, write_id)
    VALUES (:kind, :name, CAST(CAST(:record AS text) AS json), :content, :size, :write_id)
    RETURNING kind, name, CAST(record AS text) AS record, content, created_at, modified_at
""")

_CHANGE = text("""
    UPDATE registry_entries
    SET record = CAST(CAST(:record AS text) AS json), content = :content, size = :size, version = version + 1,
        modified_at = clock_timestamp()
    WHERE kind = :kind AND name = :name
    RETURNING kind, name, CAST(record AS text) AS record, content, created_at, modified_at
""")

_DELETE = text("DELETE FROM registry_entries WHERE kind = :kind AND name = :name")

_REFERRING: Final[Mapping[Kind, Any]] = {
    Kind.CAPABILITY: text("""
        SELECT a.name FROM registry_entries a
        WHERE a.kind = :agents
          AND CAST(:name AS text) IN (SELECT json_array_elements_text(a.record -> 'capabilities'))
        ORDER BY a.name COLLATE "C"
    """),
    Kind.SCRIPT: text("""
        SELECT a.name FROM registry_entries a
        WHERE a.kind = :agents AND a.record ->> 'script' = CAST(:name AS text)
        ORDER BY a.name COLLATE "C"
    """),
}


def lock_registries(conn: Connection) -> None:
    """Wait for the writes before this one, and have those after it wait, until the transaction ends."""
    conn.execute(_LOCK)


def write_entries(conn: Connection, items: Sequence[EntryWrite]) -> list[WriteResult]:
    """Apply the writes in their order, and audit each that changes something (PROTOCOL, Registries).

    Of two creations of one name the first wins. Changes of different fields both survive, and a change that changes
    nothing keeps the time. A capability or script that an agent names is not deleted.
    """
    if not items:
        return []
    lock_registries(conn)
    results = [_write(conn, item) for item in items]
    return [_with_sync(conn, item, result) for item, result in zip(items, results, strict=True)]


def _write(conn: Connection, item: EntryWrite) -> WriteResult:
    found = conn.execute(_READ, {"kind": item.kind, "name": item.name}).one_or_none()
    match item:
        case CreateEntry():
            return _create(conn, item, found)
        case ChangeEntry():
            return _change(conn, item, found)
        case DeleteEntry():
            return _delete(conn, item, found)


def _with_sync(conn: Connection, item: EntryWrite, result: WriteResult) -> WriteResult:
    """Have the runners take or drop a script that has changed. Locks what no write does, so it comes last."""
    if item.kind is not Kind.SCRIPT or not isinstance(result, EntryWritten) or not result.changed:
        return result
    queue = queue_script_removal if result.entry is None else queue_script_sync
    return replace(result, runners_to_sync=queue(conn, item.name))


def _create(conn: Connection, item: CreateEntry, found: Row[Any] | None) -> WriteResult:
    if found is not None:
        if found.write_id == item.write_id:
            return EntryWritten(as_entry(found), changed=False)
        return EntryExists(NOUNS[item.kind], item.name)
    values = values_of(item.kind, item.name, item.entry)
    fault = _fault(conn, item.kind, item.entry, values["size"], new=True)
    if fault is not None:
        return fault
    row = conn.execute(_CREATE, values | {"write_id": item.write_id}).one()
    _record(conn, item, Act.ENTRY_CREATED)
    return EntryWritten(as_entry(row))


def _change(conn: Connection, item: ChangeEntry, found: Row[Any] | None) -> WriteResult:
    if found is None:
        return EntryNotFound(NOUNS[item.kind], item.name)
    former = as_entry(found)
    entry = merged(item.kind, former, item.change)
    values, former_values = (values_of(item.kind, item.name, one) for one in (entry, former))
    # As they are written: 1, 1.0 and true are equal, and so are objects with their keys in another order.
    if values == former_values:
        return EntryWritten(former, changed=False)
    fault = _fault(conn, item.kind, entry, values["size"] - former_values["size"], new=False)
    if fault is not None:
        return fault
    row = conn.execute(_CHANGE, values).one()
    _record(conn, item, Act.ENTRY_CHANGED)
    return EntryWritten(as_entry(row))


def _delete(conn: Connection, item: DeleteEntry, found: Row[Any] | None) -> WriteResult:
    if found is None:
        return EntryNotFound(NOUNS[item.kind], item.name)
    referring = _REFERRING.get(item.kind)
    if referring is not None:
        agents = conn.execute(referring, {"agents": Kind.AGENT, "name": item.name}).scalars().all()
        if agents:
            return EntryReferenced(NOUNS[item.kind], tuple(agents))
    conn.execute(_DELETE, {"kind": item.kind, "name": item.name})
    _record(conn, item, Act.ENTRY_DELETED)
    return EntryWritten(None)


def _fault(conn: Connection, kind: Kind, entry: Entry, more: int, *, new: bool) -> BadEntry | RegistryFull | None:
    fault = fault_of(entry)
    if fault is not None:
        return fault
    script = script_of(entry)
    if script is not None and conn.execute(_READ, {"kind": Kind.SCRIPT, "name": script}).one_or_none() is None:
        return BadEntry(f"Script not found: {script}")
    held = conn.execute(_SIZE, {"kind": kind}).one()
    if (new and held.entries >= MOST_ENTRIES) or (more > 0 and held.size + more > MOST_BYTES):
        return RegistryFull(NOUNS[kind], MOST_ENTRIES, MOST_BYTES)
    return None


def values_of(kind: Kind, name: str, entry: Entry) -> dict[str, Any]:
    """Return the columns of an entry; ``size``: the bytes of its record and content."""
    record = orjson.dumps(record_of(entry)).decode()
    content = getattr(entry, "script_content", None)
    size = len(record.encode()) + len((content or "").encode())
    return {"kind": kind.value, "name": name, "record": record, "content": content, "size": size}


def _record(conn: Connection, item: EntryWrite, act: Act) -> None:
    record_acts(conn, audited_act(item.caller, act, f"{item.kind}/{item.name}", None))
