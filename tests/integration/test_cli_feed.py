"""`coordinator feed`: what it shows, and that every client notices a new epoch."""

import json
from collections.abc import Iterator

import pytest

from models.feed.sequence import read_head
from models.state.events_outbox import record_events
from runtime.settings import Settings
from tests.support.command import Ended, coordinator
from tests.support.db_verbs import DbVerbs
from tests.support.following import following
from tests.support.numbering import number_all, row
from tests.support.ports import own_port
from tests.support.web import WebInThread, served, until_ready


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update={"feed_poll_seconds": 0.05})) as web:
        until_ready(web)
        yield web


def feed(url: str, *arguments: str, answer: str = "") -> Ended:
    return coordinator("feed", *arguments, stdin=answer, DATABASE_URL=url)


def test_status_shows_where_the_feed_stands(db: DbVerbs, database_url: str) -> None:
    """For people a line each, for machines JSON; Redis is not asked for."""
    db.do(record_events, [row(one) for one in range(3)])
    number_all(db)
    db.do(record_events, [row(3)])
    shown = json.loads(feed(database_url, "status", "--json").stdout)
    head = db.do(read_head)
    assert (shown["epoch"], shown["head"], shown["floor"], shown["unnumbered"]) == (head.epoch, 3, 0, 1)
    assert shown["oldest_event_at"] is not None
    assert shown["events_bytes"] > 0
    lines = dict(line.split(maxsplit=1) for line in feed(database_url, "status").stdout.splitlines()[:3])
    assert lines == {"epoch": head.epoch, "head": "3", "floor": "0"}


def test_an_empty_feed_has_a_status_too(database_url: str) -> None:
    """Right after the migration."""
    done = feed(database_url, "status")
    assert done.returncode == 0, done.stderr
    assert "oldest event at  -" in done.stdout


def test_a_rotation_is_asked_for_once_more(db: DbVerbs, database_url: str) -> None:
    """Whoever says no, or nothing, has changed nothing."""
    former = db.do(read_head).epoch
    for answer in ("n\n", ""):
        assert feed(database_url, "rotate-epoch", answer=answer).returncode == 1
        assert db.do(read_head).epoch == former
    done = feed(database_url, "rotate-epoch", answer="y\n")
    fresh = db.do(read_head).epoch
    assert fresh != former
    # The question ends its line there.
    assert done.stdout.strip() == f"epoch {former} is over, {fresh} begins"


def test_each_rotation_gives_an_epoch_that_never_was(db: DbVerbs, database_url: str) -> None:
    """For scripts: no question, and JSON."""
    epochs = [db.do(read_head).epoch]
    for _ in range(2):
        said = json.loads(feed(database_url, "rotate-epoch", "--yes", "--json").stdout)
        assert said["former"] == epochs[-1]
        epochs.append(said["epoch"])
    assert len(set(epochs)) == 3
    assert db.do(read_head).epoch == epochs[-1]


def test_a_database_that_is_away_is_said_in_a_sentence() -> None:
    """No traceback, no password."""
    done = feed(f"postgresql://u:secret@127.0.0.1:{own_port()}/none", "status")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_a_live_stream_begins_anew_with_the_new_epoch(web: WebInThread, db: DbVerbs, database_url: str) -> None:
    """Without a new request: it is told why, gets a snapshot, and goes on in the new epoch."""
    web.client.submit(session_id="before")
    number_all(db)
    with following(web.client.url) as stream:
        stream.until("init")
        assert feed(database_url, "rotate-epoch", "--yes").returncode == 0
        messages = stream.until("reset")
        assert messages[-1].data == '{"reason":"epoch"}'
        (init,) = [message for message in stream.until("init") if message.event == "init"]
        epoch = db.do(read_head).epoch
        assert init.id is not None
        assert init.id.startswith(f"v1.{epoch}.")
        assert [one["session_id"] for one in json.loads(init.data)["sessions"]] == ["before"]
        web.client.submit(session_id="after")
        live = [message for message in stream.take(1) if '"after"' in message.data]
        assert [message.event for message in live] == ["session_created"]
        assert str(live[0].id).startswith(f"v1.{epoch}.")


def test_a_cursor_of_the_former_epoch_is_refused(web: WebInThread, db: DbVerbs, database_url: str) -> None:
    """Though its position may be there: it would name another event."""
    web.client.submit()
    number_all(db)
    cursor = db.do(read_head).cursor
    feed(database_url, "rotate-epoch", "--yes")
    with following(web.client.url, {"last_event_id": cursor}) as stream:
        assert stream.until("reset")[-1].data == '{"reason":"epoch"}'
        stream.until("init")
