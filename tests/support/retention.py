"""History that is past its time, its end in passes as the actor makes them, and what readers must see meanwhile."""

import json
from typing import Any

from sqlalchemy import Connection

from models.core.callers import ADMIN
from models.feed.append import NewEvent, append_events
from models.feed.pages import FeedPage, read_feed
from models.feed.retention import retire_events, retire_sessions
from models.state.events_outbox import record_events
from tests.support.clocks import pass_time
from tests.support.contenders import steppers
from tests.support.db_verbs import DbVerbs
from tests.support.numbering_scenarios import number_all, row
from tests.support.reports import accepted, running

DAY = 86_400.0
DAYS = 30.0
_TIMES = {"sessions": ["created_at", "last_resumed_at", "last_sign_at"], "runs": ["created_at", "completed_at"]}


def grow_old(db: DbVerbs, days: float = DAYS + 1, where: str = "true", **values: Any) -> None:
    """Let events be so many days older, all or some."""
    pass_time(db, "events", "created_at", days * DAY, where, **values)


def all_grows_old(db: DbVerbs, days: float = DAYS + 1) -> None:
    """Let everything that ever happened be so many days longer ago, and have its position."""
    number_all(db)
    grow_old(db, days)
    for table, columns in _TIMES.items():
        for column in columns:
            pass_time(db, table, column, days * DAY)


def old_history(db: DbVerbs, events: int) -> None:
    """So many events, all numbered, all past their time."""
    db.do(record_events, [row(one) for one in range(events)])
    number_all(db)
    grow_old(db)


def finished(db: DbVerbs, **values: Any) -> str:
    """A session whose only run is completed."""
    run = running(db, **values)
    accepted(db, run, "completed")
    return run.session_id


def result(db: DbVerbs, session_id: str, content: str) -> None:
    """Write a result as runners do."""
    frame = json.dumps({"data": {"event_type": "result", "result_text": content, "result_data": {"said": content}}})
    db.do(append_events, [NewEvent(session_id, ADMIN, "result", frame)])


def retire(db: DbVerbs, most: int = 1000) -> int:
    """All passes until one finds nothing; how many events went."""
    total = 0
    while dropped := db.do(retire_events, older_than_days=DAYS, most=most):
        total += dropped
    return total


def forget(db: DbVerbs, days: float = DAYS, most: int = 200) -> int:
    """A walk over all sessions; how many were removed."""
    total, after = 0, None
    while True:
        walked = db.do(retire_sessions, older_than_days=days, after=after, most=most)
        total += walked.removed
        after = walked.at
        if after is None:
            return total


def retire_some(conn: Connection, most: int) -> int:
    """One pass over a few events, in an open transaction."""
    return retire_events(conn, older_than_days=DAYS, most=most)


def is_honest(page: FeedPage, after: int) -> bool:
    """Whether a page holds all there was after the position, or says that this is gone; True when it is gone."""
    if page.head.floor > after:
        return True
    positions = [event.position for event in page.events]
    expected = list(range(after + 1, page.covers + 1))
    assert positions == expected, f"a reader behind {after} missed events without a word"
    return False


def a_page_read_while_the_floor_rises(db: DbVerbs) -> None:
    """Before the commit all is there, after it the floor says what is not; there is nothing in between."""
    old_history(db, 10)

    def look() -> list[bool]:
        return [is_honest(db.do(read_feed, after, limit=100), after) for after in (0, 3, 6, 9)]

    with steppers(db.engine, 1) as (retirer,):
        assert retirer.do(retire_some, 6).result(10) == 6
        assert look() == [False] * 4
        retirer.commit()
        assert look() == [True, True, False, False]
