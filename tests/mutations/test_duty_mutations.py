"""Break the records of duties on purpose: the scenario that guards them must notice."""

from collections.abc import Iterator
from functools import partial

import pytest

from models.monitoring import cluster
from runtime.settings import Settings
from tests.integration.test_duty_records import failing_duty_is_late
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices
from workers import duties
from workers.context import WorkerContext, worker_context


@pytest.fixture
def context(settings: Settings) -> Iterator[WorkerContext]:
    with worker_context(settings, threads=1) as context:
        yield context


def test_duty_that_counts_from_its_begin_is_noticed(
    db: DbVerbs, context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A duty that fails each time begins each time."""
    break_statement(monkeypatch, cluster, "DUTIES", {"coalesce(done_at, last_run)": "last_run"})
    notices(partial(failing_duty_is_late, context=context), db, by="passes for done")


def test_duty_that_does_not_record_its_end_is_noticed(
    db: DbVerbs, context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duties, "record_done", lambda *_: None)
    with pytest.raises(AssertionError):
        failing_duty_is_late(db, context)
