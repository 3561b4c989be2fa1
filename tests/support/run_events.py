"""Events of the runs of one session: written as runners write them, and the run that each of them belongs to."""

import json
from typing import Any

from models.base import ADMIN
from models.events import AppendResult, NewEvent, StoredEvent, append_events
from models.results import run_result
from models.runs import Run
from tests.support.reports import accepted, running
from tests.support.truth import Runner, Truth


def said(session_id: str, text: str, *, event_type: str = "result", **values: Any) -> NewEvent:
    """An event of a session; a result unless another type is given."""
    frame = json.dumps({"data": {"event_type": event_type, "session_id": session_id, "result_text": text}})
    return NewEvent(session_id, values.pop("caller", ADMIN), event_type, frame, **values)


def append(truth: Truth, *items: NewEvent) -> list[AppendResult]:
    return truth.do(append_events, items)


def owner_run(truth: Truth, *items: NewEvent) -> list[str | None]:
    """The run that each of these events is stored with."""
    results = append(truth, *items)
    ids = [result.id for result in results if isinstance(result, StoredEvent)]
    assert len(ids) == len(items), results
    return [truth.one("SELECT run_id FROM events WHERE id = :i", i=event_id) for event_id in ids]


def resumed(truth: Truth, session_id: str, runner: Runner) -> Run:
    """The next run of a session, running."""
    truth.resume(session_id)
    (run,) = truth.claim(runner)
    accepted(truth, run, "started")
    return run


def late_result_of_a_former_run(truth: Truth) -> None:
    """A result that arrives with the former run's token while the next run executes is the former run's."""
    runner = truth.runner()
    first = running(truth, runner)
    accepted(truth, first, "completed")
    second = resumed(truth, first.session_id, runner)
    append(truth, said(second.session_id, "second", claim_token=second.claim_token))
    append(truth, said(first.session_id, "first", claim_token=first.claim_token))
    accepted(truth, second, "completed")
    found = [truth.do(run_result, ADMIN, run.run_id) for run in (first, second)]
    assert found == [("first", None), ("second", None)], f"results of the wrong run: {found}"
