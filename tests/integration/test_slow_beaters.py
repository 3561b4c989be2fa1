"""Runners that beat seldom, and nothing else: their silence between two beats is no gap of ours, and puts nothing off."""

import pytest

from models.core.callers import ADMIN
from models.feed.append import NewEvent, append_events
from models.runners.listing import list_runners
from models.runners.register import Registered, Registration, register_runners
from tests.support.clocks import add_gap, counts, live, pass_time
from tests.support.reports import claimed, idle, running, stop
from tests.support.silence import Beat, beating
from tests.support.truth import Truth


@pytest.fixture
def slow(truth: Truth) -> Beat:
    """Two runners that beat every 60 s, 30 s apart."""
    return beating(truth, truth.runner(), truth.runner())


def test_claims_of_several_runners_come_back_among_slow_beaters(truth: Truth) -> None:
    """Seen: 79 of them stayed claimed for more than ten minutes past their start timeout."""
    runners = [truth.runner(), truth.runner()]
    slow = beating(truth, *runners)
    claims = [claimed(truth, runner) for runner in runners for _ in range(3)]
    live(truth, 115, slow)
    assert {truth.run(claim.run_id).status for claim in claims} == {"claimed"}
    live(truth, 10, slow)
    assert {truth.run(claim.run_id).status for claim in claims} == {"pending"}


def test_stops_are_given_up_among_slow_beaters(truth: Truth) -> None:
    """Of a running run and of an idle process, after three times the interval that their runner was told."""
    runners = [truth.runner(), truth.runner()]
    slow = beating(truth, *runners)
    run, calm = running(truth, runners[0]), idle(truth, runners[1])
    for one in (run, calm):
        stop(truth, one.session_id)
    live(truth, 175, slow)
    assert (truth.run(run.run_id).status, truth.session(calm.session_id).status) == ("stopping", "stopping")
    live(truth, 10, slow)
    assert (truth.run(run.run_id).status, truth.session(calm.session_id).status) == ("stopped", "stopped")


def test_run_timeout_is_not_put_off_by_slow_beaters(truth: Truth) -> None:
    """The time between their beats counts."""
    runners = [truth.runner(), truth.runner()]
    slow = beating(truth, *runners)
    run = running(truth, runners[0], run_timeout_seconds=100)
    live(truth, 110, slow)
    assert truth.run(run.run_id).status == "stopping"


def test_orphans_are_taken_although_beaters_are_slow(truth: Truth) -> None:
    """900 s after a real gap, for a runner that never says what it holds."""
    runners = [truth.runner(), truth.runner(), truth.runner()]
    run = running(truth, runners[0])
    pass_time(truth, "runs", "started_at", 100)
    pass_time(truth, "sessions", "last_sign_at", 100)
    add_gap(truth, "expiry", 60, 1)
    slow = beating(truth, *runners[:2])
    live(truth, 880, slow, step=10)
    assert truth.run(run.run_id).status == "running"
    live(truth, 30, slow, step=10)
    assert truth.run(run.run_id).status == "failed"


def test_sign_of_a_session_keeps_its_run_from_being_orphaned(truth: Truth) -> None:
    """The same, but the run says something after the gap."""
    runner = truth.runner()
    run = running(truth, runner)
    pass_time(truth, "runs", "started_at", 100)
    add_gap(truth, "expiry", 60, 1)
    truth.do(append_events, [NewEvent(run.session_id, ADMIN, "message", '{"event_type":"message"}')])
    live(truth, 920, beating(truth, runner), step=20)
    assert truth.run(run.run_id).status == "running"


def test_identity_of_a_dead_runner_is_free_again_among_slow_beaters(truth: Truth, slow: Beat) -> None:
    """Another process may register once the former one is stale; the list shows it as stale too."""
    offer = Registration("host", "/project", "profile", executor_type="autonomous")
    assert isinstance(truth.do(register_runners, [offer])[0], Registered)
    live(truth, 125, slow)
    newcomer = Registration("host", "/project", "profile", executor_type="autonomous")
    stale = {info.runner_id for info in truth.do(list_runners) if info.status == "stale"}
    assert stale == {offer.runner_id}
    assert isinstance(truth.do(register_runners, [newcomer])[0], Registered)


def test_gaps_of_all_runners_move_a_run_timeout_by_its_own_length_at_most(truth: Truth) -> None:
    """They are a guess; gaps of our own move it as far as they reach."""
    run = running(truth, run_timeout_seconds=100)
    pass_time(truth, "runs", "started_at", 1000)
    pass_time(truth, "runs", "run_deadline_at", 1000)
    for ago in (900, 600, 300):
        add_gap(truth, "runners", ago, ago - 200)
    assert counts(truth) == {"run deadlines moved": 1, "timed out": 1}
    assert truth.run(run.run_id).status == "stopping"


def test_gaps_of_our_own_move_a_run_timeout_by_all_of_them(truth: Truth) -> None:
    """The same gaps, but known."""
    run = running(truth, run_timeout_seconds=100)
    pass_time(truth, "runs", "started_at", 700)
    pass_time(truth, "runs", "run_deadline_at", 700)
    for ago in (650, 400, 230):
        add_gap(truth, "expiry", ago, ago - 200)
        add_gap(truth, "runners", ago - 10, ago - 220)
    counts(truth)
    row = truth.run(run.run_id)
    assert row.status == "running"
    assert (row.run_deadline_at - row.started_at).total_seconds() == pytest.approx(100 + 220 + 390, abs=1)
