"""Break a mechanism on purpose, and require the scenario that guards it to notice."""

from collections.abc import Callable

import pytest
from sqlalchemy import TextClause, text

from tests.support.db_verbs import DbVerbs

Scenario = Callable[[DbVerbs], None]


def without(statement: TextClause, *parts: str) -> TextClause:
    """Return the statement with these parts cut out; they must be present."""
    sql = statement.text
    for part in parts:
        assert part in sql, f"the statement changed: {part!r} is not in it"
        sql = sql.replace(part, "")
    return text(sql)


def notices(scenario: Scenario, db: DbVerbs, by: str | None = None) -> None:
    """Require the scenario to fail by its own check, with the text ``by``, and not for another reason."""
    with pytest.raises(AssertionError, match=by):
        scenario(db)
