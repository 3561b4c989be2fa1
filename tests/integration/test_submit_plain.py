"""Submissions of the plain case in one statement: which items it takes, and what it leaves to the verb."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.writes.attempts import Attempts
from app.writes.group_commit import GroupCommit
from models.claims.matching import Demands
from models.core.callers import Caller
from models.core.errors import NotFound, SessionExists, Unstorable
from models.core.plain import NOT_PLAIN, NotPlain
from models.runs.submission import NewRun, Submitted
from models.runs.submit import submit_runs
from models.runs.submit_plain import submit_plain
from runtime.postgres import autocommit
from runtime.settings import Settings
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.batches import run
from tests.support.db_verbs import DbVerbs, resume_submission, start_submission
from tests.support.plain_submissions import ANNA, submit_plain_first


@pytest.fixture(autouse=True)
def _profile(db: DbVerbs) -> None:
    """Store a session, a key, and the profile of starts without demands."""
    db.start(session_id="taken", idempotency_key="stored", body_hash="b", caller=ANNA)


def try_plain(db: DbVerbs, *items: NewRun) -> list[Submitted | NotPlain]:
    with autocommit(db.engine) as connection:
        return submit_plain(connection, items)


def contents(db: DbVerbs) -> list[int]:
    return [db.count(table) for table in ("runs", "sessions", RECORDED_EVENTS, "idempotency_keys", "demand_profiles")]


def test_start_is_plain_with_every_field(db: DbVerbs) -> None:
    items = [
        start_submission(),
        start_submission("mine", caller=ANNA, scope='{"a": 1}', labels={"k": "v"}, priority=-7, delay_seconds=60.0),
        start_submission(idempotency_key="k", body_hash="b"),
    ]
    assert try_plain(db, *items) == [Submitted(item.run_id, item.own_session) for item in items]
    assert db.told_kinds("mine") == ["session_created", "run_updated"]
    assert db.session("mine").next_run == 2


NOT_PLAIN_ITEMS: dict[str, list[NewRun]] = {
    "resume": [resume_submission("taken")],
    "parent": [start_submission(parent_session_id="taken")],
    "session that exists": [start_submission("taken")],
    "new demands": [start_submission(additional_demands=Demands(tags=("new",)))],
    "key that is stored": [start_submission(idempotency_key="stored", body_hash="b", caller=ANNA)],
    "key with a session id of the client": [start_submission("mine", idempotency_key="k", body_hash="b")],
    "session named twice": [start_submission("mine"), start_submission("mine")],
    "key named twice": [start_submission(idempotency_key="k", body_hash="b") for _ in range(2)],
}


@pytest.mark.parametrize("case", NOT_PLAIN_ITEMS)
def test_other_items_are_left_to_the_verb_unchanged(db: DbVerbs, case: str) -> None:
    before = contents(db)
    items = [replace(item, run_id=f"run_{place}") for place, item in enumerate(NOT_PLAIN_ITEMS[case])]
    plain = start_submission()

    results = try_plain(db, *items, plain)
    assert results == [NOT_PLAIN] * len(items) + [Submitted(plain.run_id, plain.own_session)]
    assert contents(db) == [before[0] + 1, before[1] + 1, before[2] + 2, before[3], before[4]]


def test_key_of_previous_release_is_left_to_the_verb(db: DbVerbs) -> None:
    """An admin's key was stored without a namespace then."""
    (before,) = db.accept(start_submission(idempotency_key="old", body_hash="b"))
    again = start_submission(idempotency_key="old", body_hash="b", caller=Caller(by="key:crd_000000000001"))

    assert try_plain(db, again) == [NOT_PLAIN]
    assert db.submit(again) == [replace(before, replayed=True)]


def test_child_in_front_of_its_parent_is_refused(db: DbVerbs) -> None:
    """Keep the parent out of the statement, which would insert it first."""
    child, parent = start_submission(parent_session_id="later"), start_submission("later")

    results = submit_plain_first(db, child, parent)
    assert results == [NotFound("parent session", "later"), Submitted(parent.run_id, "later")]


@pytest.mark.parametrize(("age", "is_plain"), [("50 minutes", True), ("2 hours", False), ("2 days", False)])
def test_profile_not_used_within_the_hour_is_renewed_by_the_verb(
    db: DbVerbs,
    age: str,
    is_plain: bool,  # noqa: FBT001 - a table of cases
) -> None:
    """Upkeep removes a profile a day after its last use."""
    db.rows("UPDATE demand_profiles SET last_used_at = now() - CAST(:age AS interval)", age=age)
    (result,) = submit_plain_first(db, start_submission())

    assert isinstance(result, Submitted)
    renewed = db.count("demand_profiles", "last_used_at > now() - interval '1 minute'") == 1
    assert renewed == (not is_plain)


def test_items_with_several_demands_get_their_own_profiles(db: DbVerbs) -> None:
    tags = ["a", "b", "a", "c", "b"]
    db.accept(*[start_submission(additional_demands=Demands(tags=(tag,))) for tag in "cba"])
    items = [start_submission(additional_demands=Demands(tags=(tag,))) for tag in tags]

    assert NOT_PLAIN not in try_plain(db, *items)
    rows = [db.rows(_WITH_TAGS, run_id=item.run_id)[0] for item in items]
    assert [(row.demanded, row.matched) for row in rows] == [([tag], [tag]) for tag in tags]


_TOLD = f"SELECT kind, session_id FROM {RECORDED_EVENTS} ORDER BY id"
_WITH_TAGS = """
    SELECT ARRAY(SELECT json_array_elements_text(r.demands -> 'tags')) AS demanded, p.tags AS matched
    FROM runs r JOIN demand_profiles p USING (profile_id) WHERE r.run_id = :run_id
"""


@pytest.mark.parametrize("items", [1, 32, 256, 1000])
def test_batches_of_all_sizes_are_written_whole_and_in_order(db: DbVerbs, items: int) -> None:
    db.rows("TRUNCATE events, unnumbered_batches")
    batch = [start_submission() for _ in range(items)]

    assert try_plain(db, *batch) == [Submitted(item.run_id, item.own_session) for item in batch]
    told = [(row.kind, row.session_id) for row in db.rows(_TOLD)]
    sessions = [item.own_session for item in batch]
    assert told == [(kind, session) for kind in ("session_created", "run_updated") for session in sessions]


def test_repeat_of_a_batch_is_answered_by_the_verb(db: DbVerbs) -> None:
    """Repeat the same items with the same ids, as after a COMMIT whose answer was lost."""
    items = [start_submission(), start_submission("mine"), start_submission(idempotency_key="k", body_hash="b")]
    first = submit_plain_first(db, *items)
    before = contents(db)

    assert try_plain(db, *items) == [NOT_PLAIN] * 3
    assert submit_plain_first(db, *items) == first
    assert contents(db) == before


def test_bad_item_fails_alone(db: DbVerbs, settings: Settings) -> None:
    """Give the batch to the verb, bisected, when one item cannot be stored."""
    items = [start_submission(agent_name="a\0b" if place == 5 else None) for place in range(12)]
    results: list[Any] = []

    async def scenario(attempts: Attempts, _: AsyncEngine) -> None:
        queue = GroupCommit(attempts, submit_runs, plain=submit_plain)
        results.extend(await queue.many([(item, 0) for item in [*items, start_submission("taken")]]))

    run(settings, scenario)
    assert isinstance(results[5], Unstorable)
    assert results[12] == SessionExists("taken")
    assert [type(result) for place, result in enumerate(results[:12]) if place != 5] == [Submitted] * 11
    assert db.count("runs") == 12
