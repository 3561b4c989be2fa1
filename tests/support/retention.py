"""Expired history, its removal in passes as the actor makes them, and what readers must see meanwhile."""

import json
from typing import Any

from models.core.callers import ADMIN
from models.feed.append import NewEvent, append_events
from models.feed.retention import retire_events, retire_sessions
from models.state.events_outbox import record_events
from tests.support.clocks import pass_time
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all, row

DAY = 86_400.0
DAYS = 30.0
_TIMES = {"sessions": ["created_at", "last_resumed_at", "last_sign_at"], "runs": ["created_at", "completed_at"]}


def grow_old(db: DbVerbs, days: float = DAYS + 1, where: str = "true", **values: Any) -> None:
    """Make all or some events with positions so many days older, and all that wait in batches."""
    pass_time(db, "events", "created_at", days * DAY, where, **values)
    pass_time(db, "unnumbered_batches", "created_at", days * DAY)


def all_grows_old(db: DbVerbs, days: float = DAYS + 1) -> None:
    """Make everything so many days older, and number all events."""
    number_all(db)
    grow_old(db, days)
    for table, columns in _TIMES.items():
        for column in columns:
            pass_time(db, table, column, days * DAY)


def old_history(db: DbVerbs, events: int) -> None:
    """Write so many events, all numbered and expired."""
    db.do(record_events, [row(one) for one in range(events)])
    number_all(db)
    grow_old(db)


def result(db: DbVerbs, session_id: str, content: str) -> None:
    """Write a result as runners do."""
    frame = json.dumps({"data": {"event_type": "result", "result_text": content, "result_data": {"said": content}}})
    db.do(append_events, [NewEvent(session_id, ADMIN, "result", frame)])


def retire(db: DbVerbs, most: int = 1000) -> int:
    """Run passes until one finds nothing; return the number of dropped events."""
    total = 0
    while dropped := db.do(retire_events, older_than_days=DAYS, most=most):
        total += dropped
    return total


def remove_old_sessions(db: DbVerbs, days: float = DAYS, most: int = 200) -> int:
    """Walk over all sessions; return the number of removed ones."""
    total, after = 0, None
    while True:
        walked = db.do(retire_sessions, older_than_days=days, after=after, most=most)
        total += walked.removed
        after = walked.at
        if after is None:
            return total
