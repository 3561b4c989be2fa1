"""No-match deadlines: when they run, when they stop, and the error of a failed run."""

from datetime import timedelta

import pytest

from models.claims.matching import Demands
from models.core.callers import ADMIN
from models.runners.heartbeat import Touch, touch_runners
from models.runners.leave import LeaveRunner, deregister_runners
from tests.support.clocks import add_outage, counts, due, fall_silent, pass_time, tick
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.matching import no_match_due, timeout_at, unmatched_for
from tests.support.reports import accepted, idle, running

LOST = 181


def leave(db: DbVerbs, runner: Runner, *, by_itself: bool) -> None:
    db.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=by_itself, caller=ADMIN)])


def error_of(db: DbVerbs, run_id: str) -> str:
    """Fail the run, whose deadline has passed, and return its error."""
    no_match_due(db, run_id)
    assert counts(db).get("unmatched") == 1
    row = db.run(run_id)
    assert (row.status, row.ended_by_us) == ("failed", True)
    return str(row.error)


def test_backlog_of_busy_matching_runner_outlives_no_match_timeout(db: DbVerbs) -> None:
    runner = db.runner(capacity=1)
    busy = running(db, runner)
    backlog = [db.start() for _ in range(5)]
    assert counts(db) == {}
    for run in backlog:
        no_match_due(db, run.run_id)
    assert counts(db) == {}
    assert {db.run(run.run_id).status for run in backlog} == {"pending"}
    assert [timeout_at(db, run.run_id) for run in backlog] == [None] * 5
    accepted(db, busy, "completed")
    assert [run.run_id for run in db.claim(runner)] == [backlog[0].run_id]


def test_deadline_of_unmatched_run_is_shown_and_kept(db: DbVerbs) -> None:
    """Count from its readiness when no runner was there before."""
    run = db.start(no_match_timeout_seconds=60)
    shown = timeout_at(db, run.run_id)
    assert shown == db.run(run.run_id).created_at + timedelta(seconds=60)
    assert counts(db) == {}
    assert timeout_at(db, run.run_id) == shown
    due(db, run.run_id, "match_deadline_at")
    unmatched_for(db, run.run_id, 10)
    assert counts(db) == {}
    unmatched_for(db, run.run_id, 61)
    assert counts(db) == {"unmatched": 1}
    assert timeout_at(db, run.run_id) is None


@pytest.mark.parametrize("way", ["lost", "left", "told to leave"])
def test_deadline_starts_when_last_matching_registration_ends(db: DbVerbs, way: str) -> None:
    """Ignore how long the run has waited before."""
    runner = db.runner()
    running(db, runner)
    run = db.start()
    due(db, run.run_id, "match_deadline_at", ago=7200)
    assert counts(db) == {}
    assert timeout_at(db, run.run_id) is None
    if way == "lost":
        fall_silent(db, runner, LOST)
    else:
        leave(db, runner, by_itself=way == "left")
    moment = db.one("SELECT clock_timestamp()")
    assert "unmatched" not in counts(db)
    shown = timeout_at(db, run.run_id)
    assert shown is not None
    assert moment + timedelta(seconds=300) <= shown <= db.one("SELECT now() + interval '300 seconds'")
    unmatched_for(db, run.run_id, 301)
    assert counts(db)["unmatched"] == 1


@pytest.mark.parametrize("way", ["stale", "full", "not polling"])
def test_registration_is_live_until_lost_even_if_it_cannot_claim_now(db: DbVerbs, way: str) -> None:
    """Count a stale, a full and a non-polling runner as satisfying the demands."""
    runner = db.runner(capacity=1)
    if way == "full":
        running(db, runner)
    run = db.start()
    assert counts(db) == {}
    no_match_due(db, run.run_id)
    if way == "stale":
        fall_silent(db, runner, LOST - 31)
    assert counts(db) == {}
    assert timeout_at(db, run.run_id) is None


def test_lost_runner_that_returns_stops_deadline(db: DbVerbs) -> None:
    """Make it live with its next request; a later loss restarts the time."""
    runner = db.runner()
    run = db.start()
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1}
    no_match_due(db, run.run_id)
    db.do(touch_runners, [Touch(runner.runner_id)])
    assert counts(db) == {}
    assert timeout_at(db, run.run_id) is None
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1}
    assert db.run(run.run_id).status == "pending"


def test_delayed_and_queued_runs_have_no_deadline(db: DbVerbs) -> None:
    """Wait for readiness first."""
    first = db.start(no_match_timeout_seconds=1000)
    behind = db.resume(first.session_id)
    delayed = db.start(delay_seconds=3600)
    for run in (behind, delayed):
        unmatched_for(db, run.run_id, 900)
        assert timeout_at(db, run.run_id) is None
    assert counts(db) == {}
    due(db, delayed.run_id, "not_before")
    assert counts(db) == {"ready": 1}
    shown = timeout_at(db, delayed.run_id)
    assert shown is not None
    assert shown > db.one("SELECT now() + interval '290 seconds'")


def test_each_run_has_its_own_timeout_within_one_profile(db: DbVerbs) -> None:
    """Fail the shorter ones first, though they were submitted last."""
    runs = {seconds: db.start(no_match_timeout_seconds=seconds).run_id for seconds in (500, 400, 10, 300, 1)}
    for run_id in runs.values():
        pass_time(db, "runs", "match_deadline_at", 350, "run_id = :r", r=run_id)
    unmatched_for(db, runs[500], 350)
    assert counts(db) == {"unmatched": 3}
    failed = {seconds for seconds, run_id in runs.items() if db.run(run_id).status == "failed"}
    assert failed == {1, 10, 300}


def test_outages_move_deadline_from_either_start(db: DbVerbs) -> None:
    """Leave out time in which no runner could be heard, before and after the run became ready."""
    old, young = db.start(no_match_timeout_seconds=1000), db.start(no_match_timeout_seconds=1000)
    due(db, old.run_id, "match_deadline_at", ago=4000)  # ready 5,000 s ago, no runner for 3,000 s
    due(db, young.run_id, "match_deadline_at", ago=500)  # ready 1,500 s ago
    unmatched_for(db, old.run_id, 3000)
    add_outage(db, "web", 3500, 800)  # of the 3,000 s 800 count, of the 1,500 s too
    assert counts(db) == {}
    for run in (old, young):
        shown = timeout_at(db, run.run_id)
        assert shown is not None
        assert 0 <= (shown - db.one("SELECT now()")).total_seconds() <= 200
    db.rows("UPDATE gaps SET ended_at = ended_at - interval '300 seconds'")
    assert counts(db) == {"unmatched": 2}


def test_outages_of_all_runners_do_not_move_deadline(db: DbVerbs) -> None:
    """Ignore such guesses: one after the other, they would postpone the end forever."""
    run = db.start(no_match_timeout_seconds=100)
    due(db, run.run_id, "match_deadline_at", ago=400)
    unmatched_for(db, run.run_id, 300)
    for ago in (290, 200, 100):
        add_outage(db, "runners", ago, ago - 80)
    shown = timeout_at(db, run.run_id)
    assert shown is not None
    assert -205 <= (shown - db.one("SELECT now()")).total_seconds() <= -195
    assert counts(db) == {"unmatched": 1}


def test_run_satisfied_by_excluded_registrations_only_has_deadline(db: DbVerbs) -> None:
    """Ignore a registration that had the run and may not claim it again; count another one."""
    runner = db.runner()
    run = db.start()
    other = db.start()
    db.rows(
        "UPDATE runs SET not_for = ARRAY[CAST(:n AS bigint)] WHERE run_id = :r", n=runner.registration, r=run.run_id
    )
    assert counts(db) == {}
    assert timeout_at(db, other.run_id) is None
    shown = timeout_at(db, run.run_id)
    assert shown is not None
    second = db.runner()
    no_match_due(db, run.run_id)
    assert counts(db) == {}
    assert timeout_at(db, run.run_id) is None
    leave(db, second, by_itself=True)
    assert counts(db) == {}
    later = timeout_at(db, run.run_id)
    assert later is not None
    assert later > shown
    assert error_of(db, run.run_id) == (
        "No matching runner: every runner that offers what it demands has had this run and may not have it again"
    )
    assert db.run(other.run_id).status == "pending"


def test_runner_with_require_matching_tags_satisfies_no_untagged_run(db: DbVerbs) -> None:
    """Decide by the matchmaker's own function."""
    db.runner(tags=["gpu"], require_matching_tags=True)
    plain, tagged = db.start(), db.start(additional_demands=Demands(tags=("gpu",)))
    assert counts(db) == {}
    assert timeout_at(db, tagged.run_id) is None
    assert error_of(db, plain.run_id) == (
        "No matching runner: the runners that offer what it demands take only runs that demand one of their tags"
    )


NONE = "No matching runner: no runner is registered"


def test_error_says_that_no_runner_is_registered(db: DbVerbs) -> None:
    run = db.start(additional_demands=Demands(tags=("gpu",)))
    assert error_of(db, run.run_id) == NONE
    runner = db.runner()
    fall_silent(db, runner, LOST)
    assert counts(db) == {"runners lost": 1}
    assert error_of(db, db.start().run_id) == "No matching runner: no runner is online, 1 is lost or leaving"


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
def test_error_names_demand_that_no_runner_offers(db: DbVerbs, demands: Demands, missing: str) -> None:
    """Name a property, a tag or a combination."""
    db.runner(hostname="one", tags=["red"])
    db.runner(hostname="two", tags=["blue"])
    run = db.start(additional_demands=demands)
    assert error_of(db, run.run_id) == f"No matching runner: {missing}"


def test_error_names_runners_without_executor_type(db: DbVerbs) -> None:
    db.runner(executor_type=None)
    assert error_of(db, db.start().run_id) == "No matching runner: no runner offers executor_type 'autonomous'"


def test_error_of_resume_names_session_with_lost_host(db: DbVerbs) -> None:
    """Add how to resume it elsewhere."""
    runner = db.runner(hostname="old")
    first = idle(db, runner)
    db.rows("UPDATE sessions SET hostname = 'old', executor_profile = 'profile'")
    leave(db, runner, by_itself=True)
    db.runner(hostname="new")
    run = db.resume(first.session_id)
    assert error_of(db, run.run_id) == (
        f"No matching runner: no runner offers hostname 'old' of session '{first.session_id}'; "
        'resume it with another hostname, or anywhere with "affinity": false'
    )


def test_long_list_of_tags_is_cut_in_error(db: DbVerbs) -> None:
    db.runner()
    run = db.start(additional_demands=Demands(tags=tuple(f"tag-{number:02}" for number in range(60))))
    error = error_of(db, run.run_id)
    assert error.endswith("or 51 more")
    assert error.count("tag '") == 9


def test_large_backlog_fails_in_bounded_passes(db: DbVerbs) -> None:
    """Ask for another pass while some are left."""
    runs = [db.start() for _ in range(7)]
    for run in runs:
        no_match_due(db, run.run_id)
    result = tick(db, at_most=3)
    assert (result.counts, result.again) == ({"unmatched": 3}, True)
    assert tick(db, at_most=3).counts == {"unmatched": 3}
    assert tick(db, at_most=3).counts == {"unmatched": 1}
