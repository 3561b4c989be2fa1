"""Parents and children: runs that call back, results waiting for parents, and the prompts that told them."""

import json
import re
from typing import Any

from models.callbacks.resume_parents import Delivered, deliver_results
from models.core.callers import ADMIN
from models.feed.append import NewEvent, append_events
from models.state.runs import Run
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import accepted, running

CHILDREN = re.compile(r'(?:<agent-callback session="|### Child: )([A-Za-z0-9_.:-]+)')


def child_of(db: DbVerbs, parent: str, runner: Runner | None = None, **values: Any) -> Run:
    """Start a running child that calls its parent back."""
    return running(db, runner, **{"parent_session_id": parent, "execution_mode": "async_callback"} | values)


def ended_child(db: DbVerbs, parent: str, text: str | None = None, **values: Any) -> Run:
    """Complete a child with this result."""
    run = child_of(db, parent, **values)
    if text is not None:
        write_result(db, run, result_text=text)
    accepted(db, run, "completed")
    return run


def end_turn(db: DbVerbs, run_id: str, outcome: str = "completed") -> Run:
    """Let a runner claim the run and end it."""
    (run,) = db.claim(db.runner())
    assert run.run_id == run_id
    accepted(db, run, "started")
    accepted(db, run, outcome)
    return run


def end_all_turns(db: DbVerbs) -> None:
    """Let a runner claim all waiting runs and complete them."""
    runner = db.runner()
    while runs := db.claim(runner, wanted=100):
        for run in runs:
            accepted(db, run, "completed")


def write_result(db: DbVerbs, run: Run, **event: Any) -> None:
    """Write the result event that a runner writes before it reports the end."""
    frame = json.dumps({"data": {"event_type": "result", "session_id": run.session_id, **event}})
    db.do(append_events, [NewEvent(run.session_id, ADMIN, "result", frame, claim_token=run.claim_token)])


def deliver(db: DbVerbs, **how: Any) -> Delivered:
    """Run one pass of the actor that resumes parents."""
    return db.do(deliver_results, **how)


def waiting(db: DbVerbs, parent: str) -> list[str]:
    """Return the sessions of the children whose results wait for the parent, oldest first."""
    rows = db.rows(
        "SELECT child_session_id FROM child_results WHERE parent_session_id = :p AND delivered_in IS NULL "
        "ORDER BY created_at, child_run_id",
        p=parent,
    )
    return [row.child_session_id for row in rows]


def prompts(db: DbVerbs, session_id: str) -> list[str]:
    """Return the callback prompts of a session, in the order of its runs."""
    rows = db.rows(
        "SELECT CAST(parameters AS text) AS parameters FROM runs WHERE session_id = :s ORDER BY session_seq",
        s=session_id,
    )
    told = [json.loads(row.parameters)["prompt"] for row in rows]
    return [prompt for prompt in told if prompt.startswith("<agent-callback ")]


def heard_of(db: DbVerbs, session_id: str) -> list[str]:
    """Return the children that a session was told of, once for each time."""
    return [child for prompt in prompts(db, session_id) for child in CHILDREN.findall(prompt)]


def last_run(db: DbVerbs, session_id: str) -> Any:
    """Return the session's newest run."""
    return db.rows("SELECT * FROM runs WHERE session_id = :s ORDER BY session_seq DESC LIMIT 1", s=session_id)[0]


def ancestry(db: DbVerbs, session_id: str) -> list[str]:
    """Return the session and its ancestors, up to a repeated one."""
    found: list[str] = []
    parent: str | None = session_id
    while parent is not None and parent not in found:
        found.append(parent)
        parent = db.session(parent).parent_session_id
    return found if parent is None else [*found, parent]


def reparenting_run(db: DbVerbs, session_id: str, parent: str) -> Run:
    """Claim a resume that gives the session this parent once it starts."""
    db.resume(session_id, parent_session_id=parent, execution_mode="async_callback")
    (run,) = db.claim(db.runner())
    assert run.session_id == session_id
    return run
