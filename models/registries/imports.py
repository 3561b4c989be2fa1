"""Import many entries into the registries in one transaction."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, text

from models.auth.audit import Act, AuditedAct, audited_act, record_acts
from models.claims.script_syncs import queue_script_removal, queue_script_sync
from models.core.callers import Caller
from models.core.errors import RegistryFull
from models.registries.changes import NOUNS
from models.registries.records import Entry, Kind
from models.registries.write import MOST_BYTES, MOST_ENTRIES, lock_registries, values_of
from models.schema.columns import array_rows
from models.schema.sql import sql
from models.schema.tables import registry_entries


@dataclass(frozen=True, slots=True)
class NamedEntry:
    kind: Kind
    name: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class ImportEntries:
    """Entries to store, one of each name; what a registry of ``emptied`` holds besides them is removed."""

    entries: Sequence[NamedEntry]
    caller: Caller
    emptied: Collection[Kind] = ()


@dataclass(slots=True)
class ImportedEntries:
    """Numbers of entries by registry. ``before``: those that it held."""

    before: Counter[Kind] = field(default_factory=Counter)
    created: Counter[Kind] = field(default_factory=Counter)
    replaced: Counter[Kind] = field(default_factory=Counter)
    unchanged: Counter[Kind] = field(default_factory=Counter)
    removed: Counter[Kind] = field(default_factory=Counter)


_READ = text("""
    SELECT kind, name, CAST(record AS text) AS record, content, size FROM registry_entries
    WHERE kind = ANY(CAST(:kinds AS text[])) ORDER BY kind, name COLLATE "C"
""")

_REMOVE = text("""
    DELETE FROM registry_entries e
    USING unnest(CAST(:kinds AS text[]), CAST(:names AS text[])) AS d(kind, name)
    WHERE e.kind = d.kind AND e.name = d.name
""")

_COLUMNS: Final = ("kind", "name", "record", "content", "size")
_STORE = sql(
    """
    INSERT INTO registry_entries ($columns) SELECT $values FROM unnest($arrays) AS d($columns)
    ON CONFLICT (kind, name) DO UPDATE
    SET record = excluded.record, content = excluded.content, size = excluded.size,
        version = registry_entries.version + 1, modified_at = clock_timestamp()
    """,
    **array_rows("d", registry_entries, _COLUMNS),
)

_Key = tuple[str, str]
_Row = dict[str, Any]


ImportResult: TypeAlias = ImportedEntries | RegistryFull


def import_entries(conn: Connection, items: Sequence[ImportEntries], *, dry_run: bool = False) -> list[ImportResult]:
    """Store the entries of each item, all or none.

    An entry that is there already with the same content keeps its time. Safe to repeat. Each entry that is created,
    replaced or removed is audited. References are not checked. A dry run counts and writes nothing.
    """
    if not dry_run:
        lock_registries(conn)
    return [_import(conn, item, dry_run=dry_run) for item in items]


def _import(conn: Connection, item: ImportEntries, *, dry_run: bool) -> ImportResult:
    given = {(each.kind.value, each.name): values_of(each.kind, each.name, each.entry) for each in item.entries}
    kinds = {Kind(kind) for kind, _ in given} | set(item.emptied)
    held = {(row.kind, row.name): row._asdict() for row in conn.execute(_READ, {"kinds": sorted(kinds)})}
    removed = [key for key in held if key not in given and Kind(key[0]) in item.emptied]
    changed = {key: row for key, row in given.items() if held.get(key) != row}
    fault = _full(held, given, removed, kinds)
    if fault is not None:
        return fault
    if not dry_run:
        _store(conn, changed, removed)
        record_acts(conn, _acts(item.caller, held, changed, removed))
        _sync(conn, changed, removed)
    return ImportedEntries(
        before=Counter(Kind(kind) for kind, _ in held),
        created=Counter(Kind(key[0]) for key in changed if key not in held),
        replaced=Counter(Kind(key[0]) for key in changed if key in held),
        unchanged=Counter(Kind(key[0]) for key in given if key not in changed),
        removed=Counter(Kind(kind) for kind, _ in removed),
    )


def _full(
    held: Mapping[_Key, _Row], given: Mapping[_Key, _Row], removed: Collection[_Key], kinds: Collection[Kind]
) -> RegistryFull | None:
    gone = set(removed)
    left = {key: row for key, row in held.items() if key not in gone} | dict(given)
    for kind in sorted(kinds):
        sizes = [row["size"] for key, row in left.items() if key[0] == kind]
        if len(sizes) > MOST_ENTRIES or sum(sizes) > MOST_BYTES:
            return RegistryFull(NOUNS[kind], MOST_ENTRIES, MOST_BYTES)
    return None


def _store(conn: Connection, changed: Mapping[_Key, _Row], removed: Sequence[_Key]) -> None:
    if removed:
        conn.execute(_REMOVE, {"kinds": [kind for kind, _ in removed], "names": [name for _, name in removed]})
    if changed:
        conn.execute(_STORE, {name: [row[name] for row in changed.values()] for name in _COLUMNS})


def _sync(conn: Connection, changed: Collection[_Key], removed: Collection[_Key]) -> None:
    """Have the runners take or drop scripts, by their next poll or its re-check."""
    for kind, name in changed:
        if kind == Kind.SCRIPT:
            queue_script_sync(conn, name)
    for kind, name in removed:
        if kind == Kind.SCRIPT:
            queue_script_removal(conn, name)


def _acts(
    caller: Caller, held: Mapping[_Key, _Row], changed: Mapping[_Key, _Row], removed: Sequence[_Key]
) -> list[AuditedAct]:
    acts = [(key, Act.ENTRY_CHANGED if key in held else Act.ENTRY_CREATED) for key in changed]
    acts += [(key, Act.ENTRY_DELETED) for key in removed]
    return [audit for (kind, name), act in acts for audit in audited_act(caller, act, f"{kind}/{name}", None)]
