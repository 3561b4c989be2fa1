"""Silence that we caused is never held against a runner: each kind of gap, on a real database."""

import pytest

from models.core.errors import RunnerNotRegistered
from models.core.limits import DEFAULT_LIMITS, Limits
from models.expiry.duties import sign_instance
from models.expiry.outages import EXPIRY_CLOCK, WEB_CLOCK
from models.runners.heartbeat import Heard, Touch, touch_runners
from models.runners.listing import list_runners
from models.runners.register import Registered, Registration, register_runners
from runtime.settings import Settings
from tests.support.clocks import add_gap, counts, due, fall_silent, pass_time
from tests.support.reports import claimed, running, stop
from tests.support.truth import Truth, asking


def let_clock_pass(truth: Truth, clock: str, seconds: float) -> None:
    pass_time(truth, "duties", "last_run", seconds, "duty = :d", d=clock)


def gap_kinds(truth: Truth) -> list[str]:
    return [row.kind for row in truth.rows("SELECT kind FROM gaps ORDER BY gap_id")]


def test_a_gap_of_expiry_starts_the_windows_of_runners_anew(truth: Truth) -> None:
    """Postgres or all workers were away: the runner is lost only after its whole window from now."""
    runner = truth.runner()
    run = running(truth, runner)
    assert counts(truth) == {}
    let_clock_pass(truth, EXPIRY_CLOCK, 300)
    fall_silent(truth, runner, 400)
    assert counts(truth) == {}
    assert gap_kinds(truth) == ["expiry"]
    pass_time(truth, "gaps", "ended_at", 170)
    assert counts(truth) == {}
    pass_time(truth, "gaps", "ended_at", 11)
    assert counts(truth) == {"runners lost": 1, "runs taken": 1}
    assert truth.run(run.run_id).status == "failed"


def test_expiry_goes_on_after_a_gap_with_limits_of_the_settings(truth: Truth) -> None:
    """They are floats, told intervals are whole: psycopg dumps no array of both. So do stops of runners of both kinds."""
    limits = Limits(**Settings(database_url="postgresql://", redis_url="redis://").deadlines())
    quick, slow = truth.runner(told_interval=10), truth.runner(told_interval=60)
    timed = [running(truth, runner, run_timeout_seconds=5) for runner in (quick, slow)]
    for run in timed:
        due(truth, run.run_id, "run_deadline_at")
    assert counts(truth, limits)
    assert {truth.run(run.run_id).status for run in timed} == {"stopping"}
    let_clock_pass(truth, EXPIRY_CLOCK, 300)
    for runner in (quick, slow):
        fall_silent(truth, runner, 400)
    assert counts(truth, limits) == {}
    assert gap_kinds(truth) == ["expiry"]


def test_a_pause_of_expiry_that_is_short_is_no_gap(truth: Truth) -> None:
    """Ticks come late now and then."""
    runner = truth.runner()
    running(truth, runner)
    counts(truth)
    let_clock_pass(truth, EXPIRY_CLOCK, 14)
    fall_silent(truth, runner, 181)
    assert counts(truth)["runners lost"] == 1
    assert gap_kinds(truth) == []


def test_while_all_web_processes_are_away_nobody_is_judged(truth: Truth) -> None:
    """Workers live on, but no runner can be heard: for as long as it takes."""
    truth.do(sign_instance, "web-1")
    runner = truth.runner()
    run, waiting, stopping = running(truth, runner), claimed(truth), running(truth)
    timed, lonely = running(truth, run_timeout_seconds=5), truth.start()
    stop(truth, stopping.session_id)
    let_clock_pass(truth, WEB_CLOCK, 4000)
    fall_silent(truth, runner, 4000)
    due(truth, waiting.run_id, "claim_deadline_at")
    due(truth, stopping.run_id, "run_deadline_at")
    due(truth, timed.run_id, "run_deadline_at")
    due(truth, lonely.run_id, "match_deadline_at")
    assert counts(truth) == {}
    statuses = [truth.run(one.run_id).status for one in (run, waiting, stopping, timed, lonely)]
    assert statuses == ["running", "claimed", "stopping", "running", "pending"]


def test_the_first_sign_of_a_web_process_ends_their_gap_and_starts_the_windows_anew(truth: Truth) -> None:
    """The gap is written with the sign, so nobody judges in between."""
    truth.do(sign_instance, "web-1")
    runner = truth.runner()
    running(truth, runner)
    let_clock_pass(truth, WEB_CLOCK, 4000)
    fall_silent(truth, runner, 4000)
    truth.do(sign_instance, "web-2")
    assert gap_kinds(truth) == ["web"]
    length = truth.one("SELECT extract(epoch FROM ended_at - started_at) FROM gaps")
    assert 4000 <= float(length) < 4060
    assert counts(truth) == {}
    truth.do(sign_instance, "web-1")
    assert gap_kinds(truth) == ["web"]


def test_one_web_process_that_lives_is_enough(truth: Truth) -> None:
    """A frozen replica makes no gap: the others hear the runners."""
    for _ in range(3):
        truth.do(sign_instance, "web-1")
        truth.do(sign_instance, "web-2")
    pass_time(truth, "instances", "seen_at", 60, "instance = 'web-2'")
    runner = truth.runner()
    running(truth, runner)
    fall_silent(truth, runner, 181)
    assert counts(truth)["runners lost"] == 1
    assert gap_kinds(truth) == []


def test_when_no_runner_is_heard_though_several_were_online_judgement_waits(truth: Truth) -> None:
    """The way to us may be cut: one more window, then they are lost."""
    runners = [truth.runner(), truth.runner()]
    for runner in runners:
        running(truth, runner)
        fall_silent(truth, runner, 200)
    assert counts(truth) == {}
    for runner in runners:
        fall_silent(truth, runner, 361)
    assert counts(truth) == {"runners lost": 2, "runs taken": 2}


def test_the_first_runner_heard_again_gives_the_others_their_whole_window(truth: Truth) -> None:
    """All of them reconnect at about the same time, not at the same moment."""
    first, second = truth.runner(), truth.runner()
    pass_time(truth, "runners", "registered_at", 3600)
    run = running(truth, second)
    for runner in (first, second):
        fall_silent(truth, runner, 200)
    assert counts(truth) == {}
    assert truth.do(touch_runners, [Touch(first.runner_id)]) == [Heard()]
    assert counts(truth) == {}
    assert gap_kinds(truth) == ["runners"]
    assert truth.run(run.run_id).status == "running"
    assert {info.status for info in truth.do(list_runners)} == {"online"}


def test_a_lone_runners_silence_is_no_gap(truth: Truth) -> None:
    """With one runner nobody can tell whose fault it is: the window decides."""
    runner = truth.runner()
    running(truth, runner)
    fall_silent(truth, runner, 181)
    assert counts(truth)["runners lost"] == 1


def test_another_process_is_refused_while_the_silence_is_ours(truth: Truth) -> None:
    """The former one only seems stale: right after an outage it must not lose its runs to a newcomer."""
    truth.do(sign_instance, "web-1")
    offer = Registration("host", "/project", "profile", executor_type="autonomous")
    (first,) = truth.do(register_runners, [offer])
    assert isinstance(first, Registered)
    truth.rows("UPDATE runners SET last_seen = now() - interval '1 hour'")
    let_clock_pass(truth, WEB_CLOCK, 3600)
    newcomer = Registration("host", "/project", "profile", executor_type="autonomous")
    assert not isinstance(truth.do(register_runners, [newcomer])[0], Registered)
    truth.do(sign_instance, "web-1")
    assert not isinstance(truth.do(register_runners, [newcomer])[0], Registered)
    pass_time(truth, "gaps", "ended_at", 121)
    assert isinstance(truth.do(register_runners, [newcomer])[0], Registered)


def test_a_runner_is_not_forgotten_because_we_were_away(truth: Truth) -> None:
    """24 h count from the end of the gap."""
    truth.do(sign_instance, "web-1")
    runner = truth.runner()
    fall_silent(truth, runner, DEFAULT_LIMITS.forget_runner + 100)
    assert truth.do(touch_runners, [Touch(runner.runner_id)]) == [RunnerNotRegistered(runner.runner_id)]
    let_clock_pass(truth, WEB_CLOCK, DEFAULT_LIMITS.forget_runner + 50)
    assert truth.answer(asking(runner))[0].parked
    truth.do(sign_instance, "web-1")
    assert truth.do(touch_runners, [Touch(runner.runner_id)]) == [Heard()]


def served_ago(truth: Truth, seconds: float) -> float:
    """How many seconds ago it was that we had served so many since then."""
    query = "SELECT extract(epoch FROM clock_timestamp() - served_ago(:s))"
    return float(truth.one(query, s=seconds))


def test_time_served_leaves_out_known_gaps_once(truth: Truth) -> None:
    """Several clocks may see one outage; a gap of all runners is a guess, and time like any other."""
    assert served_ago(truth, 100) == pytest.approx(100, abs=1)
    add_gap(truth, "expiry", 60, 30)
    add_gap(truth, "web", 50, 20)
    add_gap(truth, "runners", 15, 5)
    add_gap(truth, "expiry", 300, 200)
    assert [served_ago(truth, seconds) for seconds in (10, 25, 100, 170)] == pytest.approx([10, 65, 140, 310], abs=1)


def test_time_served_ends_when_the_last_web_process_gave_a_sign(truth: Truth) -> None:
    """The gap is still open."""
    truth.do(sign_instance, "web-1")
    let_clock_pass(truth, WEB_CLOCK, 14)
    assert served_ago(truth, 10) == pytest.approx(10, abs=1)
    let_clock_pass(truth, WEB_CLOCK, 26)
    assert served_ago(truth, 10) == pytest.approx(50, abs=1)
