"""Race plain submissions against each other, against the verb of all cases, and against deletes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from models.core.callers import ADMIN
from models.core.errors import KeyReused, SessionExists
from models.core.plain import NOT_PLAIN
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from models.runs.submission import NewRun, Submitted
from models.runs.submit import submit_runs
from models.runs.submit_plain import submit_plain
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.contenders import run_in_threads, steppers, with_one_repeat
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.plain_submissions import add_profile, apply_plain_first, submit_plain_first
from tests.support.simultaneous_calls import call_together, verb_call

CROWDS = [2, 8, 32]


@pytest.fixture(autouse=True)
def _profile(db: DbVerbs) -> None:
    add_profile(db)


def keyed(body: str = "body", key: str = "k") -> NewRun:
    return start_submission(idempotency_key=key, body_hash=body)


@pytest.mark.parametrize("contenders", CROWDS)
def test_one_of_many_plain_starts_of_a_session_succeeds(db: DbVerbs, contenders: int) -> None:
    results = run_in_threads(contenders, lambda _: submit_plain_first(db, start_submission("mine"))[0])

    assert sum(isinstance(result, Submitted) for result in results) == 1
    assert results.count(SessionExists("mine")) == contenders - 1
    assert (db.count("runs"), db.session("mine").next_run) == (1, 2)
    assert db.told_kinds("mine") == ["session_created", "run_updated"]


@pytest.mark.parametrize("contenders", CROWDS)
def test_many_plain_submissions_with_one_key_create_one_run(db: DbVerbs, contenders: int) -> None:
    """Let the verb answer the others with the first answer."""
    answers = accepted_of(run_in_threads(contenders, lambda _: submit_plain_first(db, keyed())[0]))

    assert len(answers) == contenders
    assert len({answer.run_id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert (db.count("runs"), db.count("sessions"), db.count("idempotency_keys")) == (1, 1, 1)


def accepted_of(results: Sequence[Any]) -> list[Submitted]:
    return [result for result in results if isinstance(result, Submitted)]


@pytest.mark.parametrize("contenders", CROWDS)
def test_one_of_many_plain_bodies_with_one_key_is_accepted(db: DbVerbs, contenders: int) -> None:
    results = run_in_threads(contenders, lambda place: submit_plain_first(db, keyed(f"body {place}"))[0])

    assert len(accepted_of(results)) == 1
    assert results.count(KeyReused("k")) == contenders - 1
    assert db.count("runs") == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("verb", [submit_plain, submit_runs])
def test_plain_start_waits_for_an_earlier_start_of_its_session(
    db: DbVerbs, verb: Callable[..., object], end: str
) -> None:
    mine, later = start_submission("mine"), start_submission("mine")
    with steppers(db.engine, 2) as (one, other):
        one.do(verb, [mine])
        waiting = other.do(submit_plain, [later])
        assert other.waits
        getattr(one, end)()
        other.commit()
    winner = later if end == "rollback" else mine
    assert waiting.result() == [Submitted(later.run_id, "mine") if end == "rollback" else NOT_PLAIN]
    assert [row.run_id for row in db.rows("SELECT run_id FROM runs")] == [winner.run_id]
    assert db.told_kinds("mine") == ["session_created", "run_updated"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("verb", [submit_plain, submit_runs])
def test_plain_submission_waits_for_an_earlier_one_with_its_key(
    db: DbVerbs, verb: Callable[..., object], end: str
) -> None:
    """Write nothing of the item whose key another transaction stores."""
    mine, later = keyed(), keyed()
    with steppers(db.engine, 2) as (one, other):
        one.do(verb, [mine])
        waiting = other.do(submit_plain, [later])
        assert other.waits
        getattr(one, end)()
        other.commit()
    winner = later if end == "rollback" else mine
    assert waiting.result() == [Submitted(later.run_id, later.own_session) if end == "rollback" else NOT_PLAIN]
    stored = db.rows("SELECT k.run_id, r.session_id FROM idempotency_keys k JOIN runs r USING (run_id)")
    assert [(row.run_id, row.session_id) for row in stored] == [(winner.run_id, winner.own_session)]
    assert (db.count("runs"), db.count("sessions"), db.count(RECORDED_EVENTS)) == (1, 1, 2)


@pytest.mark.parametrize("crowd", CROWDS)
def test_plain_starts_against_a_delete_of_their_session_leave_one_history(db: DbVerbs, crowd: int) -> None:
    """Refuse them while the session exists; after its delete the first one starts a new session."""
    db.start(session_id="mine")
    starts = [partial(submit_plain_first, db, start_submission("mine")) for _ in range(crowd)]
    calls: list[Callable[[], Sequence[Any]]] = [*starts, verb_call(db, delete_sessions, DeleteSession(ADMIN, "mine"))]
    results = call_together(calls)

    assert isinstance(results[-1][0], Deleted)
    submitted = accepted_of([result[0] for result in results[:-1]])
    assert len(submitted) <= 1
    assert [row.run_id for row in db.rows("SELECT run_id FROM runs")] == [one.run_id for one in submitted]
    assert db.count("sessions") == len(submitted)
    assert db.told_kinds("mine").count("session_created") == 1 + len(submitted)


@pytest.mark.parametrize("contenders", CROWDS)
def test_overlapping_plain_batches_in_opposite_order_show_no_deadlock(db: DbVerbs, contenders: int) -> None:
    """Let every third contender use the verb of all cases, in one transaction each."""

    def batch(place: int) -> list[NewRun]:
        items = [start_submission(f"s{number}") for number in range(8)]
        items += [keyed(key=f"k{number}") for number in range(8)]
        return items[::-1] if place % 2 else items

    def contend(place: int) -> Sequence[Any]:
        verb: Callable[..., Sequence[Any]] = submit_runs if place % 3 == 0 else apply_plain_first
        return with_one_repeat(db.engine, verb, batches[place])

    batches = [batch(place) for place in range(contenders)]
    results = run_in_threads(contenders, contend)
    assert all(isinstance(result, Submitted | SessionExists) for mine in results for result in mine)
    assert (db.count("runs"), db.count("sessions"), db.count("idempotency_keys")) == (16, 16, 8)
