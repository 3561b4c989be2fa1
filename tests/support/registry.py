"""Entries of the registries, written by their verb."""

from typing import Any

from models.core.ids import uuid7
from models.registries.records import Entry, Kind, entry_of
from models.registries.write import ChangeEntry, CreateEntry, DeleteEntry, EntryWritten, write_entries
from tests.support.db_verbs import DbVerbs

CITY_SCHEMA: dict[str, Any] = {"type": "object", "required": ["city"]}
CITY = '{"city":"Bonn"}'


def entry(kind: Kind, name: str, content: str | None = None, **fields: Any) -> Entry:
    """Build an entry of these fields, as a request gives them."""
    named = {"id": name, "name": name} if kind is Kind.MCP_SERVER else {"name": name, "description": f"About {name}"}
    return entry_of(kind, named | fields, "", "", content)


def _write(db: DbVerbs, item: CreateEntry | ChangeEntry | DeleteEntry) -> EntryWritten:
    (written,) = db.do(write_entries, [item])
    assert isinstance(written, EntryWritten), written
    return written


def add(db: DbVerbs, kind: Kind, name: str, content: str | None = None, **fields: Any) -> EntryWritten:
    return _write(db, CreateEntry(kind, name, entry(kind, name, content, **fields), uuid7()))


def add_agent(db: DbVerbs, name: str, **fields: Any) -> None:
    add(db, Kind.AGENT, name, **fields)


def add_script(db: DbVerbs, name: str, **fields: Any) -> EntryWritten:
    return add(db, Kind.SCRIPT, name, "print()", **{"script_file": "main.py", **fields})


def change(db: DbVerbs, kind: Kind, name: str, **fields: Any) -> EntryWritten:
    return _write(db, ChangeEntry(kind, name, fields))


def delete(db: DbVerbs, kind: Kind, name: str) -> EntryWritten:
    return _write(db, DeleteEntry(kind, name))
