"""Stops of the plain case: which are, where the poll to wake is, and how long the runner has."""

import pytest

from models.core.callers import Caller, Role
from models.core.limits import DEFAULT_LIMITS
from models.core.plain import NOT_PLAIN, NotPlain
from models.runs.stop import Stopped, StopRun, StopSession
from models.runs.stop_plain import stop_plain_runs, stop_plain_sessions
from tests.support.db_verbs import DbVerbs
from tests.support.reports import claimed, running


def test_plain_stop_names_instances_that_hold_polls_of_the_runner(db: DbVerbs) -> None:
    run = running(db)
    for instance in ("web-1", "web-2", "web-2"):
        db.rows(
            """INSERT INTO waiting_polls (poll_id, runner_id, registration, instance, wanted)
               SELECT gen_random_uuid(), runner_id, registration, :instance, 1 FROM runners WHERE runner_id = :runner""",
            instance=instance,
            runner=run.runner_id,
        )
    (stopped,) = db.do(stop_plain_runs, [StopRun(Caller(), run.run_id)])
    assert stopped == Stopped(run.session_id, run.run_id, "stopping")
    assert isinstance(stopped, Stopped)
    assert (stopped.runner_to_notify, stopped.parked_at) == (run.runner_id, frozenset({"web-1", "web-2"}))


@pytest.mark.parametrize(("interval", "seconds"), [(1, DEFAULT_LIMITS.stop_timeout), (100, 300)])
def test_plain_stop_gives_the_runner_three_heartbeats(db: DbVerbs, interval: int, seconds: float) -> None:
    run = running(db)
    db.rows("UPDATE runners SET told_interval = :interval", interval=interval)
    db.do(stop_plain_sessions, [StopSession(Caller(), run.session_id)])
    for table, column in (("stop_commands", "deadline_at"), ("runs", "run_deadline_at")):
        left = db.one(f"SELECT extract(epoch FROM {column} - clock_timestamp()) FROM {table}")
        assert seconds - 30 < left <= seconds


def test_stop_that_is_audited_or_asked_for_by_a_runner_is_left_to_the_verb(db: DbVerbs) -> None:
    """Leave other owners' sessions to it as well: it answers that there is none."""
    run = running(db)
    callers = (
        Caller(Role.ADMIN, None, "key:crd_1"),
        Caller(Role.RUNNER, "team"),
        Caller(Role.USER, "bob", "key:crd_2"),
    )
    stops = [StopSession(caller, run.session_id) for caller in callers]
    for stop in stops:
        assert db.do(stop_plain_sessions, [stop]) == [NOT_PLAIN]
    assert db.run(run.run_id).status == "running"


def test_stops_of_one_session_are_left_to_the_verb(db: DbVerbs) -> None:
    alone, both = running(db), running(db)
    stops = [StopSession(Caller(), run.session_id) for run in (both, alone, both)]
    results = db.do(stop_plain_sessions, stops)
    assert [isinstance(result, NotPlain) for result in results] == [True, False, True]


def test_undelivered_claim_is_left_to_the_verb(db: DbVerbs) -> None:
    """The verb cancels it: no runner has it."""
    run = claimed(db)
    db.rows("UPDATE runs SET delivered_at = NULL")
    assert db.do(stop_plain_runs, [StopRun(Caller(), run.run_id)]) == [NOT_PLAIN]
