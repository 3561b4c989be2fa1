"""A history of runs of two owners, its counts in the rollup, and what the runs themselves say."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from models.core.callers import Caller, Role
from models.overview.rollup import roll_up
from models.runs.release import ReleaseRun, release_runs
from tests.support.clocks import fall_silent, tick
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.reports import accepted, claimed, running, stop

ann, bob = Caller(Role.USER, "ann"), Caller(Role.USER, "bob")


def rolled_up(db: DbVerbs, most: int = 5_000) -> None:
    """Number all events and count them."""
    number_all(db)
    while db.do(roll_up, most=most):
        pass


def history(db: DbVerbs) -> None:
    """Make runs of two owners in every status, with a claim given back, a lost runner and a stop."""
    for caller in (ann, bob):
        accepted(db, running(db, caller=caller, agent_name="writer"), "completed")
        accepted(db, running(db, caller=caller), "failed", error="x")
        run = claimed(db, caller=caller)
        token = run.claim_token or ""
        db.do(release_runs, [ReleaseRun(run.run_id, reason="r", runner_id=run.runner_id or "", claim_token=token)])
        stop(db, run.session_id)
    for priority, caller in enumerate((ann, bob)):
        runner = db.runner()
        running(db, runner, caller=caller, max_attempts=2, priority=priority)
        fall_silent(db, runner, 3600)
        tick(db)
    db.start(caller=ann, not_before=datetime.now(UTC) + timedelta(hours=1))
    db.resume(db.start(caller=ann).session_id)


def ledger(db: DbVerbs) -> dict[tuple[str, str], int]:
    """Count by owner what the rows of runs themselves say."""
    rows = db.rows("SELECT owner, status, completed_at FROM runs")
    found = Counter((row.owner or "", "submitted") for row in rows)
    found.update((row.owner or "", row.status) for row in rows if row.completed_at is not None)
    return dict(found)


def counted(db: DbVerbs, step: int = 60) -> dict[tuple[str, str], int]:
    rows = db.rows(
        "SELECT owner, measure, sum(number) AS number FROM run_totals WHERE step = :step AND grouped_by = 'owner' "
        "AND measure NOT IN ('claimed', 'wait', 'duration') GROUP BY 1, 2",
        step=step,
    )
    return {(row.owner, row.measure): int(row.number) for row in rows}
