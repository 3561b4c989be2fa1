"""Priority ageing: off unless set, and a bound on how long newer runs go first."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.claims import claim
from models.claims.dispatch import dispatch_preview, preview_waiting
from models.claims.matching import Demands
from models.claims.polls import PollAnswer, answer_polls, recheck_polls
from models.core.limits import Limits
from tests.support.clocks import pass_time
from tests.support.db_verbs import DbVerbs, Runner, poll_request, start_submission
from tests.support.mutation import notices

A_SECOND = Limits(priority_ageing=1)


def wait(db: DbVerbs, seconds: float, run_id: str | None = None) -> None:
    """Make all pending runs, or one, ready this many seconds earlier."""
    where = "status = 'pending'" if run_id is None else "run_id = :r"
    values = {} if run_id is None else {"r": run_id}
    pass_time(db, "runs", "match_deadline_at", seconds, where, **values)


def taken(db: DbVerbs, runner: Runner, limits: Limits, wanted: int = 1) -> list[str]:
    """Return the runs that a poll claims at once."""
    (answer,) = db.do(answer_polls, [poll_request(runner, wanted=wanted)], limits=limits)
    assert isinstance(answer, PollAnswer)
    return [run.run_id for run in answer.runs]


def low_run_behind_a_stream(db: DbVerbs, limits: Limits = A_SECOND) -> None:
    """Submit one run of priority 0, then each second a new one of priority 5, and serve one run."""
    runner = db.runner()
    low = db.start().run_id
    for _ in range(12):
        db.start(priority=5)
        if taken(db, runner, limits) == [low]:
            return
        wait(db, 1)
    raise AssertionError("starved for more than twice the bound")


def test_low_run_is_served_within_bound_behind_stream_of_higher_ones(db: DbVerbs) -> None:
    """Expect no newer run of priority 5 to go first after (5 - 0) x 1 s."""
    low_run_behind_a_stream(db)


def test_low_run_starves_while_ageing_is_off(db: DbVerbs) -> None:
    notices(lambda verbs: low_run_behind_a_stream(verbs, Limits()), db, "starved")


def test_disabled_ageing_leaves_queue_reads_unchanged(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep ageing out of the hot path while it is off."""
    monkeypatch.setattr(claim, "AGED_CANDIDATES", None)
    db.start()
    assert len(db.claim(db.runner())) == 1


def test_no_run_ages_beyond_highest_priority(db: DbVerbs) -> None:
    runner = db.runner()
    older, low, newer = db.start(priority=100), db.start(priority=-100), db.start(priority=100)
    wait(db, 100, low.run_id)
    assert taken(db, runner, A_SECOND, 2) == [older.run_id, newer.run_id]
    newest = db.start(priority=100)
    wait(db, 5_000, low.run_id)
    assert taken(db, runner, A_SECOND) == [low.run_id]
    assert taken(db, runner, A_SECOND) == [newest.run_id]


def test_waiting_counts_from_readiness_not_from_submission(db: DbVerbs) -> None:
    runner = db.runner()
    delayed = db.start(delay_seconds=3600)
    db.rows(
        "UPDATE runs SET created_at = now() - interval '1 hour', not_before = NULL, ready = true, "
        "match_deadline_at = now() + interval '300 seconds'"
    )
    first = db.start(priority=50)
    assert taken(db, runner, A_SECOND) == [first.run_id]
    assert taken(db, runner, A_SECOND) == [delayed.run_id]


def test_ages_are_compared_across_profiles(db: DbVerbs) -> None:
    """Compare the heads of all queues from which a runner may claim."""
    runner = db.runner(tags=["gpu"])
    tagged = db.start(priority=3, additional_demands=Demands(tags=("gpu",)))
    plain = db.start()
    wait(db, 4, plain.run_id)
    assert taken(db, runner, A_SECOND) == [plain.run_id]
    assert taken(db, runner, A_SECOND) == [tagged.run_id]


def test_dispatch_and_recheck_give_aged_run_first(db: DbVerbs) -> None:
    """Claim through dispatch and the re-check, which share one matchmaker."""
    runner, other = db.runner(), db.runner()
    polls = [db.park(runner), db.park(other)]
    high = [db.start(priority=5) for _ in range(2)]
    low = db.start()
    wait(db, 100, low.run_id)
    with db.engine.begin() as conn:
        preview = preview_waiting(conn, 1, limits=A_SECOND)
        (assignments,) = dispatch_preview(conn, preview, limits=A_SECOND).by_instance.values()
    assert [assignment.run_id for assignment in assignments] == [low.run_id]
    (left,) = [poll for poll in polls if poll.poll_id != assignments[0].poll_id]
    again = db.start(priority=-3)
    wait(db, 100, again.run_id)
    (answer,) = db.do(recheck_polls, [left], limits=A_SECOND)
    assert isinstance(answer, PollAnswer)
    assert [run.run_id for run in answer.runs] == [again.run_id]
    assert {db.run(run.run_id).status for run in high} == {"pending"}


RUNS = st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 6)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_runs=RUNS, ageing=st.sampled_from((0, 1000, 2500)))
def test_order_is_aged_priority_then_age(db: DbVerbs, given_runs: list[tuple[int, int]], ageing: float) -> None:
    """Draw random priorities and waiting times."""
    db.rows("UPDATE runs SET status = 'stopped', ready = false, completed_at = now() WHERE status <> 'stopped'")
    expected: list[tuple[Any, ...]] = []
    for priority, waited in given_runs:
        (run,) = db.accept(start_submission(priority=priority))
        # Add 100 s, so that the duration of the test changes no whole number.
        wait(db, 1000 * waited + 100, run.run_id)
        gained = int(1000 * waited // ageing) if ageing else 0
        expected.append((-(priority + gained), run.run_id))
    order = [run_id for _, run_id in sorted(expected)]
    runner = db.runner()
    assert [taken(db, runner, Limits(priority_ageing=ageing)) for _ in order] == [[item] for item in order]
