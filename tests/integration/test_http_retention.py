"""Retention as seen by clients of the feed and of sessions: removed history is reported."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection

from app.feed import stream as streams
from models.feed.pages import FeedFilter, FeedPage, read_feed
from models.feed.sequence import read_head
from models.state.events_outbox import record_events
from runtime.settings import Settings
from testkit.feed_follower import open_stream
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all, row
from tests.support.reports import finished
from tests.support.retention import all_grows_old, old_history, remove_old_sessions, result, retire
from tests.support.web import WebInThread, served, until_ready


@contextmanager
def web_of(settings: Settings, **values: Any) -> Iterator[WebInThread]:
    with served(settings.model_copy(update={"feed_poll_seconds": 0.05, **values})) as web:
        until_ready(web)
        yield web


def cursor_at(db: DbVerbs, position: int) -> str:
    return f"v1.{db.do(read_head).epoch}.{position}"


@pytest.fixture
def partly_gone(db: DbVerbs) -> DbVerbs:
    """Return a session with eight events, of which the first five are removed."""
    old_history(db, 5)
    db.do(record_events, [row(number) for number in range(3)])
    number_all(db)
    retire(db)
    return db


@pytest.mark.parametrize("position", [0, 4])
def test_cursor_below_oldest_position_is_expired(partly_gone: DbVerbs, settings: Settings, position: int) -> None:
    """Restart with a snapshot, whatever the client requested, since an unseen event is gone."""
    query = {"last_event_id": cursor_at(partly_gone, position), "include_init": "false"}
    with web_of(settings) as web, open_stream(web.client.url, query) as stream:
        assert stream.until("reset")[-1].data == '{"reason":"expired"}'
        assert stream.until("init")[-1].position == 8


@pytest.mark.parametrize("position", [5, 6])
def test_cursor_at_oldest_position_has_missed_nothing(partly_gone: DbVerbs, settings: Settings, position: int) -> None:
    """Resume behind the last event that was removed."""
    with (
        web_of(settings) as web,
        open_stream(web.client.url, {"last_event_id": cursor_at(partly_gone, position)}) as stream,
    ):
        assert [message.position for message in stream.take(8 - position)] == list(range(position + 1, 9))


def test_client_losing_history_while_catching_up_is_reset(
    db: DbVerbs, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remove the page that would follow: the client restarts, and has seen no event out of order."""
    old_history(db, 10)
    pages = 0

    def read_slowly(conn: Connection, after: int, which: FeedFilter, *, limit: int) -> FeedPage:
        nonlocal pages
        pages += 1
        if pages == 3:
            assert retire(db) == 10
        return read_feed(conn, after, which, limit=limit)

    monkeypatch.setattr(streams, "read_feed", read_slowly)
    with (
        web_of(settings, catch_up_page_events=2) as web,
        open_stream(web.client.url, {"last_event_id": cursor_at(db, 0)}) as stream,
    ):
        messages = stream.until("reset")
        assert [message.position for message in messages if message.event == "event"] == [1, 2, 3, 4]
        assert messages[-1].data == '{"reason":"expired"}'
        assert stream.until("init")[-1].position == 10
        web.client.submit(session_id="later")
        number_all(db)
        assert stream.take(1)[0].position == 11


def test_live_client_is_unaffected_by_retention(db: DbVerbs, settings: Settings) -> None:
    old_history(db, 10)
    with web_of(settings) as web, open_stream(web.client.url) as stream:
        stream.until("init")
        retire(db)
        db.do(record_events, [row(1)])
        number_all(db)
        assert [(message.event, message.position) for message in stream.take(1)] == [("event", 11)]


def test_list_loses_forgotten_session(db: DbVerbs, settings: Settings) -> None:
    """Send the same event and the same 404 as for a delete."""
    session_id = finished(db)
    result(db, session_id, "kept")
    all_grows_old(db)
    retire(db)
    with web_of(settings) as web, open_stream(web.client.url) as stream:
        stream.until("init")
        assert web.client.get(f"/sessions/{session_id}/result").json()["result_text"] == "kept"
        assert web.client.get(f"/sessions/{session_id}/events").json()["events"] == []
        assert remove_old_sessions(db) == 1
        number_all(db)
        gone = stream.take(1)[0]
        assert (gone.event, gone.data) == ("session_deleted", f'{{"session_id":"{session_id}","runs_deleted":1}}')
        assert web.client.get(f"/sessions/{session_id}").status_code == 404
        assert web.client.get(f"/sessions/{session_id}/result").status_code == 404


def test_follower_of_one_session_is_reset_too(db: DbVerbs, settings: Settings) -> None:
    """Move its cursor with the feed, though its filter passes few events."""
    session_id = finished(db)
    all_grows_old(db)
    cursor = cursor_at(db, 1)
    retire(db)
    with (
        web_of(settings) as web,
        open_stream(web.client.url, {"session_id": session_id, "last_event_id": cursor}) as stream,
    ):
        assert stream.until("reset")[-1].data == '{"reason":"expired"}'
        stream.until("init")
