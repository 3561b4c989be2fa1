"""Break a mechanism on purpose, and require the scenario that guards it to notice."""

from collections.abc import Callable, Mapping
from types import ModuleType

import pytest
from sqlalchemy import TextClause, TextualSelect, text

from tests.support.db_verbs import DbVerbs

Scenario = Callable[[DbVerbs], None]


def break_statement(patch: pytest.MonkeyPatch, module: ModuleType, name: str, parts: Mapping[str, str]) -> None:
    """Patch the named SQL statement or Lua script so that each of these parts has its broken text."""
    match getattr(module, name):
        case TextualSelect(element=TextClause() as statement) as rows:
            patch.setattr(module, name, text(broken_text(statement.text, parts)).columns(*rows.column_args))
        case TextClause() as statement:
            patch.setattr(module, name, text(broken_text(statement.text, parts)))
        case str() as script:
            patch.setattr(module, name, broken_text(script, parts))
        case other:
            pytest.fail(f"{module.__name__}.{name} is no statement: {other!r}")


def break_function(db: DbVerbs, name: str, parts: Mapping[str, str]) -> None:
    """Replace the database function by one in which each of these parts has its broken text."""
    db.rows(broken_text(db.one("SELECT pg_get_functiondef(CAST(:name AS regproc))", name=name), parts))


def broken_text(code: str, parts: Mapping[str, str]) -> str:
    """Replace each part; fail if it is missing, since the mutation would break nothing."""
    for part, broken in parts.items():
        if part not in code:
            pytest.fail(f"the statement changed: {part!r} is not in\n{code}")
        code = code.replace(part, broken)
    return code


def notices(scenario: Scenario, db: DbVerbs, by: str | None = None) -> None:
    """Require the scenario to fail by its own check, with the text ``by``, and not for another reason."""
    with pytest.raises(AssertionError, match=by):
        scenario(db)
