"""Write events of a session's runs as runners do, and find the run of each."""

import json
from typing import Any

from models.core.callers import ADMIN
from models.feed.append import AppendResult, LeftOut, NewEvent, StoredEvent, append_events
from models.runs.results import run_result
from models.state.runs import Run
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import accepted, running


def event_of(session_id: str, text: str, *, event_type: str = "result", **values: Any) -> NewEvent:
    """Build an event of a session; a result unless another type is given."""
    frame = json.dumps({"data": {"event_type": event_type, "session_id": session_id, "result_text": text}})
    return NewEvent(session_id, values.pop("caller", ADMIN), event_type, frame, **values)


def append(db: DbVerbs, *items: NewEvent) -> list[AppendResult]:
    return db.do(append_events, items)


# Bound under test.
MOST = 10


def line_of(run: Run, number: int, **values: Any) -> NewEvent:
    """Build the event of a line that a run printed."""
    return event_of(run.session_id, str(number), event_type="message", **values)


def append_bounded(db: DbVerbs, *items: NewEvent, most: int = MOST) -> list[type]:
    """Append these events under a bound; return what became of them."""
    return [type(result) for result in db.do(append_events, items, run_events_max=most)]


def texts_of(db: DbVerbs, run: Run) -> list[str]:
    """Return the texts of a run's own events, the coordinator's notice as its role."""
    rows = db.rows(
        "SELECT frame FROM events WHERE run_id = :r AND kind = 'event' AND event_type <> 'run_start' ORDER BY id",
        r=run.run_id,
    )
    return [row.frame["data"].get("result_text") or row.frame["data"]["role"] for row in rows]


def bound_holds(db: DbVerbs) -> None:
    """Check that one batch and several store ten lines, then one notice, and nothing more."""
    run = running(db)
    assert append_bounded(db, *[line_of(run, number) for number in range(4)]) == [StoredEvent] * 4
    assert append_bounded(db, *[line_of(run, number) for number in range(4, 13)]) == [StoredEvent] * 6 + [LeftOut] * 3
    for _ in range(3):
        append_bounded(db, line_of(run, 99))
    found = texts_of(db, run)
    assert found == [*map(str, range(10)), "system"], f"stored beyond the bound: {found}"


def owner_run(db: DbVerbs, *items: NewEvent) -> list[str | None]:
    """Return the run that each of these events is stored with."""
    results = append(db, *items)
    ids = [result.id for result in results if isinstance(result, StoredEvent)]
    assert len(ids) == len(items), results
    return [db.one("SELECT run_id FROM events WHERE id = :i", i=event_id) for event_id in ids]


def resumed(db: DbVerbs, session_id: str, runner: Runner) -> Run:
    """Start the next run of a session."""
    db.resume(session_id)
    (run,) = db.claim(runner)
    accepted(db, run, "started")
    return run


def late_result_of_a_former_run(db: DbVerbs) -> None:
    """Give a result with the former run's token to the former run, while the next run executes."""
    runner = db.runner()
    first = running(db, runner)
    accepted(db, first, "completed")
    second = resumed(db, first.session_id, runner)
    append(db, event_of(second.session_id, "second", claim_token=second.claim_token))
    append(db, event_of(first.session_id, "first", claim_token=first.claim_token))
    accepted(db, second, "completed")
    found = [db.do(run_result, ADMIN, run.run_id) for run in (first, second)]
    assert found == [("first", None), ("second", None)], f"results of the wrong run: {found}"
