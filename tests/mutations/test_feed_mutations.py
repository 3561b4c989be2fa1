"""Break one mechanism of promise 3 on purpose: the scenario that guards it must notice."""

from collections.abc import Iterator
from contextlib import suppress
from http.client import IncompleteRead
from typing import Any

import pytest
from sqlalchemy import Select, bindparam, func, literal, select, true

from app.feed import reader
from models.feed import pages
from models.feed.pages import SHOWN, FeedFilter
from models.schema.tables import events, feed_head
from runtime.settings import Settings
from testkit.feed_follower import open_stream
from tests.integration import test_numbering_of_batches
from tests.races import test_numbering
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import Scenario, break_function, notices
from tests.support.web import WebInThread, served, until_ready


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings) as web:
        until_ready(web)
        yield web


def test_numbering_without_locking_events_is_noticed(db: DbVerbs) -> None:
    """A row deleted meanwhile takes its position with it."""
    break_function(db, "sequence_feed", {"LIMIT batch FOR NO KEY UPDATE": "LIMIT batch"})
    with pytest.raises(AssertionError, match="10 == 9"):
        test_numbering.test_event_deleted_while_it_is_numbered_leaves_no_hole(db)


def by_id(_: FeedFilter) -> Select[Any]:
    """Build the feed query with the id of an event as its position."""
    shown = [events.c.id.label("feed_pos"), *SHOWN[1:]]
    wanted = select(*shown, literal(1).label("found")).where(events.c.id > bindparam("after"), events.c.feed_pos > 0)
    page = wanted.order_by(events.c.id).limit(bindparam("most")).subquery("page")
    last = select(func.max(events.c.id)).where(events.c.feed_pos > 0).scalar_subquery().label("last_pos")
    return (
        select(feed_head.c.epoch, last, feed_head.c.floor, page)
        .select_from(feed_head.outerjoin(page, true()))
        .order_by(page.c.feed_pos)
    )


def test_reading_by_id_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are given before the commit: readers would skip a late commit."""
    monkeypatch.setattr(pages, "_page", by_id)
    with pytest.raises(AssertionError, match="a reader missed an event"):
        test_numbering.test_event_that_commits_late_is_read_late(db)


def streams_end_whole(web: WebInThread) -> None:
    """Check that each stream ends with a message that says when to come back, when its process ends."""
    with open_stream(web.client.url) as stream:
        stream.until("init")
        web.drain(0.4)
        web.server.should_exit = True
        last = []
        with suppress(IncompleteRead):
            for message in stream.messages():
                last = [message]
    assert last, "a stream was cut without a word"
    assert last[0].retry is not None


def test_streams_end_whole_with_their_process(web: WebInThread) -> None:
    """Run the scenario unbroken."""
    streams_end_whole(web)


def test_streams_without_drain_are_noticed(web: WebInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams would continue until the server cancels them."""
    monkeypatch.setattr(reader.Feed, "_spread_ends", lambda _: None)
    monkeypatch.setattr(web.app.state.drain, "_listeners", [])
    with pytest.raises(AssertionError, match="cut without a word"):
        streams_end_whole(web)


@pytest.mark.parametrize(
    ("part", "broken", "scenario"),
    [
        (
            "sum(events) OVER (ORDER BY first_id)",
            "sum(events) OVER (ORDER BY first_id DESC)",
            test_numbering_of_batches.test_limited_pass_leaves_what_stands_behind,
        ),
        (
            "FROM placed WHERE place IS NULL ORDER BY pos",
            "FROM placed WHERE place IS NULL ORDER BY pos LIMIT batch",
            test_numbering_of_batches.test_pass_numbers_the_last_batch_wholly,
        ),
        (
            "row_number() OVER (ORDER BY id)",
            "row_number() OVER (ORDER BY id DESC)",
            test_numbering_of_batches.test_batches_and_single_events_are_numbered_in_one_order,
        ),
    ],
    ids=["youngest batches first", "a batch cut at the limit", "positions against the order of ids"],
)
def test_broken_numbering_of_batches_is_noticed(db: DbVerbs, part: str, broken: str, scenario: Scenario) -> None:
    break_function(db, "sequence_feed", {part: broken})
    notices(scenario, db)
