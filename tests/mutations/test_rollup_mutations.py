"""Break a mechanism of the rollup on purpose: the scenario that guards it must notice."""

import pytest

from models.overview import rollup
from tests.races.test_rollup_races import workers_count_each_event_once
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices

DIFFER = "the counts differ from the runs"


def test_position_that_is_not_locked_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers would count the same events."""
    break_statement(monkeypatch, rollup, "_LOCK", {" FOR UPDATE SKIP LOCKED": ""})
    notices(workers_count_each_event_once, db, by=DIFFER)


def test_requeue_counted_as_submission_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a look at the moment, a claim given back would be a second submission."""
    moment = "\n                AND coalesce(r.created_at = e.created_at, e.reason IS NULL)"
    break_statement(monkeypatch, rollup, "_COUNT", {moment: ""})
    notices(workers_count_each_event_once, db, by=DIFFER)
