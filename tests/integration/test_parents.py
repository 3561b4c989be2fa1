"""Parents of resumed sessions: of the same owner, not too deep, and looked at again when the run starts."""

from collections.abc import Callable, Iterator

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import ParentOfAnotherOwner, TooDeep
from models.runs.delete import DeleteSession, delete_sessions
from runtime.settings import Settings
from tests.support.adopting import ANN, BOB, OWNERS, adopting, line
from tests.support.callers import asking
from tests.support.family import child_of, deliver, ended_child, finished, heard_of, waiting
from tests.support.reports import accepted, claimed, running
from tests.support.tenants import MARK, good, tenants
from tests.support.truth import Truth, resuming
from tests.support.web import PROMPT, WebInThread

BOSS = Caller(Role.ADMIN, "boss")


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with asking(settings) as web:
        yield web


@pytest.mark.parametrize("caller", [ADMIN, BOSS], ids=["without owner", "with owner"])
def test_resume_may_not_bring_a_parent_of_another_owner(truth: Truth, caller: Caller) -> None:
    """Its results would go there."""
    anns, bobs, nobodys = finished(truth, caller=ANN), finished(truth, caller=BOB), finished(truth)
    for session, parent in ((bobs, anns), (bobs, nobodys), (nobodys, bobs)):
        result = truth.submit(resuming(session, caller=caller, parent_session_id=parent))
        assert result == [ParentOfAnotherOwner(parent)]
    assert truth.count("runs", "status = 'pending'") == 0


def test_no_role_puts_a_session_under_another_owners(web: WebInThread, truth: Truth) -> None:
    """A runner that works for two owners, an admin, and a user, who is told that there is no such parent."""
    with tenants(web.client.url, truth) as everybody:
        machine, ann, bobs = everybody.machine, everybody.ann, everybody.bobs
        ann.submit(session_id="anns", priority=100)
        run = machine.claim(machine.register("another"))
        assert run["session_id"] == "anns"
        body = {"type": "resume_session", "session_id": "anns", "parameters": PROMPT, "parent_session_id": bobs.session}
        for who in (machine, everybody.admin):
            refused = who.post("/runs", body)
            assert (refused.status_code, refused.json()["detail"]) == (
                400,
                f"Parent session '{bobs.session}' belongs to another owner",
            )
            assert good(who.post("/runs/batch", {"runs": [body]})).json()["results"][0]["code"] == 400
        assert ann.post("/runs", body).status_code == 404
        assert MARK not in str(ann.get("/sessions/anns").json()).replace(bobs.session, "")


@pytest.mark.parametrize("scenario", OWNERS, ids=lambda scenario: scenario.__name__)
def test_run_tells_nothing_to_another_owner(truth: Truth, scenario: Callable[[Truth], None]) -> None:
    """What the version before this one accepted, when it starts and when it never does."""
    scenario(truth)


def test_results_kept_for_another_owner_are_dropped(truth: Truth) -> None:
    """Those that the version before this one kept; the parent's own are told, and no pass goes round in vain."""
    anns, bobs = finished(truth, caller=ANN), finished(truth, caller=BOB)
    mine = ended_child(truth, anns, "mine", caller=ANN)
    foreign = running(truth, caller=BOB)
    truth.rows(
        "INSERT INTO child_results (child_run_id, child_session_id, parent_session_id, parent_incarnation, outcome, body)"
        " SELECT :r, :c, session_id, incarnation, 'completed', '{}' FROM sessions WHERE session_id = :p",
        r=foreign.run_id,
        c=foreign.session_id,
        p=anns,
    )
    assert bobs
    assert list(deliver(truth).runs) == [anns]
    assert heard_of(truth, anns) == [mine.session_id]
    assert waiting(truth, anns) == []
    assert truth.count("child_results", "child_run_id = :r", r=foreign.run_id) == 0


def test_parent_that_was_deleted_meanwhile_is_not_set(truth: Truth) -> None:
    """Nor is a later session of its name, whosever it is."""
    for again in (False, True):
        parent, session = finished(truth, session_id="parent"), finished(truth)
        run = adopting(truth, session, parent)
        truth.do(delete_sessions, [DeleteSession(ADMIN, parent)])
        if again:
            claimed(truth, session_id="parent", caller=BOB)
        accepted(truth, run, "started")
        assert truth.session(session).parent_session_id is None
        assert truth.run(run.run_id).parent_session_id is None


def test_depth_is_looked_at_when_a_resume_brings_a_parent(truth: Truth) -> None:
    """With all that is below the session; a resume under the parent that it has is as deep as before."""
    top, session = finished(truth), finished(truth)
    child = finished(truth, parent_session_id=session)
    assert truth.submit(resuming(session, parent_session_id=top), max_depth=1) == [TooDeep(2, 1)]
    accepted(truth, adopting(truth, session, top), "started")
    assert line(truth, child) == [child, session, top]
    assert truth.session(session).depth == 1
    low = finished(truth, parent_session_id=child)
    assert truth.session(low).depth == 3
    again = truth.submit(resuming(child, parent_session_id=session), max_depth=1)
    assert not isinstance(again[0], TooDeep)


def test_callback_of_an_adopted_session_goes_to_its_owner(truth: Truth) -> None:
    """The usual way: a session that is put under another one of the same owner calls it back."""
    parent, session = finished(truth, caller=BOB), finished(truth, caller=BOB)
    run = adopting(truth, session, parent)
    accepted(truth, run, "started")
    accepted(truth, run, "completed")
    assert list(deliver(truth).runs) == [parent]
    assert heard_of(truth, parent) == [session]
    assert child_of(truth, parent, caller=BOB).owner == "bob"
