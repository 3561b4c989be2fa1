"""Deadlines of runs that no live registration satisfies: when they run, when they stop, what a failed run says."""

from datetime import timedelta

import pytest

from models.claims.matching import Demands
from models.core.callers import ADMIN
from models.runners.heartbeat import Touch, touch_runners
from models.runners.leave import LeaveRunner, deregister_runners
from tests.support.clocks import add_gap, counts, due, fall_silent, pass_time, tick
from tests.support.matching import no_match_due, timeout_at, unmatched_for
from tests.support.reports import accepted, idle, running
from tests.support.truth import Runner, Truth

LOST = 181


def leave(truth: Truth, runner: Runner, *, by_itself: bool) -> None:
    truth.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=by_itself, caller=ADMIN)])


def error_of(truth: Truth, run_id: str) -> str:
    """Fail the run, whose deadline has passed, and return its error."""
    no_match_due(truth, run_id)
    assert counts(truth)["unmatched"] == 1
    row = truth.run(run_id)
    assert (row.status, row.ended_by_us) == ("failed", True)
    return str(row.error)


def test_backlog_of_a_busy_matching_runner_outlives_the_no_match_timeout(truth: Truth) -> None:
    """A run that waits for a busy runner waits."""
    runner = truth.runner(capacity=1)
    busy = running(truth, runner)
    backlog = [truth.start() for _ in range(5)]
    assert counts(truth) == {}
    for run in backlog:
        no_match_due(truth, run.run_id)
    assert counts(truth) == {}
    assert {truth.run(run.run_id).status for run in backlog} == {"pending"}
    assert [timeout_at(truth, run.run_id) for run in backlog] == [None] * 5
    accepted(truth, busy, "completed")
    assert [run.run_id for run in truth.claim(runner)] == [backlog[0].run_id]


def test_deadline_of_a_run_that_no_registration_satisfies_is_shown_and_kept(truth: Truth) -> None:
    """From its readiness, when no runner was there before."""
    run = truth.start(no_match_timeout_seconds=60)
    shown = timeout_at(truth, run.run_id)
    assert shown == truth.run(run.run_id).created_at + timedelta(seconds=60)
    assert counts(truth) == {}
    assert timeout_at(truth, run.run_id) == shown
    due(truth, run.run_id, "match_deadline_at")
    unmatched_for(truth, run.run_id, 10)
    assert counts(truth) == {}
    unmatched_for(truth, run.run_id, 61)
    assert counts(truth) == {"unmatched": 1}
    assert timeout_at(truth, run.run_id) is None


@pytest.mark.parametrize("way", ["lost", "left", "told to leave"])
def test_deadline_starts_when_the_last_matching_registration_ends(truth: Truth, way: str) -> None:
    """From the moment from which none satisfied the run, however long the run has waited before."""
    runner = truth.runner()
    running(truth, runner)
    run = truth.start()
    due(truth, run.run_id, "match_deadline_at", ago=7200)
    assert counts(truth) == {}
    assert timeout_at(truth, run.run_id) is None
    if way == "lost":
        fall_silent(truth, runner, LOST)
    else:
        leave(truth, runner, by_itself=way == "left")
    moment = truth.one("SELECT clock_timestamp()")
    assert "unmatched" not in counts(truth)
    shown = timeout_at(truth, run.run_id)
    assert shown is not None
    assert moment + timedelta(seconds=300) <= shown <= truth.one("SELECT now() + interval '300 seconds'")
    unmatched_for(truth, run.run_id, 301)
    assert counts(truth)["unmatched"] == 1


@pytest.mark.parametrize("way", ["stale", "full", "not polling"])
def test_registration_that_cannot_take_a_run_now_is_live_until_it_is_lost(truth: Truth, way: str) -> None:
    """A stale, full or not polling runner satisfies the run's demands."""
    runner = truth.runner(capacity=1)
    if way == "full":
        running(truth, runner)
    run = truth.start()
    assert counts(truth) == {}
    no_match_due(truth, run.run_id)
    if way == "stale":
        fall_silent(truth, runner, LOST - 31)
    assert counts(truth) == {}
    assert timeout_at(truth, run.run_id) is None


def test_lost_runner_that_comes_back_ends_the_wait(truth: Truth) -> None:
    """Its next request makes it live again, and a later loss starts the time anew."""
    runner = truth.runner()
    run = truth.start()
    fall_silent(truth, runner, LOST)
    assert counts(truth) == {"runners lost": 1}
    no_match_due(truth, run.run_id)
    truth.do(touch_runners, [Touch(runner.runner_id)])
    assert counts(truth) == {}
    assert timeout_at(truth, run.run_id) is None
    fall_silent(truth, runner, LOST)
    assert counts(truth) == {"runners lost": 1}
    assert truth.run(run.run_id).status == "pending"


def test_delayed_run_and_run_behind_another_have_no_deadline(truth: Truth) -> None:
    """A run that is not ready does not wait for a runner."""
    first = truth.start(no_match_timeout_seconds=1000)
    behind = truth.resume(first.session_id)
    delayed = truth.start(delay_seconds=3600)
    for run in (behind, delayed):
        unmatched_for(truth, run.run_id, 900)
        assert timeout_at(truth, run.run_id) is None
    assert counts(truth) == {}
    due(truth, delayed.run_id, "not_before")
    assert counts(truth) == {"ready": 1}
    shown = timeout_at(truth, delayed.run_id)
    assert shown is not None
    assert shown > truth.one("SELECT now() + interval '290 seconds'")


def test_each_run_has_its_own_timeout_within_one_profile(truth: Truth) -> None:
    """The shorter ones fail first, though they were submitted last."""
    runs = {seconds: truth.start(no_match_timeout_seconds=seconds).run_id for seconds in (500, 400, 10, 300, 1)}
    for run_id in runs.values():
        pass_time(truth, "runs", "match_deadline_at", 350, "run_id = :r", r=run_id)
    unmatched_for(truth, runs[500], 350)
    assert counts(truth) == {"unmatched": 3}
    failed = {seconds for seconds, run_id in runs.items() if truth.run(run_id).status == "failed"}
    assert failed == {1, 10, 300}


def test_gaps_move_the_deadline_from_either_beginning(truth: Truth) -> None:
    """Time in which no runner could be heard does not count, before and after the run became ready."""
    old, young = truth.start(no_match_timeout_seconds=1000), truth.start(no_match_timeout_seconds=1000)
    due(truth, old.run_id, "match_deadline_at", ago=4000)  # ready 5,000 s ago, no runner for 3,000 s
    due(truth, young.run_id, "match_deadline_at", ago=500)  # ready 1,500 s ago
    unmatched_for(truth, old.run_id, 3000)
    add_gap(truth, "web", 3500, 800)  # of the 3,000 s 800 count, of the 1,500 s too
    assert counts(truth) == {}
    for run in (old, young):
        shown = timeout_at(truth, run.run_id)
        assert shown is not None
        assert 0 <= (shown - truth.one("SELECT now()")).total_seconds() <= 200
    truth.rows("UPDATE gaps SET ended_at = ended_at - interval '300 seconds'")
    assert counts(truth) == {"unmatched": 2}


def test_gaps_of_all_runners_do_not_move_the_deadline(truth: Truth) -> None:
    """They are a guess: one after the other, they would put the end off for ever."""
    run = truth.start(no_match_timeout_seconds=100)
    due(truth, run.run_id, "match_deadline_at", ago=400)
    unmatched_for(truth, run.run_id, 300)
    for ago in (290, 200, 100):
        add_gap(truth, "runners", ago, ago - 80)
    shown = timeout_at(truth, run.run_id)
    assert shown is not None
    assert -205 <= (shown - truth.one("SELECT now()")).total_seconds() <= -195
    assert counts(truth) == {"unmatched": 1}


def test_run_that_only_excluded_registrations_satisfy_has_a_deadline(truth: Truth) -> None:
    """A registration that had the run and may not claim it again does not satisfy it; another one does."""
    runner = truth.runner()
    run = truth.start()
    other = truth.start()
    truth.rows(
        "UPDATE runs SET not_for = ARRAY[CAST(:n AS bigint)] WHERE run_id = :r", n=runner.registration, r=run.run_id
    )
    assert counts(truth) == {}
    assert timeout_at(truth, other.run_id) is None
    shown = timeout_at(truth, run.run_id)
    assert shown is not None
    second = truth.runner()
    no_match_due(truth, run.run_id)
    assert counts(truth) == {}
    assert timeout_at(truth, run.run_id) is None
    leave(truth, second, by_itself=True)
    assert counts(truth) == {}
    later = timeout_at(truth, run.run_id)
    assert later is not None
    assert later > shown
    assert error_of(truth, run.run_id) == (
        "No matching runner: every runner that offers what it demands has had this run and may not have it again"
    )
    assert truth.run(other.run_id).status == "pending"


def test_runner_that_takes_tagged_runs_only_satisfies_no_other(truth: Truth) -> None:
    """The matchmaker's own function decides."""
    truth.runner(tags=["gpu"], require_matching_tags=True)
    plain, tagged = truth.start(), truth.start(additional_demands=Demands(tags=("gpu",)))
    assert counts(truth) == {}
    assert timeout_at(truth, tagged.run_id) is None
    assert error_of(truth, plain.run_id) == (
        "No matching runner: the runners that offer what it demands take only runs that demand one of their tags"
    )


NONE = "No matching runner: no runner is registered"


def test_no_runner_at_all_is_said(truth: Truth) -> None:
    """Nothing else can be missing then."""
    run = truth.start(additional_demands=Demands(tags=("gpu",)))
    assert error_of(truth, run.run_id) == NONE
    runner = truth.runner()
    fall_silent(truth, runner, LOST)
    assert counts(truth) == {"runners lost": 1}
    assert error_of(truth, truth.start().run_id) == "No matching runner: no runner is online, 1 is lost or leaving"


@pytest.mark.parametrize(
    ("demands", "missing"),
    [
        (Demands(tags=("gpu",)), "no runner offers tag 'gpu'"),
        (Demands(hostname="build-7"), "no runner offers hostname 'build-7'"),
        (
            Demands(project_dir="/elsewhere", executor_profile="p"),
            "no runner offers project_dir '/elsewhere' or executor_profile 'p'",
        ),
        (Demands(tags=("a", "red", "z")), "no runner offers tag 'a' or tag 'z'"),
        (
            Demands(hostname="one", tags=("blue",)),
            "no single runner offers hostname 'one', executor_type 'autonomous' and tag 'blue' together",
        ),
        (Demands(hostname="x\x1b[2J" + "y" * 2000), "no runner offers hostname 'x\\x1b[2J" + "y" * 195 + "…'"),
    ],
)
def test_error_names_what_no_runner_offers(truth: Truth, demands: Demands, missing: str) -> None:
    """A property, a tag, or a combination."""
    truth.runner(hostname="one", tags=["red"])
    truth.runner(hostname="two", tags=["blue"])
    run = truth.start(additional_demands=demands)
    assert error_of(truth, run.run_id) == f"No matching runner: {missing}"


def test_runner_without_a_type_is_told_apart(truth: Truth) -> None:
    """Every run demands a type."""
    truth.runner(executor_type=None)
    assert error_of(truth, truth.start().run_id) == "No matching runner: no runner offers executor_type 'autonomous'"


def test_error_of_a_resume_names_the_session_whose_host_is_gone(truth: Truth) -> None:
    """And how to resume it elsewhere."""
    runner = truth.runner(hostname="old")
    first = idle(truth, runner)
    truth.rows("UPDATE sessions SET hostname = 'old', executor_profile = 'profile'")
    leave(truth, runner, by_itself=True)
    truth.runner(hostname="new")
    run = truth.resume(first.session_id)
    assert error_of(truth, run.run_id) == (
        f"No matching runner: no runner offers hostname 'old' of session '{first.session_id}'; "
        'resume it with another hostname, or anywhere with "affinity": false'
    )


def test_long_list_of_tags_is_cut(truth: Truth) -> None:
    """The error stays readable."""
    truth.runner()
    run = truth.start(additional_demands=Demands(tags=tuple(f"tag-{number:02}" for number in range(60))))
    error = error_of(truth, run.run_id)
    assert error.endswith("or 51 more")
    assert error.count("tag '") == 9


def test_many_passes_fail_a_large_backlog_at_once(truth: Truth) -> None:
    """Each pass takes so many and asks for another one."""
    runs = [truth.start() for _ in range(7)]
    for run in runs:
        no_match_due(truth, run.run_id)
    result = tick(truth, at_most=3)
    assert (result.counts, result.again) == ({"unmatched": 3}, True)
    assert tick(truth, at_most=3).counts == {"unmatched": 3}
    assert tick(truth, at_most=3).counts == {"unmatched": 1}
