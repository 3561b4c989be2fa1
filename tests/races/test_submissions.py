"""Race submissions against submissions: one run per idempotency key, one start per session, no deadlock."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection

from models.claims.delivery import Claim, release_claims
from models.claims.matching import Demands
from models.core.errors import KeyReused, SessionExists
from models.runs.submission import NewRun, Submitted
from models.runs.submit import submit_runs
from tests.support.contenders import run_in_threads, steppers, with_one_repeat
from tests.support.db_verbs import DbVerbs, accepted, resume_submission, start_submission

CROWDS = [2, 8, 32]


def keyed(key: str = "k", body: str = "body", **values: Any) -> NewRun:
    return start_submission(idempotency_key=key, body_hash=body, **values)


def submit_in_rounds(conn: Connection, items: Sequence[NewRun]) -> list[Any]:
    return list(submit_runs(conn, items))


@pytest.mark.parametrize("contenders", CROWDS)
def test_many_submissions_with_one_key_create_one_run(db: DbVerbs, contenders: int) -> None:
    """A concurrent repeat waits for the first and gets its answer."""
    answers = run_in_threads(contenders, lambda _: db.accept(keyed())[0])

    assert len({answer.run_id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert (db.count("runs"), db.count("sessions"), db.count("idempotency_keys")) == (1, 1, 1)


@pytest.mark.parametrize("contenders", CROWDS)
def test_one_of_many_bodies_with_one_key_is_accepted(db: DbVerbs, contenders: int) -> None:
    results = run_in_threads(contenders, lambda place: db.submit(keyed(body=f"body {place}"))[0])

    assert sum(isinstance(result, Submitted) for result in results) == 1
    assert results.count(KeyReused("k")) == contenders - 1
    assert db.count("runs") == 1


@pytest.mark.parametrize("contenders", CROWDS)
def test_one_of_many_starts_of_a_session_succeeds(db: DbVerbs, contenders: int) -> None:
    """The others are told that the session exists."""
    results = run_in_threads(contenders, lambda _: db.submit(start_submission("mine"))[0])

    assert sum(isinstance(result, Submitted) for result in results) == 1
    assert results.count(SessionExists("mine")) == contenders - 1
    assert (db.count("runs"), db.session("mine").next_run) == (1, 2)


@pytest.mark.parametrize("contenders", CROWDS)
def test_concurrent_resumes_of_a_session_queue_up(db: DbVerbs, contenders: int) -> None:
    """Number them without a gap, only the first one ready."""
    db.start(session_id="mine")
    run_in_threads(contenders, lambda _: [db.resume("mine") for _ in range(3)])
    rows = db.rows("SELECT session_seq, ready FROM runs ORDER BY session_seq")

    assert [row.session_seq for row in rows] == list(range(1, 3 * contenders + 2))
    assert [row.ready for row in rows].count(True) == 1
    assert rows[0].ready


def test_key_of_a_failed_submission_is_free_for_waiting_ones(db: DbVerbs) -> None:
    """A failed submission keeps nothing."""
    db.start(session_id="taken")
    with steppers(db.engine, 2) as (one, other):
        failing = one.do(submit_runs, [keyed(session_id="taken")])
        waiting = other.do(submit_runs, [keyed(body="another")])
        assert other.waits
        one.commit()
        other.commit()
    assert failing.result() == [SessionExists("taken")]
    assert not accepted(waiting.result()[0]).replayed


def test_key_of_a_rolled_back_submission_is_free_for_the_waiting_one(db: DbVerbs) -> None:
    """The process of the first one died."""
    with steppers(db.engine, 2) as (one, other):
        one.do(submit_runs, [keyed()])
        waiting = other.do(submit_runs, [keyed(body="another")])
        assert other.waits
        one.rollback()
        other.commit()
    assert not accepted(waiting.result()[0]).replayed
    assert db.count("runs") == 1


def test_session_id_of_a_rolled_back_start_is_free_for_the_waiting_one(db: DbVerbs) -> None:
    with steppers(db.engine, 2) as (one, other):
        one.do(submit_runs, [start_submission("mine")])
        waiting = other.do(submit_runs, [start_submission("mine")])
        assert other.waits
        one.rollback()
        other.commit()
    assert isinstance(waiting.result()[0], Submitted)


def overlapping(place: int) -> list[NewRun]:
    """Build resumes, children and starts of the same sessions and keys; every other contender has them in reverse
    order.
    """
    items = [resume_submission(f"s{number}") for number in range(8)]
    items += [resume_submission(f"s{number}", parent_session_id=f"top{7 - number}") for number in range(8)]
    items += [start_submission(f"new{number}") for number in range(6)]
    items += [keyed(f"k{number}") for number in range(6)]
    return items[::-1] if place % 2 else items


@pytest.mark.parametrize("contenders", CROWDS)
def test_overlapping_batches_in_opposite_order_show_no_deadlock(db: DbVerbs, contenders: int) -> None:
    """Lock rows in id order; the web repeats a remaining deadlock once, unseen by callers."""
    db.accept(
        *[start_submission(f"s{number}") for number in range(8)],
        *[start_submission(f"top{number}") for number in range(8)],
    )
    batches = [overlapping(place) for place in range(contenders)]
    results = run_in_threads(contenders, lambda place: with_one_repeat(db.engine, submit_in_rounds, batches[place]))

    assert all(isinstance(result, Submitted | SessionExists) for mine in results for result in mine)
    assert db.count("runs") == 16 + 16 * contenders + 6 + 6
    assert db.count("idempotency_keys") == 6
    for number in range(8):
        row = db.session(f"s{number}")
        assert row.next_run == db.count("runs", "session_id = :s", s=f"s{number}") + 1


@pytest.mark.parametrize("contenders", CROWDS)
def test_new_demands_of_many_submissions_become_one_profile_each(db: DbVerbs, contenders: int) -> None:
    """The order of inserting profiles causes no deadlock."""

    def contend(place: int) -> None:
        tags = [f"tag{number}" for number in range(12)]
        items = [
            start_submission(additional_demands=Demands(tags=(tag,))) for tag in (tags[::-1] if place % 2 else tags)
        ]
        with_one_repeat(db.engine, submit_in_rounds, items)

    run_in_threads(contenders, contend)
    assert db.count("demand_profiles") == 12


def test_releases_in_opposite_order_release_each_run_once(db: DbVerbs) -> None:
    """Two instances noticed the same hang-up."""
    db.accept(*[start_submission() for _ in range(20)])
    runs = db.claim(db.runner(), wanted=20)
    claims = [Claim(run.run_id, run.claim_token or "") for run in runs]

    def contend(place: int) -> list[bool]:
        return with_one_repeat(db.engine, release_claims, claims[::-1] if place % 2 else claims)

    done = run_in_threads(8, contend)
    assert sum(sum(mine) for mine in done) == 20
    assert db.count("runs", "status = 'pending' AND ready") == 20
