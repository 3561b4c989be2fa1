"""Idempotency keys, and batches that name the same thing twice: executed twice equals once."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from models.core.callers import Caller, Role
from models.core.errors import CoordinatorError, KeyReused, NotFound, SessionExists
from models.core.statuses import RunType
from models.runs.submission import NewRun, Submitted
from models.runs.submit import submit_runs
from tests.support.db_verbs import DbVerbs, accepted, resume_submission, start_submission

ANNA = Caller(Role.USER, "anna")
BERT = Caller(Role.USER, "bert")

TABLES = ["runs", "sessions", "events", "idempotency_keys"]


def keyed(key: str = "k", body: str = "body", **values: Any) -> NewRun:
    return start_submission(idempotency_key=key, body_hash=body, **values)


def sizes(db: DbVerbs) -> list[int]:
    return [db.count(table) for table in TABLES]


def test_same_key_returns_first_answer_and_creates_nothing(db: DbVerbs) -> None:
    """Mark the result as `replayed` (200 instead of 201)."""
    first = accepted(db.submit(keyed())[0])
    before = sizes(db)

    assert db.submit(keyed(), keyed()) == [replace(first, replayed=True)] * 2
    assert sizes(db) == before
    assert not first.replayed


def test_replay_returns_first_answer_after_session_is_gone(db: DbVerbs) -> None:
    """Keep the key without a foreign key."""
    first = accepted(db.submit(keyed())[0])
    db.rows("DELETE FROM runs")
    db.rows("DELETE FROM sessions")

    assert db.submit(keyed()) == [replace(first, replayed=True)]
    assert db.count("runs") == 0


def test_same_key_with_another_body_is_refused(db: DbVerbs) -> None:
    """Answer 409 and leave the first run alone."""
    db.submit(keyed())
    before = sizes(db)

    assert db.submit(keyed(body="another")) == [KeyReused("k")]
    assert sizes(db) == before


def test_key_counts_per_owner(db: DbVerbs) -> None:
    """Hide runs from another owner who chose the same key."""
    callers = [Caller(), ANNA, BERT]
    runs = db.accept(*[keyed(caller=caller) for caller in callers])

    assert len({run.run_id for run in runs}) == 3
    assert not any(run.replayed for run in runs)
    again = db.accept(*[keyed(caller=caller) for caller in callers])
    assert again == [replace(run, replayed=True) for run in runs]


def test_admins_without_owner_do_not_share_keys(db: DbVerbs) -> None:
    """Distinguish them by their credentials; callers without a credential are one."""
    callers = [Caller(by="key:crd_000000000001"), Caller(by="key:crd_000000000002"), Caller()]
    runs = db.accept(*[keyed(caller=caller) for caller in callers])

    assert len({run.run_id for run in runs}) == 3
    again = db.accept(*[keyed(caller=caller) for caller in callers])
    assert again == [replace(run, replayed=True) for run in runs]


def test_key_of_previous_release_is_answered_once_more(db: DbVerbs) -> None:
    """Read an admin's key where the previous release kept it, shared by all admins without owner."""
    admin = Caller(by="key:crd_000000000001")
    before = accepted(db.submit(keyed(caller=Caller()))[0])

    assert db.submit(keyed(caller=admin)) == [replace(before, replayed=True)]
    other = accepted(db.submit(keyed(caller=admin, body="another"))[0])
    assert not other.replayed
    assert db.submit(keyed(caller=admin, body="another")) == [replace(other, replayed=True)]


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        (keyed(session_id="taken"), SessionExists("taken")),
        (keyed(parent_session_id="nobody"), NotFound("parent session", "nobody")),
        (replace(keyed(session_id="nobody"), type=RunType.RESUME), NotFound("session", "nobody")),
    ],
    ids=["taken", "no parent", "no session"],
)
def test_failed_submission_stores_no_key(db: DbVerbs, failing: NewRun, error: CoordinatorError) -> None:
    """Use the key again, with another body too."""
    db.start(session_id="taken")
    before = sizes(db)

    assert db.submit(failing) == [error]
    assert sizes(db) == before
    assert not accepted(db.submit(keyed(body="another"))[0]).replayed


def test_refused_repeat_keeps_key_of_first_success(db: DbVerbs) -> None:
    """Refuse a second body without forgetting the first."""
    first = accepted(db.submit(keyed())[0])
    db.submit(keyed(body="another"))

    assert db.submit(keyed()) == [replace(first, replayed=True)]


# Pairs of items for one key in a batch, and whether each succeeds when it is the first of its key.
CASES: dict[str, tuple[Callable[[], NewRun], bool]] = {
    "good": (keyed, True),
    "other body": (lambda: keyed(body="another"), True),
    "taken": (lambda: keyed(session_id="taken"), False),
    "no parent": (lambda: keyed(parent_session_id="nobody"), False),
}


@pytest.mark.parametrize(("first", "second"), list(product(CASES, repeat=2)))
@pytest.mark.parametrize("batches", ["one batch", "two batches"])
def test_same_key_twice_in_batch_equals_two_batches(db: DbVerbs, first: str, second: str, batches: str) -> None:
    """Apply every pair of outcomes in rounds, in item order."""
    db.start(session_id="taken")
    items = [CASES[first][0](), CASES[second][0]()]
    results = db.submit(*items) if batches == "one batch" else [db.submit(item)[0] for item in items]
    succeeds, next_succeeds = CASES[first][1], CASES[second][1]

    assert isinstance(results[0], Submitted) == succeeds
    if not succeeds:
        assert isinstance(results[1], Submitted) == next_succeeds
    elif items[0].body_hash == items[1].body_hash:
        assert results[1] == replace(accepted(results[0]), replayed=True)
    else:
        assert results[1] == KeyReused("k")
    created = sum(1 for result in results if isinstance(result, Submitted) and not result.replayed)
    assert db.count("runs") == 1 + created
    assert db.count("idempotency_keys") == created


KINDS: dict[str, Callable[[str], NewRun]] = {"start": start_submission, "resume": resume_submission}


@pytest.mark.parametrize(("first", "second"), list(product(KINDS, repeat=2)))
@pytest.mark.parametrize("before", ["there", "new"])
def test_same_session_twice_in_batch_equals_two_batches(db: DbVerbs, first: str, second: str, before: str) -> None:
    """Let the order of items decide: a start needs a new session, a resume an existing one."""
    exists = before == "there"
    if exists:
        db.start(session_id="s")
    items = [KINDS[kind]("s") for kind in (first, second)]
    expected: list[Submitted | CoordinatorError] = []
    for item in items:
        fine = exists == (item.type is RunType.RESUME)
        refusal = SessionExists("s") if exists else NotFound("session", "s")
        expected.append(Submitted(item.run_id, "s") if fine else refusal)
        exists = exists or fine

    assert db.submit(*items) == expected
    rows = db.rows("SELECT session_seq, ready FROM runs ORDER BY session_seq")
    assert [row.session_seq for row in rows] == list(range(1, len(rows) + 1))
    assert [row.ready for row in rows] == [place == 0 for place in range(len(rows))]


def test_child_may_follow_its_parent_in_batch(db: DbVerbs) -> None:
    """Add a grandchild behind it; in front of it, the parent is unknown."""
    items = [
        start_submission("early", parent_session_id="a"),
        start_submission("a"),
        start_submission("b", parent_session_id="a"),
        start_submission("c", parent_session_id="b"),
    ]
    results = db.submit(*items)

    assert results[0] == NotFound("parent session", "a")
    assert all(isinstance(result, Submitted) for result in results[1:])
    assert [db.session(session_id).depth for session_id in "abc"] == [0, 1, 2]


def a_batch() -> list[NewRun]:
    """Return a batch with an item of every kind."""
    return [
        start_submission("a"),
        start_submission(priority=5),
        resume_submission("a"),
        keyed("k1", session_id="b"),
        resume_submission("nobody"),
        keyed("k1", session_id="b"),
        keyed("k2", session_id="b"),
        start_submission("c", parent_session_id="b", delay_seconds=60.0),
        resume_submission("c"),
    ]


def test_batch_executed_twice_is_executed_once(db: DbVerbs) -> None:
    """Repeat the same items with the same ids, as after a COMMIT whose answer was lost."""
    items = a_batch()
    first = db.submit(*items)
    before = sizes(db), db.rows("SELECT * FROM sessions ORDER BY 1"), db.rows("SELECT run_id, ready FROM runs")

    assert db.submit(*items) == first
    assert [type(result) for result in first].count(Submitted) == 7
    after = sizes(db), db.rows("SELECT * FROM sessions ORDER BY 1"), db.rows("SELECT run_id, ready FROM runs")
    assert after == before


def test_rolled_back_batch_can_be_executed_anew(db: DbVerbs) -> None:
    """Roll back all of it, as a deadlock or serialisation failure does, and repeat it with the same ids."""
    items = a_batch()
    with db.engine.connect() as connection:
        submit_runs(connection, items)
        connection.rollback()
    assert sizes(db) == [0, 0, 0, 0]

    assert [type(result) for result in db.submit(*items)].count(Submitted) == 7
