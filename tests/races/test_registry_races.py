"""Race writes of the registries: on one entry, and on entries of which one names the other."""

from typing import Any

import pytest

from models.core.callers import ADMIN
from models.core.errors import BadEntry, EntryExists, EntryReferenced
from models.core.ids import uuid7
from models.registries.imports import ImportedEntries, ImportEntries, NamedEntry, import_entries
from models.registries.read import get_entry
from models.registries.records import Agent, Kind
from models.registries.write import ChangeEntry, CreateEntry, DeleteEntry, EntryWritten, write_entries
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs
from tests.support.registry import add_agent, entry

NOTHING: dict[str, Any] = {}


def create(kind: Kind, name: str, **fields: Any) -> CreateEntry:
    return CreateEntry(kind, name, entry(kind, name, **fields), uuid7())


def test_concurrent_changes_of_different_fields_both_survive(db: DbVerbs) -> None:
    """The second waits for the first and merges into what it stored."""
    add_agent(db, "a")
    with steppers(db.engine, 2) as (one, other):
        one.do(write_entries, [ChangeEntry(Kind.AGENT, "a", {"description": "new"})])
        waiting = other.do(write_entries, [ChangeEntry(Kind.AGENT, "a", {"tags": ["x"]})])
        one.commit()
        other.commit()
    (result,) = waiting.result()
    assert isinstance(result, EntryWritten)
    stored = db.do(get_entry, Kind.AGENT, "a")
    assert isinstance(stored, Agent)
    assert (stored.description, stored.tags) == ("new", ("x",))
    assert stored == result.entry
    assert db.one("SELECT version FROM registry_entries") == 3


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_creation_waits_for_an_earlier_one(db: DbVerbs, end: str) -> None:
    with steppers(db.engine, 2) as (one, other):
        one.do(write_entries, [create(Kind.AGENT, "a")])
        waiting = other.do(write_entries, [create(Kind.AGENT, "a", system_prompt="later")])
        assert other.waits
        getattr(one, end)()
        other.commit()
    (result,) = waiting.result()
    assert isinstance(result, EntryExists if end == "commit" else EntryWritten)


@pytest.mark.parametrize("contenders", [2, 8])
def test_one_of_many_creations_of_a_name_wins(db: DbVerbs, contenders: int) -> None:
    """A repeat of the winner's request, after a lost COMMIT, returns what it created."""
    items = [create(Kind.AGENT, "a", system_prompt=str(place)) for place in range(contenders)]
    results = [result for (result,) in run_in_threads(contenders, lambda place: db.do(write_entries, [items[place]]))]
    (winner,) = [place for place, result in enumerate(results) if isinstance(result, EntryWritten)]
    assert results.count(EntryExists("Agent", "a")) == contenders - 1
    (again,) = db.do(write_entries, [items[winner]])
    assert isinstance(again, EntryWritten)
    assert again.entry == db.do(get_entry, Kind.AGENT, "a")


@pytest.mark.parametrize("first", ["agent", "deletion"])
@pytest.mark.parametrize(
    ("kind", "field", "value"), [(Kind.CAPABILITY, "capabilities", ["x"]), (Kind.SCRIPT, "script", "x")]
)
def test_entry_is_deleted_only_while_no_agent_names_it(
    db: DbVerbs, kind: Kind, field: str, value: Any, first: str
) -> None:
    """An agent that begins to name it and its deletion wait for each other."""
    fields = {"script_file": "x.py"} if kind is Kind.SCRIPT else NOTHING
    db.do(write_entries, [create(kind, "x", **fields)])
    add_agent(db, "a")
    naming = ChangeEntry(Kind.AGENT, "a", {field: value})
    items = [naming, DeleteEntry(kind, "x")]
    with steppers(db.engine, 2) as (one, other):
        earlier = one.do(write_entries, items[:1] if first == "agent" else items[1:])
        later = other.do(write_entries, items[1:] if first == "agent" else items[:1])
        assert other.waits
        one.commit()
        other.commit()
    (before,), (after,) = earlier.result(), later.result()
    assert isinstance(before, EntryWritten)
    if first == "agent":
        assert isinstance(after, EntryReferenced)
        assert after.agents == ("a",)
        assert db.do(get_entry, kind, "x") is not None
    else:
        assert isinstance(after, EntryWritten)
        assert db.do(get_entry, kind, "x") is None


def test_capability_never_takes_a_script_that_is_being_deleted(db: DbVerbs) -> None:
    db.do(write_entries, [create(Kind.SCRIPT, "x", script_file="x.py")])
    with steppers(db.engine, 2) as (one, other):
        one.do(write_entries, [DeleteEntry(Kind.SCRIPT, "x")])
        waiting = other.do(write_entries, [create(Kind.CAPABILITY, "c", type="script", script="x")])
        assert other.waits
        one.commit()
        other.commit()
    assert waiting.result() == [BadEntry("Script not found: x")]


def test_import_and_change_wait_for_each_other(db: DbVerbs) -> None:
    """An entry that was changed meanwhile is replaced as a whole, one that was created is removed with the others."""
    add_agent(db, "a")
    item = ImportEntries([NamedEntry(Kind.AGENT, "a", entry(Kind.AGENT, "a", tags=["y"]))], ADMIN, [Kind.AGENT])
    with steppers(db.engine, 2) as (one, other):
        one.do(
            write_entries,
            [ChangeEntry(Kind.AGENT, "a", {"description": "new"}), create(Kind.AGENT, "b")],
        )
        waiting = other.do(import_entries, [item])
        assert other.waits
        one.commit()
        other.commit()
    (imported,) = waiting.result()
    assert isinstance(imported, ImportedEntries)
    assert (imported.before[Kind.AGENT], imported.replaced[Kind.AGENT], imported.removed[Kind.AGENT]) == (2, 1, 1)
    assert [row.name for row in db.rows("SELECT name FROM registry_entries")] == ["a"]
    stored = db.do(get_entry, Kind.AGENT, "a")
    assert isinstance(stored, Agent)
    assert (stored.description, stored.tags) == ("About a", ("y",))
