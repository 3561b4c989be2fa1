"""`coordinator feed`: its output, and the new epoch that every client notices."""

import json
from collections.abc import Iterator

import pytest

from models.feed.sequence import read_head
from models.state.events_outbox import record_events
from runtime.settings import Settings
from testkit.feed_follower import open_stream
from testkit.ports import own_port
from tests.support.command import Ended, coordinator
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all, row
from tests.support.web import WebInThread, served, until_ready


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update={"feed_poll_seconds": 0.05})) as web:
        until_ready(web)
        yield web


def feed(url: str, *arguments: str, answer: str = "") -> Ended:
    return coordinator("feed", *arguments, stdin=answer, DATABASE_URL=url)


def test_status_shows_position_and_epoch_of_feed(db: DbVerbs, database_url: str) -> None:
    """Print a line each for people and JSON for programs, without Redis."""
    db.do(record_events, [row(number) for number in range(3)])
    number_all(db)
    db.do(record_events, [row(3)])
    shown = json.loads(feed(database_url, "status", "--json").stdout)
    head = db.do(read_head)
    assert (shown["epoch"], shown["head"], shown["floor"], shown["unnumbered"]) == (head.epoch, 3, 0, 1)
    assert shown["oldest_event_at"] is not None
    assert shown["events_bytes"] > 0
    lines = dict(line.split(maxsplit=1) for line in feed(database_url, "status").stdout.splitlines()[:3])
    assert lines == {"epoch": head.epoch, "head": "3", "floor": "0"}


def test_empty_feed_has_status(database_url: str) -> None:
    """Ask right after the migration."""
    done = feed(database_url, "status")
    assert done.returncode == 0, done.stderr
    assert "oldest event at  -" in done.stdout


def test_rotation_asks_for_confirmation(db: DbVerbs, database_url: str) -> None:
    """Change nothing after `no` or an empty answer."""
    former = db.do(read_head).epoch
    for answer in ("n\n", ""):
        assert feed(database_url, "rotate-epoch", answer=answer).returncode == 1
        assert db.do(read_head).epoch == former
    done = feed(database_url, "rotate-epoch", answer="y\n")
    fresh = db.do(read_head).epoch
    assert fresh != former
    # The question ends its line here.
    assert done.stdout.strip() == f"epoch {former} is over, {fresh} begins"


def test_each_rotation_gives_new_epoch(db: DbVerbs, database_url: str) -> None:
    """Skip the question for scripts, and print JSON."""
    epochs = [db.do(read_head).epoch]
    for _ in range(2):
        said = json.loads(feed(database_url, "rotate-epoch", "--yes", "--json").stdout)
        assert said["former"] == epochs[-1]
        epochs.append(said["epoch"])
    assert len(set(epochs)) == 3
    assert db.do(read_head).epoch == epochs[-1]


def test_absent_database_is_one_sentence() -> None:
    """Print neither traceback nor password."""
    done = feed(f"postgresql://u:secret@127.0.0.1:{own_port()}/none", "status")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_live_stream_restarts_in_new_epoch(web: WebInThread, db: DbVerbs, database_url: str) -> None:
    """Send the reason and a snapshot on the same connection, then go on in the new epoch."""
    web.client.submit(session_id="before")
    number_all(db)
    with open_stream(web.client.url) as stream:
        stream.until("init")
        assert feed(database_url, "rotate-epoch", "--yes").returncode == 0
        messages = stream.until("reset")
        assert messages[-1].data == '{"reason":"epoch"}'
        (init,) = [message for message in stream.until("init") if message.event == "init"]
        epoch = db.do(read_head).epoch
        assert init.id is not None
        assert init.id.startswith(f"v1.{epoch}.")
        assert [session["session_id"] for session in json.loads(init.data)["sessions"]] == ["before"]
        web.client.submit(session_id="after")
        live = [message for message in stream.take(1) if '"after"' in message.data]
        assert [message.event for message in live] == ["session_created"]
        assert str(live[0].id).startswith(f"v1.{epoch}.")


def test_cursor_of_former_epoch_is_refused(web: WebInThread, db: DbVerbs, database_url: str) -> None:
    """Refuse it although its position may exist: it would name another event."""
    web.client.submit()
    number_all(db)
    cursor = db.do(read_head).cursor
    feed(database_url, "rotate-epoch", "--yes")
    with open_stream(web.client.url, {"last_event_id": cursor}) as stream:
        assert stream.until("reset")[-1].data == '{"reason":"epoch"}'
        stream.until("init")
