"""Break a mechanism of tracing on purpose: the scenario that guards it must notice."""

import pytest

from models.tracing import ended_runs
from runtime import names
from tests.integration.test_run_spans import sampled_runs_are_returned_once_after_their_end
from tests.migrations.test_release_workers import last_release_knows_actors_of_queues_it_serves
from tests.races.test_span_races import workers_export_each_run_once
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices


def test_position_of_spans_that_is_not_locked_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers would export the same runs."""
    break_statement(monkeypatch, ended_runs, "_LOCK", {" FOR UPDATE SKIP LOCKED": ""})
    notices(workers_export_each_run_once, db, by="exported twice")


def test_ignored_sampled_flag_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    break_statement(monkeypatch, ended_runs, "_ENDED", {"right(r.traceparent, 1) = '1'": "r.traceparent IS NOT NULL"})
    notices(sampled_runs_are_returned_once_after_their_end, db)


def test_new_actor_in_queue_of_last_release_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers would log an error for each message."""
    monkeypatch.setattr(names, "STORED_AS", {**names.STORED_AS, names.Queue.UPKEEP: "upkeep"})
    with pytest.raises(AssertionError, match="does not know"):
        last_release_knows_actors_of_queues_it_serves()
