"""Records of duties: the last time that each was done, not begun."""

from collections.abc import Iterator

import pytest
from sqlalchemy.exc import ProgrammingError

from models.monitoring.cluster import read_cluster
from models.schedules.spec import Spec
from runtime.names import Actor
from runtime.settings import Settings
from tests.support import schedules
from tests.support.clocks import pass_time
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.overview import history, rolled_up
from workers.context import WorkerContext, worker_context
from workers.duties import duties_of


@pytest.fixture
def context(settings: Settings) -> Iterator[WorkerContext]:
    with worker_context(settings, threads=1) as context:
        yield context


def failing_duty_is_late(db: DbVerbs, context: WorkerContext) -> None:
    """Do the rollup once, then let it fail: monitoring shows the moment of its success."""
    (duty,) = [duty for duty in duties_of(context) if duty.actor == Actor.STATS]

    def done_at() -> float:
        return db.do(read_cluster, [Actor.STATS]).duties[Actor.STATS]

    assert duty.if_older(0)
    pass_time(db, "duties", "last_run", 300)
    pass_time(db, "duties", "done_at", 300)
    before = done_at()
    db.rows("ALTER TABLE run_totals_head RENAME TO away")
    try:
        with pytest.raises(ProgrammingError):
            duty.if_older(0)
    finally:
        db.rows("ALTER TABLE away RENAME TO run_totals_head")
    assert done_at() == before, "a duty that failed passes for done"
    assert duty.if_older(0)
    assert done_at() > before + 200, "a duty that was done is not recorded"


def test_failing_duty_is_late(db: DbVerbs, context: WorkerContext) -> None:
    failing_duty_is_late(db, context)


def test_duties_of_version_before_count_by_their_begin(db: DbVerbs, context: WorkerContext) -> None:
    """Such a worker records no more; it must not pass for one that never worked."""
    (duty,) = [duty for duty in duties_of(context) if duty.actor == Actor.EXPIRE]
    assert duty.if_older(0)
    db.rows("UPDATE duties SET done_at = NULL")
    assert Actor.EXPIRE in db.do(read_cluster, [Actor.EXPIRE]).duties


def test_lag_of_counts_is_age_of_oldest_event_that_they_leave_out(db: DbVerbs) -> None:
    history(db)
    rolled_up(db)
    assert db.do(read_cluster, []).stats_lag == 0
    history(db)
    number_all(db)
    pass_time(db, "events", "created_at", 100)
    assert 100 <= db.do(read_cluster, []).stats_lag < 160
    rolled_up(db)
    assert db.do(read_cluster, []).stats_lag == 0


def test_schedule_that_is_due_longest_is_shown(db: DbVerbs) -> None:
    schedules.made(db, "a", schedules.ago(db, 5))
    schedules.made(db, "b", Spec(every=86_400))
    assert db.do(read_cluster, []).schedules_late == 0
    schedules.rewind(db, "a", 60)
    assert 1 <= db.do(read_cluster, []).schedules_late < 60
    schedules.decide(db)
    assert db.do(read_cluster, []).schedules_late == 0
