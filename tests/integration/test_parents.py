"""Parents of resumed sessions: of the same owner, within the depth limit, and checked again when the run starts."""

from collections.abc import Callable, Iterator

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import ParentOfAnotherOwner, TooDeep
from models.runs.delete import DeleteSession, delete_sessions
from runtime.settings import Settings
from tests.support.callers import web_with_auth
from tests.support.db_verbs import DbVerbs, resume_submission
from tests.support.parents import child_of, deliver, ended_child, heard_of, waiting
from tests.support.reparenting_scenarios import ANN, BOB, OWNERS, ancestry, reparenting_run
from tests.support.reports import accepted, claimed, finished, running
from tests.support.tenants import MARK, good, tenants
from tests.support.web import PROMPT, WebInThread

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


@pytest.mark.parametrize("scenario", OWNERS, ids=lambda scenario: scenario.__name__)
def test_run_reveals_nothing_to_another_owner(db: DbVerbs, scenario: Callable[[DbVerbs], None]) -> None:
    """Use a run accepted by the previous release, when it starts and when it never does."""
    scenario(db)


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
