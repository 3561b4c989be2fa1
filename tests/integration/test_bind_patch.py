"""Binding sessions and changing their metadata on a real database."""

from typing import Any

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import CoordinatorError, NotFound, StaleClaim, Unstorable
from models.sessions.bind import Bind, Patch, bind_sessions, patch_sessions
from models.state.sessions import Session
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import accepted, claimed, idle, running, session_statuses, stop


def host_of(db: DbVerbs, runner: Runner) -> str:
    return str(db.one("SELECT hostname FROM runners WHERE runner_id = :r", r=runner.runner_id))


def bind(
    db: DbVerbs, session_id: str, hostname: str, profile: str = "profile", **values: Any
) -> Session | CoordinatorError:
    item = Bind(values.pop("caller", ADMIN), session_id, "exec-1", hostname, profile, **values)
    (result,) = db.do(bind_sessions, [item])
    return result


def patch(db: DbVerbs, session_id: str, caller: Caller = ADMIN, **values: str | None) -> Session | CoordinatorError:
    (result,) = db.do(patch_sessions, [Patch(caller, session_id, values)])
    return result


@pytest.mark.parametrize("begin", [claimed, running])
def test_bind_stores_affinity_and_sets_session_running(db: DbVerbs, begin: Any) -> None:
    """Bind before the start is reported, as runners do."""
    runner = db.runner()
    run = begin(db, runner)
    result = bind(db, run.session_id, host_of(db, runner), project_dir="/elsewhere")
    assert isinstance(result, Session)
    assert (result.status, result.executor_session_id, result.executor_profile) == ("running", "exec-1", "profile")
    assert (result.hostname, result.project_dir) == (host_of(db, runner), "/elsewhere")
    assert session_statuses(db, run.session_id)[-1] == "running"


def test_resume_goes_to_bound_host_and_profile(db: DbVerbs) -> None:
    runner, other = db.runner(), db.runner()
    run = running(db, runner)
    bind(db, run.session_id, host_of(db, runner))
    accepted(db, run, "completed")
    resumed = db.resume(run.session_id)
    assert db.claim(other) == []
    assert [claimed.run_id for claimed in db.claim(runner)] == [resumed.run_id]


def test_bind_without_run_in_hand_changes_no_status(db: DbVerbs) -> None:
    """Store the affinity only."""
    for begin, status in ((db.start, "pending"), (lambda: idle(db), "idle")):
        session_id = begin().session_id
        result = bind(db, session_id, "somewhere")
        assert isinstance(result, Session)
        assert (result.status, result.hostname) == (status, "somewhere")


def test_bind_leaves_stopping_session_stopping(db: DbVerbs) -> None:
    """Bind late: that does not undo a stop."""
    run = running(db)
    stop(db, run.session_id)
    result = bind(db, run.session_id, "somewhere")
    assert isinstance(result, Session)
    assert result.status == "stopping"


@pytest.mark.parametrize("place", ["host", "profile"])
def test_process_elsewhere_cannot_bind_session_at_work(db: DbVerbs, place: str) -> None:
    """Refuse the process of an ended claim."""
    runner = db.runner()
    run = running(db, runner)
    hostname = host_of(db, runner) if place == "profile" else "elsewhere"
    before = db.session(run.session_id)
    assert bind(db, run.session_id, hostname, "other" if place == "profile" else "profile") == StaleClaim(
        run.run_id, "running"
    )
    assert db.session(run.session_id) == before


def test_bind_of_one_claim_does_not_start_next_claim(db: DbVerbs) -> None:
    """Release and claim the run again: it waits for its own bind or start."""
    runner = db.runner()
    run = claimed(db, runner)
    bind(db, run.session_id, host_of(db, runner))
    accepted(db, run, "completed")
    db.resume(run.session_id)
    db.claim(runner)
    assert db.session(run.session_id).status == "pending"


def test_patch_changes_only_named_fields(db: DbVerbs) -> None:
    """Leave null fields unchanged; keep a time as an instant."""
    session_id = db.start(agent_name="agent", project_dir="/project").session_id
    result = patch(
        db,
        session_id,
        project_dir="/other",
        agent_name=None,
        last_resumed_at="2026-01-02T03:04:05+02:00",
        unknown="x",
    )
    assert isinstance(result, Session)
    assert (result.project_dir, result.agent_name) == ("/other", "agent")
    assert result.last_resumed_at is not None
    assert result.last_resumed_at.timestamp() == 1767315845
    assert len(session_statuses(db, session_id)) == 2


def test_empty_patch_writes_no_event(db: DbVerbs) -> None:
    """Answer with the session."""
    session_id = db.start().session_id
    assert isinstance(patch(db, session_id), Session)
    assert len(session_statuses(db, session_id)) == 1


def test_malformed_time_is_refused_for_its_item_alone(db: DbVerbs) -> None:
    """Store the others of the batch; a time without offset is UTC."""
    bad, good = db.start().session_id, db.start().session_id
    results = db.do(
        patch_sessions,
        [
            Patch(ADMIN, bad, {"last_resumed_at": "yesterday", "hostname": "h"}),
            Patch(ADMIN, good, {"last_resumed_at": "2026-01-02T03:04:05", "hostname": "a\0b\udc00"}),
        ],
    )
    assert isinstance(results[0], Unstorable)
    assert db.session(bad).hostname is None
    assert db.session(good).hostname == "a\ufffdb\ufffd"
    assert db.session(good).last_resumed_at.isoformat().startswith("2026-01-02T03:04:05")


def test_same_session_twice_in_one_batch_takes_both_changes_in_order(db: DbVerbs) -> None:
    runner = db.runner()
    run = running(db, runner)
    host = host_of(db, runner)
    first, second, third = db.do(
        patch_sessions,
        [
            Patch(ADMIN, run.session_id, {"project_dir": "/one", "agent_name": "kept"}),
            Patch(ADMIN, run.session_id, {"project_dir": "/two"}),
            Patch(ADMIN, run.session_id, {}),
        ],
    )
    assert [result.project_dir for result in (first, second, third) if isinstance(result, Session)] == [
        "/one",
        "/two",
        "/two",
    ]
    assert db.session(run.session_id).agent_name == "kept"
    binds = [Bind(ADMIN, run.session_id, f"exec-{n}", host, "profile") for n in (1, 2)]
    bound = db.do(bind_sessions, [*binds, Bind(ADMIN, run.session_id, "exec-3", "elsewhere", "profile")])
    assert [result.executor_session_id for result in bound if isinstance(result, Session)] == ["exec-1", "exec-2"]
    assert isinstance(bound[2], StaleClaim)
    assert db.session(run.session_id).executor_session_id == "exec-2"


def test_session_of_another_owner_is_not_found(db: DbVerbs) -> None:
    alice, bob = Caller(Role.USER, "alice"), Caller(Role.USER, "bob")
    session_id = db.start(caller=alice).session_id
    missing = NotFound("session", session_id)
    assert patch(db, session_id, bob, hostname="h") == missing
    assert bind(db, session_id, "h", caller=bob) == missing
    assert patch(db, "ses_unknown", hostname="h") == NotFound("session", "ses_unknown")
    assert isinstance(patch(db, session_id, alice, hostname="h"), Session)
