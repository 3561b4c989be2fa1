"""Runners with long heartbeat intervals and no other requests: their silence is no outage and delays nothing."""

from collections.abc import Callable

import pytest

from models.core.callers import ADMIN
from models.feed.append import NewEvent, append_events
from models.runners.heartbeat import Touch, touch_runners
from models.runners.listing import list_runners
from models.runners.register import Registered, register_runners
from models.runners.registration import Registration
from tests.support.clocks import add_outage, counts, let_time_pass, pass_time, simulate
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import claimed, idle, running, stop

Beat = Callable[[int], None]


def heartbeats(db: DbVerbs, *runners: Runner, every: int = 60) -> Beat:
    """Let each runner send a heartbeat every ``every`` seconds, evenly spread over them."""
    apart = every // len(runners)

    def beat(moment: int) -> None:
        due = [one for number, one in enumerate(runners) if moment % every == number * apart]
        if due:
            db.do(touch_runners, [Touch(one.runner_id) for one in due])

    return beat


def test_dead_runner_among_slow_heartbeats_is_lost(db: DbVerbs) -> None:
    """Lose it after its own window, and note no outage, though no runner is heard for 30 s again and again."""
    slow = heartbeats(db, db.runner(), db.runner())
    run = running(db)
    simulate(db, 175, slow)
    assert db.run(run.run_id).status == "running"
    simulate(db, 10, slow)
    assert db.run(run.run_id).status == "failed", "the loss is put off"
    assert db.count("gaps") == 0


def test_unstarted_claim_among_slow_heartbeats_is_released(db: DbVerbs) -> None:
    """Release the claim by its start timeout alone, since its runner lives."""
    runners = [db.runner(), db.runner()]
    claim = claimed(db, runners[0])
    slow = heartbeats(db, *runners)
    simulate(db, 115, slow)
    assert db.run(claim.run_id).status == "claimed"
    simulate(db, 10, slow)
    assert db.run(claim.run_id).status == "pending", "the release is put off"


def test_outages_of_all_runners_delay_a_loss_once(db: DbVerbs) -> None:
    """Tell the other runner 60 s and let it send heartbeats every 100 s: all are overdue each time, and each time
    silence restarts.

    After twice its window (180 s) the dead one is lost all the same.
    """
    late = heartbeats(db, db.runner(), every=100)
    run = running(db)
    simulate(db, 350, late)
    assert db.run(run.run_id).status == "running", "silence that may be ours is held against it"
    assert db.count("gaps", "kind = 'runners'") == 3
    simulate(db, 20, late)
    assert db.run(run.run_id).status == "failed", "the loss is put off for ever"


def test_outages_one_after_another_are_not_counted(db: DbVerbs) -> None:
    """Count only the 5 s of every minute between two passes of expiry, until they are 360."""
    run = running(db)
    for _ in range(70):
        _outage(db)
    assert db.run(run.run_id).status == "running", "time that we were away is held against it"
    for _ in range(5):
        _outage(db)
    assert db.run(run.run_id).status == "failed", "the loss is put off for ever"


def _outage(db: DbVerbs) -> None:
    simulate(db, 10, lambda _: None)
    let_time_pass(db, 50)


@pytest.fixture
def slow(db: DbVerbs) -> Beat:
    """Register two runners that send a heartbeat every 60 s, 30 s apart."""
    return heartbeats(db, db.runner(), db.runner())


def test_claims_are_released_among_slow_runners(db: DbVerbs) -> None:
    """Release them in time: 79 once stayed claimed for more than ten minutes past their start timeout."""
    runners = [db.runner(), db.runner()]
    slow = heartbeats(db, *runners)
    claims = [claimed(db, runner) for runner in runners for _ in range(3)]
    simulate(db, 115, slow)
    assert {db.run(claim.run_id).status for claim in claims} == {"claimed"}
    simulate(db, 10, slow)
    assert {db.run(claim.run_id).status for claim in claims} == {"pending"}


def test_stops_are_given_up_among_slow_runners(db: DbVerbs) -> None:
    """Stop a running run and an idle process: both end after three times the interval told to their runner."""
    runners = [db.runner(), db.runner()]
    slow = heartbeats(db, *runners)
    run, calm = running(db, runners[0]), idle(db, runners[1])
    for item in (run, calm):
        stop(db, item.session_id)
    simulate(db, 175, slow)
    assert (db.run(run.run_id).status, db.session(calm.session_id).status) == ("stopping", "stopping")
    simulate(db, 10, slow)
    assert (db.run(run.run_id).status, db.session(calm.session_id).status) == ("stopped", "stopped")


def test_run_timeout_is_not_delayed_by_slow_runners(db: DbVerbs) -> None:
    """Count the time between their heartbeats."""
    runners = [db.runner(), db.runner()]
    slow = heartbeats(db, *runners)
    run = running(db, runners[0], run_timeout_seconds=100)
    simulate(db, 110, slow)
    assert db.run(run.run_id).status == "stopping"


def test_orphans_are_taken_among_slow_runners(db: DbVerbs) -> None:
    """Take them 900 s after a real outage from a runner that never sends `holding`."""
    runners = [db.runner(), db.runner(), db.runner()]
    run = running(db, runners[0])
    pass_time(db, "runs", "started_at", 100)
    pass_time(db, "sessions", "last_sign_at", 100)
    add_outage(db, "expiry", 60, 1)
    slow = heartbeats(db, *runners[:2])
    simulate(db, 880, slow, step=10)
    assert db.run(run.run_id).status == "running"
    simulate(db, 30, slow, step=10)
    assert db.run(run.run_id).status == "failed"


def test_event_of_session_keeps_its_run_from_being_orphaned(db: DbVerbs) -> None:
    """Write an event after the outage."""
    runner = db.runner()
    run = running(db, runner)
    pass_time(db, "runs", "started_at", 100)
    add_outage(db, "expiry", 60, 1)
    db.do(append_events, [NewEvent(run.session_id, ADMIN, "message", '{"event_type":"message"}')])
    simulate(db, 920, heartbeats(db, runner), step=20)
    assert db.run(run.run_id).status == "running"


def test_identity_of_dead_runner_is_free_among_slow_runners(db: DbVerbs, slow: Beat) -> None:
    """Register another process once the former one is stale; the list shows it as stale too."""
    offer = Registration("host", "/project", "profile", executor_type="autonomous")
    assert isinstance(db.do(register_runners, [offer])[0], Registered)
    simulate(db, 125, slow)
    newcomer = Registration("host", "/project", "profile", executor_type="autonomous")
    stale = {info.runner_id for info in db.do(list_runners) if info.status == "stale"}
    assert stale == {offer.runner_id}
    assert isinstance(db.do(register_runners, [newcomer])[0], Registered)


def test_outages_of_all_runners_move_run_timeout_at_most_once(db: DbVerbs) -> None:
    """Move it by its own length at most: they are guesses. Our own outages move it fully."""
    run = running(db, run_timeout_seconds=100)
    pass_time(db, "runs", "started_at", 1000)
    pass_time(db, "runs", "run_deadline_at", 1000)
    for ago in (900, 600, 300):
        add_outage(db, "runners", ago, ago - 200)
    assert counts(db) == {"run deadlines moved": 1, "timed out": 1}
    assert db.run(run.run_id).status == "stopping"


def test_own_outages_move_run_timeout_by_their_whole_length(db: DbVerbs) -> None:
    """Make the same outages known ones."""
    run = running(db, run_timeout_seconds=100)
    pass_time(db, "runs", "started_at", 700)
    pass_time(db, "runs", "run_deadline_at", 700)
    for ago in (650, 400, 230):
        add_outage(db, "expiry", ago, ago - 200)
        add_outage(db, "runners", ago - 10, ago - 220)
    counts(db)
    row = db.run(run.run_id)
    assert row.status == "running"
    assert (row.run_deadline_at - row.started_at).total_seconds() == pytest.approx(100 + 220 + 390, abs=1)
