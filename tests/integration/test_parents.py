"""Parents of resumed sessions: of the same owner, within the depth limit, and checked again when the run starts."""

from collections.abc import Iterator

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import ParentOfAnotherOwner, TooDeep
from models.runs.delete import DeleteSession, delete_sessions
from runtime.settings import Settings
from tests.support.callers import web_with_auth
from tests.support.db_verbs import DbVerbs, resume_submission
from tests.support.parents import ancestry, child_of, deliver, ended_child, heard_of, reparenting_run, waiting
from tests.support.reports import accepted, claimed, finished, running, stop_run
from tests.support.tenants import MARK, good, tenants
from tests.support.web import PROMPT, WebInThread

ANN, BOB = (Caller(Role.USER, name) for name in ("ann", "bob"))


def misplaced(db: DbVerbs) -> tuple[str, str, str]:
    """Store Ann's session, Bob's, and Bob's resume under Ann's, as the version before this one would have
    accepted it.
    """
    anns, bobs = finished(db, caller=ANN), finished(db, caller=BOB)
    resumed = db.resume(bobs, caller=BOB)
    db.rows(
        "UPDATE runs SET parent_session_id = :p, execution_mode = 'async_callback' WHERE run_id = :r",
        p=anns,
        r=resumed.run_id,
    )
    return anns, bobs, resumed.run_id


def test_start_of_a_run_under_another_owners_session_drops_the_parent(db: DbVerbs) -> None:
    """Start it without the parent; send its end to no parent."""
    anns, bobs, _ = misplaced(db)
    (run,) = db.claim(db.runner())
    accepted(db, run, "started")
    assert db.session(bobs).parent_session_id is None, "under another owner's"
    assert db.run(run.run_id).parent_session_id is None, "under another owner's"
    accepted(db, run, "completed")
    assert waiting(db, anns) == [], "told to another owner"
    assert deliver(db).runs == {}, "told to another owner"


def test_end_without_a_start_is_told_to_no_other_owner(db: DbVerbs) -> None:
    """Keep the end of a run that never started within its owner's sessions too."""
    anns, _, run_id = misplaced(db)
    stop_run(db, run_id)
    assert waiting(db, anns) == [], "told to another owner"


def test_admin_may_not_put_a_session_under_another_owners(db: DbVerbs) -> None:
    """Refuse it also to an admin, who sees both sessions."""
    anns, bobs = finished(db, caller=ANN), finished(db, caller=BOB)
    assert db.submit(resume_submission(bobs, parent_session_id=anns)) == [ParentOfAnotherOwner(anns)], "accepted"


BOSS = Caller(Role.ADMIN, "boss")


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with web_with_auth(settings) as web:
        yield web


@pytest.mark.parametrize("caller", [ADMIN, BOSS], ids=["without owner", "with owner"])
def test_resume_may_not_set_parent_of_another_owner(db: DbVerbs, caller: Caller) -> None:
    """Refuse it, since its results would go there."""
    anns, bobs, unowned = finished(db, caller=ANN), finished(db, caller=BOB), finished(db)
    for session, parent in ((bobs, anns), (bobs, unowned), (unowned, bobs)):
        result = db.submit(resume_submission(session, caller=caller, parent_session_id=parent))
        assert result == [ParentOfAnotherOwner(parent)]
    assert db.count("runs", "status = 'pending'") == 0


def test_no_role_puts_session_under_another_owners(web: WebInThread, db: DbVerbs) -> None:
    """Try a runner that works for two owners, an admin, and a user, which is told that the parent does not exist."""
    with tenants(web.client.url, db) as callers:
        machine, ann, bobs = callers.machine, callers.ann, callers.bobs
        ann.submit(session_id="anns", priority=100)
        run = machine.claim(machine.register("another"))
        assert run["session_id"] == "anns"
        body = {"type": "resume_session", "session_id": "anns", "parameters": PROMPT, "parent_session_id": bobs.session}
        for caller in (machine, callers.admin):
            refused = caller.post("/runs", body)
            assert (refused.status_code, refused.json()["detail"]) == (
                400,
                f"Parent session '{bobs.session}' belongs to another owner",
            )
            assert good(caller.post("/runs/batch", {"runs": [body]})).json()["results"][0]["code"] == 400
        assert ann.post("/runs", body).status_code == 404
        assert MARK not in str(ann.get("/sessions/anns").json()).replace(bobs.session, "")


def test_results_kept_for_another_owner_are_dropped(db: DbVerbs) -> None:
    """Drop those kept by the previous release; deliver the parent's own, without useless passes."""
    anns, bobs = finished(db, caller=ANN), finished(db, caller=BOB)
    own = ended_child(db, anns, "mine", caller=ANN)
    foreign = running(db, caller=BOB)
    db.rows(
        "INSERT INTO child_results (child_run_id, child_session_id, parent_session_id, parent_incarnation, outcome, body)"
        " SELECT :r, :c, session_id, incarnation, 'completed', '{}' FROM sessions WHERE session_id = :p",
        r=foreign.run_id,
        c=foreign.session_id,
        p=anns,
    )
    assert bobs
    assert list(deliver(db).runs) == [anns]
    assert heard_of(db, anns) == [own.session_id]
    assert waiting(db, anns) == []
    assert db.count("child_results", "child_run_id = :r", r=foreign.run_id) == 0


def test_parent_deleted_meanwhile_is_not_set(db: DbVerbs) -> None:
    """Ignore a later session of its id too, whatever its owner."""
    for again in (False, True):
        parent, session = finished(db, session_id="parent"), finished(db)
        run = reparenting_run(db, session, parent)
        db.do(delete_sessions, [DeleteSession(ADMIN, parent)])
        if again:
            claimed(db, session_id="parent", caller=BOB)
        accepted(db, run, "started")
        assert db.session(session).parent_session_id is None
        assert db.run(run.run_id).parent_session_id is None


def test_depth_is_checked_when_resume_sets_parent(db: DbVerbs) -> None:
    """Count everything below the session; a resume under its present parent is as deep as before."""
    top, session = finished(db), finished(db)
    child = finished(db, parent_session_id=session)
    assert db.submit(resume_submission(session, parent_session_id=top), max_depth=1) == [TooDeep(2, 1)]
    accepted(db, reparenting_run(db, session, top), "started")
    assert ancestry(db, child) == [child, session, top]
    assert db.session(session).depth == 1
    low = finished(db, parent_session_id=child)
    assert db.session(low).depth == 3
    again = db.submit(resume_submission(child, parent_session_id=session), max_depth=1)
    assert not isinstance(again[0], TooDeep)


def test_callback_of_adopted_session_goes_to_its_owner(db: DbVerbs) -> None:
    """Put a session under another one of the same owner, as is usual: it calls it back."""
    parent, session = finished(db, caller=BOB), finished(db, caller=BOB)
    run = reparenting_run(db, session, parent)
    accepted(db, run, "started")
    accepted(db, run, "completed")
    assert list(deliver(db).runs) == [parent]
    assert heard_of(db, parent) == [session]
    assert child_of(db, parent, caller=BOB).owner == "bob"
