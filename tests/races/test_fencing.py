"""Race late messages of a frozen process, an old assignment or a lost runner against the run's present claim."""

import json

from sqlalchemy import Connection, text

from models.claims.delivery import Claim, confirm_deliveries
from models.core.callers import ADMIN
from models.core.errors import StaleClaim
from models.core.statuses import RunStatus
from models.feed.append import NewEvent, StoredEvent, append_events
from models.state.locks import lock_runs
from models.state.runs import Run
from models.state.session_status import SessionChange
from models.state.transitions import Move, move_runs
from tests.support.clocks import due, fall_silent, tick
from tests.support.contenders import steppers
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import report, running, say


def _reassigned_run(db: DbVerbs) -> tuple[Runner, Run, Run]:
    """Give a run of a lost runner to a second one; return the first runner and both claims."""
    first, second = db.runner(), db.runner()
    db.start(max_attempts=2)
    (before,) = db.claim(first)
    say(db, report(before, "started"))
    fall_silent(db, first, 500)
    tick(db)
    (after,) = db.claim(second)
    assert after.run_id == before.run_id
    return first, before, after


def test_lost_runner_cannot_finish_reassigned_run(db: DbVerbs) -> None:
    """Answer its report with 409 and change nothing, also with the stolen token of the new claim."""
    first, before, after = _reassigned_run(db)
    row = db.run(after.run_id)
    db.rows("UPDATE runners SET last_seen = clock_timestamp(), lost_at = NULL")
    late = [report(before, outcome) for outcome in ("completed", "failed", "stopped", "started")]
    late += [report(before, "completed", token=None), report(after, "completed", runner_id=first.runner_id)]
    for one in late:
        (result,) = say(db, one)
        assert isinstance(result, StaleClaim), one
    assert db.run(after.run_id) == row


def test_decision_on_a_former_claim_moves_nothing(db: DbVerbs) -> None:
    """Apply a move decided on a row before another runner claimed it: it finds no row."""
    runner, other = db.runner(), db.runner()
    db.start()
    (claimed,) = db.claim(runner)
    with db.engine.begin() as connection:
        old = lock_runs(connection, [claimed.run_id]).runs[claimed.run_id]
    due(db, claimed.run_id, "claim_deadline_at")
    tick(db)
    db.claim(other)
    row = db.run(claimed.run_id)
    moved = db.do(move_runs, [Move(old, RunStatus.COMPLETED, SessionChange(old.session_id, "finished"))])
    assert (moved.runs, db.run(claimed.run_id)) == ({}, row)


def test_old_message_starts_nothing(db: DbVerbs) -> None:
    """Freeze a web process with an assignment in its buffer, and give the run to another poll meanwhile."""
    poll = db.park(db.runner())
    run_id = db.start().run_id
    db.dispatch()
    message = Claim(run_id, str(db.run(run_id).claim_token))
    due(db, run_id, "claim_deadline_at")
    tick(db)
    (current,) = db.claim(db.runner())
    row = db.run(run_id)
    (result,) = db.do(confirm_deliveries, [message])
    assert result == StaleClaim(run_id, "claimed")
    assert db.run(run_id) == row
    assert current.claim_poll_id != poll.poll_id


def test_event_that_waited_for_the_end_of_its_claim_is_refused(db: DbVerbs) -> None:
    """Send it in time behind a transaction that returns the run to pending: no claim has its token afterwards."""
    run = running(db, max_attempts=2)
    with steppers(db.engine, 2) as (ending, writing):
        held = ending.do(lock_runs, [run.run_id]).result()
        written = writing.do(append_events, [_event_of(run)])
        assert not written.done()
        ending.do(move_runs, [Move(held.runs[run.run_id], RunStatus.PENDING, SessionChange(run.session_id))])
        ending.commit()
        assert written.result() == [StaleClaim("", "")], "an event of a claim that has ended"


def test_waiting_event_blocks_no_holder_of_its_run(db: DbVerbs) -> None:
    """Lock runs before sessions: otherwise each would wait for the other."""
    run = running(db)
    with steppers(db.engine, 2) as (ending, writing):
        ending.do(_hold_run, run.run_id)
        written = writing.do(append_events, [_event_of(run)])
        assert not written.done()
        assert ending.do(lock_runs, [run.run_id]).done(), "the session is held by who waits for the run"
        ending.commit()
        assert isinstance(written.result()[0], StoredEvent)


def _event_of(run: Run) -> NewEvent:
    frame = json.dumps({"data": {"event_type": "message", "session_id": run.session_id}})
    return NewEvent(run.session_id, ADMIN, "message", frame, claim_token=run.claim_token)


def _hold_run(connection: Connection, run_id: str) -> None:
    connection.execute(text("SELECT FROM runs WHERE run_id = :run_id FOR UPDATE"), {"run_id": run_id})
