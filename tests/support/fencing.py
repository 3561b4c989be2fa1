"""Scenarios of late words: what a frozen process, an old message or a lost runner says changes nothing any more."""

import json

from sqlalchemy import Connection, text

from models.claims.delivery import Claim, confirm_deliveries
from models.core.callers import ADMIN
from models.core.errors import StaleClaim
from models.core.statuses import RunStatus
from models.feed.append import NewEvent, StoredEvent, append_events
from models.state.locks import hold_runs
from models.state.runs import Run
from models.state.session_status import Effect
from models.state.transitions import Move, move_runs
from tests.support.clocks import due, fall_silent, tick
from tests.support.contenders import steppers
from tests.support.reports import report, running, say
from tests.support.truth import Runner, Truth


def _given_to_another(truth: Truth) -> tuple[Runner, Run, Run]:
    """A run whose first runner is lost and that a second one has now; both claims of it."""
    first, second = truth.runner(), truth.runner()
    truth.start(max_attempts=2)
    (before,) = truth.claim(first)
    say(truth, report(before, "started"))
    fall_silent(truth, first, 500)
    tick(truth)
    (after,) = truth.claim(second)
    assert after.run_id == before.run_id
    return first, before, after


def a_lost_runner_cannot_finish_a_run_given_to_another(truth: Truth) -> None:
    """Its report is 409 and changes nothing; with the stolen token of the new claim neither."""
    first, before, after = _given_to_another(truth)
    row = truth.run(after.run_id)
    truth.rows("UPDATE runners SET last_seen = clock_timestamp(), lost_at = NULL")
    late = [report(before, outcome) for outcome in ("completed", "failed", "stopped", "started")]
    late += [report(before, "completed", token=None), report(after, "completed", runner_id=first.runner_id)]
    for one in late:
        (result,) = say(truth, one)
        assert isinstance(result, StaleClaim), one
    assert truth.run(after.run_id) == row


def a_decision_on_a_former_claim_moves_nothing(truth: Truth) -> None:
    """A move that was decided on a row as it was before another claimed it finds no row to move."""
    runner, other = truth.runner(), truth.runner()
    truth.start()
    (claimed,) = truth.claim(runner)
    with truth.engine.begin() as connection:
        old = hold_runs(connection, [claimed.run_id]).runs[claimed.run_id]
    due(truth, claimed.run_id, "claim_deadline_at")
    tick(truth)
    truth.claim(other)
    row = truth.run(claimed.run_id)
    moved = truth.do(move_runs, [Move(old, RunStatus.COMPLETED, Effect(old.session_id, "finished"))])
    assert (moved, truth.run(claimed.run_id)) == ({}, row)


def an_old_message_starts_nothing(truth: Truth) -> None:
    """A web process was frozen with an assignment in its buffer; meanwhile the run was given to another poll."""
    poll = truth.park(truth.runner())
    run_id = truth.start().run_id
    truth.dispatch()
    message = Claim(run_id, str(truth.run(run_id).claim_token))
    due(truth, run_id, "claim_deadline_at")
    tick(truth)
    (current,) = truth.claim(truth.runner())
    row = truth.run(run_id)
    (result,) = truth.do(confirm_deliveries, [message])
    assert result == StaleClaim(run_id, "claimed")
    assert truth.run(run_id) == row
    assert current.claim_poll_id != poll.poll_id


def an_event_that_waits_for_its_claims_end_is_refused(truth: Truth) -> None:
    """It was sent in time and comes too late: what it waited for gave the run back, and nobody has its token now."""
    run = running(truth, max_attempts=2)
    with steppers(truth.engine, 2) as (ending, writing):
        held = ending.do(hold_runs, [run.run_id]).result()
        written = writing.do(append_events, [_event_of(run)])
        assert not written.done()
        ending.do(move_runs, [Move(held.runs[run.run_id], RunStatus.PENDING, Effect(run.session_id))])
        ending.commit()
        assert written.result() == [StaleClaim("", "")], "an event of a claim that has ended"


def an_event_that_waits_stops_nobody_who_has_its_run(truth: Truth) -> None:
    """Runs are locked before sessions: else each would wait for the other."""
    run = running(truth)
    with steppers(truth.engine, 2) as (ending, writing):
        ending.do(_hold_run, run.run_id)
        written = writing.do(append_events, [_event_of(run)])
        assert not written.done()
        assert ending.do(hold_runs, [run.run_id]).done(), "the session is held by who waits for the run"
        ending.commit()
        assert isinstance(written.result()[0], StoredEvent)


def _event_of(run: Run) -> NewEvent:
    frame = json.dumps({"data": {"event_type": "message", "session_id": run.session_id}})
    return NewEvent(run.session_id, ADMIN, "message", frame, claim_token=run.claim_token)


def _hold_run(connection: Connection, run_id: str) -> None:
    connection.execute(text("SELECT FROM runs WHERE run_id = :run_id FOR UPDATE"), {"run_id": run_id})
