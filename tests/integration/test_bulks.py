"""Bulks by their verbs: what a dry run matches, what a worker changes and skips, and how one ends."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection

from models.bulk.actions import Skipped
from models.bulk.chunks import CHUNK, in_chunks
from models.bulk.jobs import (
    MOST_PREPARED,
    MOST_RUNNING,
    StartBulk,
    StopBulk,
    get_bulk,
    list_bulks,
    start_bulks,
    stop_bulks,
)
from models.bulk.match import Matched, match_runs
from models.bulk.stored_search import read_search, write_search
from models.core.callers import ADMIN, Caller, Role
from models.core.errors import NotFound, TokenUnknown, TooManyBulks
from models.core.statuses import BulkAction, RunStatus
from models.expiry.cleanup import upkeep
from models.runs.search import Bound, RunSearch
from models.runs.search_sql import Order
from tests.support.bulks import (
    ledger,
    matched,
    pending,
    prepared,
    replayed,
    runs_of,
    start,
    started,
    state,
    work,
    work_all,
)
from tests.support.clocks import pass_time
from tests.support.db_verbs import DbVerbs
from tests.support.parents import ended_child
from tests.support.reports import accepted, finished, idle, running, stop_run

ann, bob = (Caller(Role.USER, name, f"key:crd_{name}") for name in ("ann", "bob"))
root = Caller(Role.ADMIN, None, "key:crd_root")


def test_dry_run_matches_and_changes_nothing(db: DbVerbs) -> None:
    """Show ten of the runs, newest first, and tell that no other matches."""
    run_ids = pending(db, 12, labels={"team": "sky"})
    pending(db, 2)
    found = matched(db, BulkAction.STOP, RunSearch(labels={"team": "sky"}))
    assert (found.number, found.exact, found.searched_until) == (12, True, None)
    assert [run_id for chunk in found.chunks for run_id in chunk] == run_ids[::-1]
    assert [run.run_id for run in found.sample] == run_ids[:1:-1]
    assert db.count("runs", "status = 'pending'") == 14


@pytest.mark.parametrize("ended", ["revoked_at = now()", "expires_at = now()"])
def test_bulk_stops_when_its_key_ends(db: DbVerbs, ended: str) -> None:
    """Change no run after that; a bulk of another key goes on."""
    run_ids, others = pending(db, 4, ann), pending(db, 2, bob)
    for name in ("ann", "bob"):
        db.rows(
            "INSERT INTO api_keys (key_id, secret_hash, role, owner) VALUES (:key, 'hash', 'user', :name)",
            key=f"crd_{name}",
            name=name,
        )
    bulk_id = started(db, BulkAction.STOP, run_ids, caller=ann)
    assert work(db)
    db.rows(f"UPDATE api_keys SET {ended} WHERE key_id = 'crd_ann'")
    other = started(db, BulkAction.STOP, others, caller=bob)
    work_all(db)
    bulk = state(db, bulk_id)
    assert (bulk.state, bulk.done, bulk.ended_at is not None) == ("stopped", 2, True)
    assert db.count("runs", "status = 'pending'") == 2
    assert db.count("bulk_chunks", "true") == 0
    assert state(db, other).state == "completed"


def test_limit_counts_newest_runs(db: DbVerbs) -> None:
    run_ids = pending(db, 4)
    found = matched(db, BulkAction.STOP, RunSearch(statuses=("pending",)), limit=3)
    assert (found.number, found.exact, found.searched_until) == (3, False, None)
    assert found.chunks == [run_ids[:0:-1]]


def test_bounded_search_says_how_far_it_came(db: DbVerbs) -> None:
    pending(db, 30)
    which, bound = RunSearch(type="resume_session"), Bound(rows=10)
    found = db.do(match_runs, ADMIN, which, action=BulkAction.STOP, limit=5, bound=bound)
    assert isinstance(found, Matched)
    assert (found.number, found.exact) == (0, False)
    assert found.searched_until is not None


def test_dry_run_of_user_matches_own_runs_only(db: DbVerbs) -> None:
    own, others = pending(db, 2, ann), pending(db, 2, bob)
    for which in (RunSearch(statuses=("pending",)), RunSearch(run_ids=(*own, *others))):
        assert matched(db, BulkAction.STOP, which, ann).number == 2
        assert matched(db, BulkAction.STOP, which, root).number == 4


def test_runs_of_one_session_are_deleted_in_one_chunk(db: DbVerbs) -> None:
    """Find them together, or the second chunk would find its run gone."""
    size = CHUNK[BulkAction.DELETE]
    sessions = {f"run_{number}": f"ses_{number % (size // 2)}" for number in range(2 * size)}
    chunks = in_chunks(BulkAction.DELETE, list(sessions), sessions)
    assert sorted(run_id for chunk in chunks for run_id in chunk) == sorted(sessions)
    assert all(len(chunk) <= size for chunk in chunks)
    owners = [{sessions[run_id] for run_id in chunk} for chunk in chunks]
    assert sum(map(len, owners)) == size // 2


def test_stored_search_is_the_same_search() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    which = RunSearch(
        statuses=("failed",),
        labels={"a": "b"},
        not_statuses=("pending",),
        run_ids=("r",),
        id_start="run_0",
        owner="ann",
        type="start_session",
        ready=False,
        min_attempt=1,
        created_after=moment,
        ended_before=moment + timedelta(hours=1),
        order=Order.ENDED,
    )
    assert read_search(write_search(which)) == which
    assert json.loads(write_search(RunSearch())) == {}


def test_stop_changes_unfinished_runs_and_counts_others(db: DbVerbs) -> None:
    """Skip with a reason those that have ended, are stopping already or were deleted."""
    in_hand, ended, stopping = running(db), runs_of(db, [finished(db)])[0], running(db)
    stop_run(db, stopping.run_id)
    (waiting,) = pending(db, 1)
    run_ids = [waiting, in_hand.run_id, ended, stopping.run_id, "run_gone"]
    bulk_id = started(db, BulkAction.STOP, run_ids)
    done = work_all(db)
    bulk = state(db, bulk_id)
    assert (bulk.state, bulk.total, bulk.done, bulk.changed) == ("completed", 5, 5, 2)
    assert bulk.skipped == {Skipped.ENDED: 1, Skipped.STOPPING: 1, Skipped.GONE: 1}
    assert (db.run(waiting).status, db.run(in_hand.run_id).status) == ("stopped", "stopping")
    assert {runner for each in done for runner in each.runners} == {in_hand.runner_id}
    assert bulk.ended_at is not None


def test_run_that_no_longer_matches_is_skipped(db: DbVerbs) -> None:
    """Leave a run alone that a runner has started since the dry run asked for waiting ones."""
    kept, taken = pending(db, 2)
    which = RunSearch(statuses=(RunStatus.PENDING,))
    found = matched(db, BulkAction.STOP, which)
    token = prepared(db, BulkAction.STOP, found.chunks, which=which)
    claimed = db.claim(db.runner())[0].run_id
    bulk_id = start(db, token).bulk_id
    work_all(db)
    bulk = state(db, bulk_id)
    assert (bulk.changed, bulk.skipped) == (1, {Skipped.CHANGED: 1})
    assert db.run(claimed).status == "claimed"
    assert db.run(next(run for run in (kept, taken) if run != claimed)).status == "stopped"


def test_later_match_is_left_alone(db: DbVerbs) -> None:
    """Act on the runs of the dry run only."""
    run_ids = pending(db, 2)
    which = RunSearch(statuses=(RunStatus.PENDING,))
    token = prepared(db, BulkAction.STOP, matched(db, BulkAction.STOP, which).chunks, which=which)
    (later,) = pending(db, 1)
    start(db, token)
    work_all(db)
    assert [db.run(run_id).status for run_id in (*run_ids, later)] == ["stopped", "stopped", "pending"]


def test_delete_removes_ended_sessions_only(db: DbVerbs) -> None:
    """Keep a session with a pending run, which a single delete would stop, and one with a live process."""
    ended = [finished(db) for _ in range(3)]
    resumed, live, working = finished(db), idle(db).session_id, running(db).session_id
    db.resume(resumed)
    first = {session: runs_of(db, [session])[0] for session in (*ended, resumed, live, working)}
    bulk_id = started(db, BulkAction.DELETE, [*first.values(), "run_gone"])
    work_all(db)
    bulk = state(db, bulk_id)
    assert (bulk.changed, bulk.skipped) == (3, {Skipped.ALIVE: 3, Skipped.GONE: 1})
    left = {row.session_id for row in db.rows("SELECT session_id FROM sessions")}
    assert left == {resumed, live, working}
    assert db.count("runs", "status = 'pending'") == 1


def test_delete_writes_events_of_single_deletes(db: DbVerbs) -> None:
    session = finished(db)
    started(db, BulkAction.DELETE, runs_of(db, [session]))
    work_all(db)
    assert db.told_kinds(session)[-1] == "session_deleted"


def test_replay_submits_each_ended_run_once(db: DbVerbs) -> None:
    """Apply the changes to each; skip what has not ended."""
    ended = runs_of(db, [finished(db) for _ in range(5)])
    (waiting,) = pending(db, 1)
    bulk_id = started(db, BulkAction.REPLAY, [*ended, waiting], changes='{"priority": 9, "labels": {"retry": "1"}}')
    work_all(db)
    bulk = state(db, bulk_id)
    assert (bulk.state, bulk.changed, bulk.skipped) == ("completed", 5, {Skipped.UNFINISHED: 1})
    assert ledger(db) == dict.fromkeys(ended, 1)
    rows = db.rows("SELECT priority, labels FROM runs WHERE replay_of IS NOT NULL")
    assert {(row.priority, json.dumps(row.labels)) for row in rows} == {(9, '{"retry": "1"}')}


def test_replay_that_is_refused_is_an_error_of_its_run(db: DbVerbs) -> None:
    parent = finished(db)
    child = ended_child(db, parent)
    (other,) = runs_of(db, [finished(db)])
    db.rows("UPDATE sessions SET depth = 9")
    bulk_id = started(db, BulkAction.REPLAY, [child.run_id, other], changes='{"parent_session_id": "never"}')
    work_all(db)
    bulk = state(db, bulk_id)
    assert (bulk.state, bulk.done, bulk.changed) == ("completed", 2, 0)
    text = "Parent session 'never' not found"
    assert bulk.errors == [{"run_id": child.run_id, "error": text}, {"run_id": other, "error": text}]


def test_repeated_token_is_the_same_bulk(db: DbVerbs) -> None:
    """Start it once; answer with its state also when it has ended."""
    token = prepared(db, BulkAction.STOP, [pending(db, 2)])
    first, second = start(db, token), start(db, token)
    assert first.bulk_id == second.bulk_id
    work_all(db)
    assert start(db, token).state == "completed"
    assert work(db) is None


def test_token_of_another_caller_is_unknown(db: DbVerbs) -> None:
    """Refuse it to an admin, too, whose dry run would have matched others."""
    token = prepared(db, BulkAction.STOP, [pending(db, 2, ann)], caller=ann)
    assert db.do(start_bulks, [StartBulk(bob, token), StartBulk(root, token)]) == [TokenUnknown(), TokenUnknown()]
    assert db.do(start_bulks, [StartBulk(ann, each) for each in ("", "blt_", "blt_x", "blk_x")]) == [TokenUnknown()] * 4
    assert work(db) is None


def test_expired_token_is_unknown(db: DbVerbs) -> None:
    token = prepared(db, BulkAction.STOP, [pending(db, 1)])
    db.rows("UPDATE bulk_jobs SET expires_at = now() - interval '1 second'")
    assert db.do(start_bulks, [StartBulk(ADMIN, token)]) == [TokenUnknown()]


def test_bulk_without_a_run_is_completed_at_once(db: DbVerbs) -> None:
    assert start(db, prepared(db, BulkAction.STOP, [])).state == "completed"


def test_older_dry_runs_give_way(db: DbVerbs) -> None:
    """Bound what a caller keeps by asking."""
    tokens = [prepared(db, BulkAction.STOP, [["run_x"]], caller=ann) for _ in range(MOST_PREPARED + 2)]
    assert db.count("bulk_jobs") == db.count("bulk_chunks") == MOST_PREPARED
    assert db.do(start_bulks, [StartBulk(ann, tokens[0])]) == [TokenUnknown()]
    start(db, tokens[-1], ann)


def test_caller_has_a_bounded_number_of_running_bulks(db: DbVerbs) -> None:
    for _ in range(MOST_RUNNING):
        started(db, BulkAction.STOP, ["run_x"], caller=ann)
    token = prepared(db, BulkAction.STOP, [["run_x"]], caller=ann)
    assert db.do(start_bulks, [StartBulk(ann, token)]) == [TooManyBulks(MOST_RUNNING)]
    started(db, BulkAction.STOP, ["run_x"], caller=bob)
    work_all(db)
    start(db, token, ann)


def test_stop_ends_bulk_after_its_chunk(db: DbVerbs) -> None:
    run_ids = pending(db, 6)
    bulk_id = started(db, BulkAction.STOP, run_ids)
    work(db)
    for _ in range(2):
        (bulk,) = db.do(stop_bulks, [StopBulk(ADMIN, bulk_id)])
        assert not isinstance(bulk, NotFound)
        assert (bulk.state, bulk.done, bulk.changed) == ("stopped", 2, 2)
        assert bulk.ended_at is not None
    assert work(db) is None
    assert db.count("runs", "status = 'pending'") == 4
    assert db.count("bulk_chunks") == 0


def test_bulks_are_visible_to_their_caller_and_admins(db: DbVerbs) -> None:
    """Hide an admin's bulk from a user of the same owner: its errors name runs of others."""
    of_admin = started(db, BulkAction.STOP, ["run_x"], caller=Caller(Role.ADMIN, "ann", "key:crd_boss"))
    of_ann, of_bob = (started(db, BulkAction.STOP, ["run_x"], caller=each) for each in (ann, bob))
    seen = {
        who: [bulk.bulk_id for bulk in db.do(list_bulks, who, limit=10).bulks]  # type: ignore[union-attr]  # no cursor
        for who in (ann, bob, root)
    }
    assert seen == {ann: [of_ann], bob: [of_bob], root: [of_bob, of_ann, of_admin]}
    assert db.do(get_bulk, ann, of_bob) == NotFound("bulk", of_bob)
    assert db.do(stop_bulks, [StopBulk(ann, of_bob)]) == [NotFound("bulk", of_bob)]
    assert state(db, of_bob, root).created_by == bob.by


def test_bulks_of_admins_are_audited(db: DbVerbs) -> None:
    """Record the start, and the acts on runs of others as single ones are; a user's is not recorded."""
    (run_id,) = pending(db, 1, ann)
    bulk_id = started(db, BulkAction.STOP, [run_id], caller=root)
    work_all(db)
    of_ann = started(db, BulkAction.STOP, ["run_x"], caller=ann)
    db.do(stop_bulks, [StopBulk(root, of_ann)])
    acts = [tuple(row) for row in db.rows("SELECT act, target, owner FROM audit_log ORDER BY audit_id")]
    assert acts == [("bulk_started", bulk_id, None), ("run_stopped", run_id, "ann"), ("bulk_stopped", of_ann, "ann")]


def test_replays_keep_the_pace_of_submissions(db: DbVerbs) -> None:
    """Let a bulk be a few seconds ahead of its pace, and no further; without authentication there is no pace."""
    ended = runs_of(db, [finished(db, caller=ann) for _ in range(8)])
    bulk_id = started(db, BulkAction.REPLAY, ended, caller=ann)
    passes = 0
    while work(db, submissions_per_minute=60):
        passes += 1
    assert passes == 2
    assert state(db, bulk_id).state == "running"
    pass_time(db, "bulk_jobs", "due_at", 4)
    assert work(db, submissions_per_minute=60)
    free = started(db, BulkAction.REPLAY, ended)
    assert [each.bulk_id for each in work_all(db)].count(free) == 4


def test_replays_of_a_caller_are_done_one_bulk_after_the_other(db: DbVerbs) -> None:
    """Several bulks of one caller would keep a multiple of its pace."""
    ended = runs_of(db, [finished(db, caller=ann) for _ in range(8)])
    first, second = (started(db, BulkAction.REPLAY, ended[half : half + 4], caller=ann) for half in (0, 4))
    served = [each.bulk_id for each in work_all(db)]
    assert served == [first, first, second, second]


def test_bulks_are_served_in_turn(db: DbVerbs) -> None:
    first, second = (started(db, BulkAction.STOP, pending(db, 4)) for _ in range(2))
    assert [each.bulk_id for each in work_all(db)] == [first, second, first, second]


def test_upkeep_removes_old_bulks_and_dry_runs(db: DbVerbs) -> None:
    """Keep running ones, whatever their age, and ended ones for 30 days."""
    old, new, running_one = (started(db, BulkAction.STOP, pending(db, 1)) for _ in range(3))
    prepared(db, BulkAction.STOP, [["run_x"]])
    fresh = prepared(db, BulkAction.STOP, [["run_x"]])
    work(db), work(db)
    db.rows("UPDATE bulk_jobs SET ended_at = now() - interval '31 days' WHERE bulk_id = :b", b=old)
    db.rows("UPDATE bulk_jobs SET created_at = now() - interval '99 days' WHERE bulk_id = :b", b=running_one)
    db.rows(
        "UPDATE bulk_jobs SET expires_at = now() - interval '1 hour' WHERE state = 'prepared' AND bulk_id <> :b",
        b=fresh.replace("blt_", "blk_"),
    )

    def clean(conn: Connection) -> bool:
        return upkeep(conn)

    assert not db.do(clean)
    left = {row.bulk_id for row in db.rows("SELECT bulk_id FROM bulk_jobs")}
    assert left == {new, running_one, fresh.replace("blt_", "blk_")}
    assert db.count("bulk_chunks") == 2


def test_stop_of_one_run_stops_its_session_as_a_single_stop_does(db: DbVerbs) -> None:
    """Count a run of the same session that is stopped with it as changed, once."""
    run = running(db)
    resumed = db.resume(run.session_id)
    bulk_id = started(db, BulkAction.STOP, [run.run_id, resumed.run_id])
    work_all(db)
    assert (state(db, bulk_id).changed, state(db, bulk_id).skipped) == (2, {})
    assert (db.run(run.run_id).status, db.run(resumed.run_id).status) == ("stopping", "stopped")


def test_replay_of_a_replay_names_the_run_before_it(db: DbVerbs) -> None:
    (first,) = runs_of(db, [finished(db)])
    second = replayed(db, first).run_id
    (run,) = db.claim(db.runner())
    assert run.run_id == second
    accepted(db, run, "completed")
    assert replayed(db, second).replay_of == second


@pytest.mark.parametrize("action", BulkAction)
def test_action_on_runs_of_another_owner_changes_nothing(db: DbVerbs, action: BulkAction) -> None:
    """Check the owner again when acting, whatever ids the bulk holds."""
    bobs = [*pending(db, 1, bob), *runs_of(db, [finished(db, caller=bob)])]
    before = db.rows("SELECT run_id, status FROM runs ORDER BY 1")
    bulk_id = started(db, action, bobs, caller=ann)
    work_all(db)
    assert db.rows("SELECT run_id, status FROM runs ORDER BY 1") == before
    assert state(db, bulk_id, ann).changed == 0
