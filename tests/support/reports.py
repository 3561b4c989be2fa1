"""Bring runs to a status by the verbs themselves, and build the reports of runners."""

from typing import Any

from sqlalchemy import text

from models.claims.claim import Ask
from models.core.callers import ADMIN, Caller
from models.core.errors import CoordinatorError
from models.core.statuses import Outcome
from models.runners.heartbeat import Touch, touch_runners
from models.runs.report import Reported, report_runs
from models.runs.reports import Report
from models.runs.stop import Stopped, StopRun, StopSession, stop_runs, stop_sessions
from models.state.runs import Run
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.clocks import pass_time
from tests.support.db_verbs import DbVerbs, Runner

OWN = "own"


def report(run: Run, outcome: str, *, token: str | None = OWN, runner_id: str | None = None, **values: Any) -> Report:
    """Build a report of a run by its runner, with the claim's token unless another, or None, is given."""
    assert run.runner_id is not None
    sent = run.claim_token if token == OWN else token
    return Report(run.run_id, runner_id or run.runner_id, Outcome(outcome), sent, **values)


def say(db: DbVerbs, *reports: Report) -> list[Reported | CoordinatorError]:
    return db.do(report_runs, reports)


def accepted(db: DbVerbs, run: Run, outcome: str, **values: Any) -> Reported:
    """Report what must be accepted."""
    (result,) = say(db, report(run, outcome, **values))
    assert isinstance(result, Reported), result
    return result


def claimed(db: DbVerbs, runner: Runner | None = None, **values: Any) -> Run:
    """Create a run that starts a session, claimed and delivered."""
    db.start(**values)
    (run,) = db.claim(runner or db.runner())
    return run


def running(db: DbVerbs, runner: Runner | None = None, **values: Any) -> Run:
    """Create the same, started."""
    run = claimed(db, runner, **values)
    accepted(db, run, "started")
    return run


def finished(db: DbVerbs, **values: Any) -> str:
    """Create a session whose only run is completed; return its id."""
    run = running(db, **values)
    accepted(db, run, "completed")
    return run.session_id


def idle(db: DbVerbs, runner: Runner | None = None, **values: Any) -> Run:
    """Create a completed run whose session has a live process."""
    run = running(db, runner, **values)
    accepted(db, run, "completed", session_status="idle")
    return run


def stop(db: DbVerbs, session_id: str, caller: Caller = ADMIN) -> Stopped:
    (result,) = db.do(stop_sessions, [StopSession(caller, session_id)])
    assert isinstance(result, Stopped), result
    return result


def stop_run(db: DbVerbs, run_id: str, caller: Caller = ADMIN) -> Stopped:
    (result,) = db.do(stop_runs, [StopRun(caller, run_id)])
    assert isinstance(result, Stopped), result
    return result


def parked_run(db: DbVerbs, runner: Runner, ask: Ask) -> str:
    """Return the id of a run that was assigned to a parked poll and not delivered yet."""
    return str(db.one("SELECT run_id FROM runs WHERE claim_poll_id = :p AND status = 'claimed'", p=ask.poll_id))


def history(db: DbVerbs, session_id: str) -> list[str]:
    """Return the types of the session's own events, in order."""
    rows = db.rows(
        f"SELECT event_type FROM {RECORDED_EVENTS} WHERE session_id = :s AND kind = 'event' ORDER BY id", s=session_id
    )
    return [row.event_type for row in rows]


def session_statuses(db: DbVerbs, session_id: str) -> list[str]:
    """Return each status that the feed told of the session, in order."""
    rows = db.rows(
        f"SELECT frame->'session'->>'status' AS status FROM {RECORDED_EVENTS} "
        "WHERE session_id = :s AND kind IN ('session_created', 'session_updated') ORDER BY id",
        s=session_id,
    )
    return [row.status for row in rows]


def time_out(db: DbVerbs, run_id: str) -> None:
    """Put a running run into the state after its time limit passed."""
    with db.engine.begin() as connection:
        connection.execute(
            text("UPDATE runs SET status = 'stopping', stop_cause = 'timeout' WHERE run_id = :r"), {"r": run_id}
        )


def heartbeat(db: DbVerbs, runner: Runner, *run_ids: str) -> None:
    """Send a heartbeat that names what the runner holds, some time after the last one."""
    pass_time(db, "runners", "counted_beat_at", 10)
    db.do(touch_runners, [Touch(runner.runner_id, run_ids)])
