"""Race stops of the plain case with everything else that changes their run or session."""

from collections.abc import Callable
from typing import Any

import pytest

from models.core.callers import ADMIN
from models.core.errors import NotFound, StaleClaim
from models.core.plain import NOT_PLAIN
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from models.runs.report import Reported, report_runs
from models.runs.stop import Stopped, StopSession, stop_sessions
from models.runs.stop_plain import stop_plain_sessions
from testkit.recorded_events import RECORDED_EVENTS
from tests.races.test_plain_report_races import CROWDS, RIVALS
from tests.support.contenders import steppers
from tests.support.db_verbs import DbVerbs
from tests.support.plain_first import PlainFirst
from tests.support.reports import report, running
from tests.support.simultaneous_calls import call_together, verb_call

SHOWN = """
    SELECT s.status, s.last_outcome, s.runner_id IS NULL AS is_dead, r.session_seq, r.status AS run, r.ready, r.stop_cause,
        (SELECT count(*) FROM stop_commands c WHERE c.session_id = s.session_id) AS stops
    FROM sessions s JOIN runs r USING (session_id) WHERE session_id = :s ORDER BY session_seq
"""


def plain_first() -> PlainFirst:
    return PlainFirst(stop_plain_sessions, stop_sessions)


@pytest.mark.parametrize("rival", RIVALS)
def test_stop_that_waited_for_a_change_is_not_plain(db: DbVerbs, rival: Callable[..., Any]) -> None:
    """Stop as by the verb alone: the statement reads what was committed before it began."""

    def stopped(verb: Callable[..., Any]) -> tuple[Any, Any]:
        run = running(db, run_timeout_seconds=60)
        with steppers(db.engine, 2) as (first, second):
            first.do(*rival(db, run)).result()
            answer = second.do(verb, [StopSession(ADMIN, run.session_id)])
            assert not answer.done(), "it did not wait"
            first.commit()
            (result,) = answer.result()
            second.commit()
        if verb is stop_plain_sessions:
            assert result is NOT_PLAIN
            (result,) = db.do(stop_sessions, [StopSession(ADMIN, run.session_id)])
        shown = [tuple(row) for row in db.rows(SHOWN, s=run.session_id)]
        for table in ("stop_commands", "runs", "sessions"):
            db.rows(f"DELETE FROM {table}")
        return (type(result), result.status, result.message), shown

    assert stopped(stop_plain_sessions) == stopped(stop_sessions)


@pytest.mark.parametrize("rival", RIVALS)
def test_stop_that_waited_for_nothing_is_plain(db: DbVerbs, rival: Callable[..., Any]) -> None:
    run = running(db, run_timeout_seconds=60)
    with steppers(db.engine, 2) as (first, second):
        first.do(*rival(db, run)).result()
        answer = second.do(stop_plain_sessions, [StopSession(ADMIN, run.session_id)])
        assert not answer.done()
        first.rollback()
        (result,) = answer.result()
        second.commit()
    assert isinstance(result, Stopped)
    assert (db.run(run.run_id).status, db.one("SELECT status FROM sessions")) == ("stopping", "stopping")


@pytest.mark.parametrize("crowd", CROWDS)
def test_one_of_many_stops_opens_a_stop(db: DbVerbs, crowd: int) -> None:
    verb = plain_first()
    run = running(db)
    results = call_together([verb_call(db, verb, StopSession(ADMIN, run.session_id)) for _ in range(crowd)])
    assert {result.status for (result,) in results} == {"stopping"}
    assert verb.answered == 1
    assert db.count("stop_commands") == 1
    told = db.one(f"SELECT count(*) FROM {RECORDED_EVENTS} WHERE frame -> 'run' ->> 'status' = 'stopping'")
    assert told == 1


@pytest.mark.parametrize("crowd", CROWDS)
def test_stops_against_an_end_leave_no_open_stop(db: DbVerbs, crowd: int) -> None:
    """End the run first, or as a stopping one."""
    run = running(db)
    calls = [verb_call(db, plain_first(), StopSession(ADMIN, run.session_id)) for _ in range(crowd)]
    results = call_together([*calls, verb_call(db, report_runs, report(run, "completed"))])
    assert results[-1][0].changed
    assert (db.run(run.run_id).status, db.one("SELECT status FROM sessions")) == ("completed", "finished")
    assert db.count("stop_commands") == 0


@pytest.mark.parametrize("crowd", CROWDS)
def test_stops_against_deletes(db: DbVerbs, crowd: int) -> None:
    """Refuse each delete: the run is alive before and after the stop."""
    run = running(db)
    calls = [verb_call(db, delete_sessions, DeleteSession(ADMIN, run.session_id)) for _ in range(crowd)]
    *deletes, (stop,) = call_together([*calls, verb_call(db, plain_first(), StopSession(ADMIN, run.session_id))])
    assert isinstance(stop, Stopped)
    assert not any(isinstance(result, Deleted) for (result,) in deletes)
    assert db.run(run.run_id).status == "stopping"
    (ended,) = db.do(report_runs, [report(run, "stopped")])
    assert not isinstance(ended, NotFound | StaleClaim)
    assert isinstance(ended, Reported)
    assert db.count("stop_commands") == 0
