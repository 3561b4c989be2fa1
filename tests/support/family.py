"""Parents and children: runs that call back, what waits for parents, and the prompts by which they heard of it."""

import json
import re
from typing import Any

from models.callbacks.resume_parents import Delivered, deliver_results
from models.core.callers import ADMIN
from models.feed.append import NewEvent, append_events
from models.state.runs import Run
from tests.support.reports import accepted, running
from tests.support.truth import Runner, Truth

CHILDREN = re.compile(r'(?:<agent-callback session="|### Child: )([A-Za-z0-9_.:-]+)')


def finished(truth: Truth, **values: Any) -> str:
    """A session that has done its turn; its id."""
    run = running(truth, **values)
    accepted(truth, run, "completed")
    return run.session_id


def child_of(truth: Truth, parent: str, runner: Runner | None = None, **values: Any) -> Run:
    """A running child that calls its parent back."""
    return running(truth, runner, **{"parent_session_id": parent, "execution_mode": "async_callback"} | values)


def ended_child(truth: Truth, parent: str, text: str | None = None, **values: Any) -> Run:
    """A child that completed, with this result."""
    run = child_of(truth, parent, **values)
    if text is not None:
        write_result(truth, run, result_text=text)
    accepted(truth, run, "completed")
    return run


def end_turn(truth: Truth, run_id: str, outcome: str = "completed") -> Run:
    """Let a runner take the run and end it."""
    (run,) = truth.claim(truth.runner())
    assert run.run_id == run_id
    accepted(truth, run, "started")
    accepted(truth, run, outcome)
    return run


def end_all_turns(truth: Truth) -> None:
    """Let a runner take all that waits, and complete it."""
    runner = truth.runner()
    while runs := truth.claim(runner, wanted=100):
        for run in runs:
            accepted(truth, run, "completed")


def write_result(truth: Truth, run: Run, **event: Any) -> None:
    """The result event that a runner writes before it reports the end."""
    frame = json.dumps({"data": {"event_type": "result", "session_id": run.session_id, **event}})
    truth.do(append_events, [NewEvent(run.session_id, ADMIN, "result", frame, claim_token=run.claim_token)])


def deliver(truth: Truth, **how: Any) -> Delivered:
    """One pass of the actor that resumes parents."""
    return truth.do(deliver_results, **how)


def waiting(truth: Truth, parent: str) -> list[str]:
    """The sessions of the children whose results wait for the parent, oldest first."""
    rows = truth.rows(
        "SELECT child_session_id FROM child_results WHERE parent_session_id = :p AND delivered_in IS NULL "
        "ORDER BY created_at, child_run_id",
        p=parent,
    )
    return [row.child_session_id for row in rows]


def prompts(truth: Truth, session_id: str) -> list[str]:
    """The callback prompts of a session, in the order of its runs."""
    rows = truth.rows(
        "SELECT CAST(parameters AS text) AS parameters FROM runs WHERE session_id = :s ORDER BY session_seq",
        s=session_id,
    )
    told = [json.loads(row.parameters)["prompt"] for row in rows]
    return [prompt for prompt in told if prompt.startswith("<agent-callback ")]


def heard_of(truth: Truth, session_id: str) -> list[str]:
    """The children that a session was told of, once for each time."""
    return [child for prompt in prompts(truth, session_id) for child in CHILDREN.findall(prompt)]


def last_run(truth: Truth, session_id: str) -> Any:
    """The session's newest run."""
    return truth.rows("SELECT * FROM runs WHERE session_id = :s ORDER BY session_seq DESC LIMIT 1", s=session_id)[0]
