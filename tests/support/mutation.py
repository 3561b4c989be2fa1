"""Breaking a mechanism on purpose, and holding the scenario that guards it to noticing."""

from collections.abc import Callable

import pytest
from sqlalchemy import TextClause, text

from tests.support.db_verbs import DbVerbs

Scenario = Callable[[DbVerbs], None]


def without(statement: TextClause, *parts: str) -> TextClause:
    """The statement with these parts cut out; they must be there."""
    sql = statement.text
    for part in parts:
        assert part in sql, f"the statement changed: {part!r} is not in it"
        sql = sql.replace(part, "")
    return text(sql)


def notices(scenario: Scenario, db: DbVerbs, by: str | None = None) -> None:
    """The scenario fails by its own check, saying ``by``, not because something else broke."""
    with pytest.raises(AssertionError, match=by):
        scenario(db)
