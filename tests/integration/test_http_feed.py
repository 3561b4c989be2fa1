"""Feed over the wire: start, content, visibility and end of a stream (PROTOCOL, Feed)."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from models.core.callers import Role
from models.feed.sequence import read_head, sequence_feed
from runtime.settings import Settings
from testkit.feed_follower import Connection, Message, ledger, open_stream, seen_events
from testkit.waiting import eventually
from tests.support.callers import bearer, client_with, make_key
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient, WebInThread, served, until_ready

QUICK = {"feed_poll_seconds": 0.05, "sse_heartbeat_seconds": 0.2}


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings.model_copy(update=QUICK)) as web:
        until_ready(web)
        yield web


def say(client: WebClient, db: DbVerbs, session_id: str, *contents: str, **fields: Any) -> None:
    """Write events to a session and number them."""
    for content in contents:
        event = {"event_type": "message", "session_id": session_id, "timestamp": "t", "content": content} | fields
        assert client.post(f"/sessions/{session_id}/events", event).status_code == 201
    db.do(sequence_feed)


def contents(messages: list[Message]) -> list[str]:
    return [json.loads(message.data)["data"]["content"] for message in messages if message.event == "event"]


def first_event(stream: Connection) -> Message:
    (message,) = stream.take(1)
    return message


def cursor_at(db: DbVerbs, position: int) -> str:
    return f"v1.{db.do(read_head).epoch}.{position}"


@pytest.fixture
def history(client: WebClient, db: DbVerbs) -> str:
    """Return a session with five events, all numbered; position 3 and those behind it are messages a to e."""
    session_id = str(client.submit()["session_id"])
    say(client, db, session_id, *"abcde")
    assert db.do(read_head).position == 7
    return session_id


# Start of a stream.


def test_stream_has_headers_for_browsers_and_proxies(client: WebClient) -> None:
    """Answer 200 with its type, without buffering and caching."""
    with open_stream(client.url) as stream:
        headers = stream.response.headers
        assert stream.response.status == 200
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-cache"
        assert headers["x-accel-buffering"] == "no"
        first, priming = next(stream.messages()), next(stream.messages())
    assert first.retry is not None
    assert 1000 <= first.retry <= 3000
    assert priming.id is not None
    assert (priming.event, priming.data) == ("", "")


def test_stream_without_cursor_starts_with_snapshot(client: WebClient, db: DbVerbs, history: str) -> None:
    """Send all sessions in one event, newest first, with the position from which the feed goes on."""
    other = client.submit(session_id="other")["session_id"]
    db.do(sequence_feed)
    with open_stream(client.url) as stream:
        init = stream.until("init")[-1]
        say(client, db, history, "f")
        after = first_event(stream)
    shown = json.loads(init.data)
    assert set(shown) == {"sessions"}
    assert [session["session_id"] for session in shown["sessions"]] == [other, history]
    assert shown["sessions"][1] == client.get(f"/sessions/{history}").json()["session"]
    assert init.id == cursor_at(db, 9)
    assert (after.position, contents([after])) == (10, ["f"])


def test_stream_without_snapshot_starts_now(client: WebClient, db: DbVerbs, history: str) -> None:
    """Send its position first, so that a client cut off before any event has missed nothing."""
    with open_stream(client.url, {"include_init": "false"}) as stream:
        _, priming = islice(stream.messages(), 2)
        say(client, db, history, "f")
        assert contents([first_event(stream)]) == ["f"]
    assert priming.id == cursor_at(db, 7)
    with open_stream(client.url, Last_Event_ID=str(priming.id)) as stream:
        assert contents([first_event(stream)]) == ["f"]


@pytest.mark.parametrize("given", ["header", "query", "header wins"])
@pytest.mark.parametrize(("position", "expected"), [(0, None), (2, "abcde"), (4, "cde"), (6, "e"), (7, "")])
def test_cursor_resumes_exactly_behind_it(
    client: WebClient, db: DbVerbs, history: str, given: str, position: int, expected: str | None
) -> None:
    """Send it in the header or the query; the header wins, since the query is of a browser's first request."""
    cursor = cursor_at(db, position)
    query = {"query": {"last_event_id": cursor}, "header wins": {"last_event_id": cursor_at(db, 1)}}.get(given, {})
    headers = {} if given == "query" else {"Last_Event_ID": cursor}
    with open_stream(client.url, query, **headers) as stream:
        say(client, db, history, "f")
        got = stream.take(len(ledger(db.engine, position)))
    assert seen_events(got) == ledger(db.engine, position)
    if expected is not None:
        assert "".join(contents(got)) == expected + "f"


@pytest.mark.parametrize("query", [{}, {"include_init": "false"}])
@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("v1.{epoch}.2", "expired"),
        ("v1.{epoch}.0", "expired"),
        ("v1.{epoch}.8", "ahead"),
        ("v1.000000000000.7", "epoch"),
        ("junk", "malformed"),
        ("v1.{epoch}.-1", "malformed"),
        ("v1.{epoch}.99999999999999999999", "malformed"),
    ],
)
def test_unusable_cursor_is_answered_by_reset_and_snapshot(
    client: WebClient, db: DbVerbs, history: str, cursor: str, reason: str, query: dict[str, str]
) -> None:
    """Send both also without `include_init`: history is never skipped silently."""
    db.rows("DELETE FROM events WHERE feed_pos <= 3")
    db.rows("UPDATE feed_head SET floor = 3")
    given = cursor.format(epoch=db.do(read_head).epoch)
    with open_stream(client.url, query, Last_Event_ID=given) as stream:
        *_, reset, init = stream.until("init")
        say(client, db, history, "f")
        assert contents([first_event(stream)]) == ["f"]
    assert (reset.event, json.loads(reset.data)) == ("reset", {"reason": reason})
    assert (reset.position, init.position) == (7, 7)
    assert init.id == cursor_at(db, 7)


def test_oldest_position_can_be_resumed(client: WebClient, db: DbVerbs, history: str) -> None:
    db.rows("DELETE FROM events WHERE feed_pos <= 3")
    db.rows("UPDATE feed_head SET floor = 3")
    with open_stream(client.url, Last_Event_ID=cursor_at(db, 3)) as stream:
        assert contents(stream.take(4)) == list("bcde")


@pytest.mark.parametrize("headers", [{}, {"Last_Event_ID": ""}])
def test_empty_cursor_starts_with_snapshot(client: WebClient, history: str, headers: dict[str, str]) -> None:
    with open_stream(client.url, {"last_event_id": ""}, **headers) as stream:
        assert stream.until("init")[-1].position == 7


def test_client_cut_off_before_its_snapshot_gets_another(client: WebClient, db: DbVerbs, history: str) -> None:
    """Mark the owed snapshot in the cursor of a reset and of the announcement.

    Otherwise the client would resume without one.
    """
    with open_stream(client.url) as stream:
        announced = next(message for message in stream.messages() if message.id)
    with open_stream(client.url, Last_Event_ID="junk") as stream:
        reset = stream.until("reset")[-1]
    for message in (announced, reset):
        say(client, db, history, "x")
        with open_stream(client.url, {"include_init": "false"}, Last_Event_ID=str(message.id)) as stream:
            events = [item.event for item in stream.until("init") if item.event]
        assert events == ["init"]


# Content.


def test_stream_is_history_byte_for_byte(client: WebClient, db: DbVerbs) -> None:
    """Include NUL, lone surrogates, line separators and long texts; a list of the session holds the same."""
    runner = client.register()
    with open_stream(client.url, {"include_init": "false"}) as stream:
        next(message for message in stream.messages() if message.id)
        run = client.started(runner)
        awkward = ["\x00", "\ud800", "\u2028\x85\x0b", "line\nline\r", "x" * 200_000, '"}\n\ndata: {', "ü€😀"]
        say(client, db, run["session_id"], *awkward)
        client.report(run, runner, "failed", error="broken\x00")
        db.do(sequence_feed)
        expected = ledger(db.engine)
        got = stream.take(len(expected))
    assert seen_events(got) == expected
    listed = client.get(f"/sessions/{run['session_id']}/events").json()["events"]
    fields = [{k: v for k, v in event.items() if k not in {"id", "feed_cursor"}} for event in listed]
    assert [json.loads(message.data)["data"] for message in got if message.event == "event"] == fields
    assert [event["feed_cursor"] for event in listed] == [message.id for message in got if message.event == "event"]


def test_every_list_has_cursor_to_follow_from(client: WebClient, db: DbVerbs, history: str) -> None:
    """Read a list and follow from there: nothing is missed."""
    paths = ("/runs", "/sessions", f"/sessions/{history}/events")
    cursors = [client.get(path).headers["feed-cursor"] for path in paths]
    say(client, db, history, "f")
    for cursor in cursors:
        with open_stream(client.url, {"last_event_id": cursor}) as stream:
            assert contents([first_event(stream)]) == ["f"]


def test_run_updates_are_sent_only_on_request(client: WebClient, db: DbVerbs) -> None:
    """Send `run_updated` with the run's id, status, runner, attempt and error."""
    runner = client.register()
    with open_stream(client.url, {"types": "run_updated", "include_init": "false"}) as stream:
        next(message for message in stream.messages() if message.id)
        run = client.finished(runner)
        db.do(sequence_feed)
        got = stream.take(4)
    shown = [json.loads(message.data)["run"] for message in got]
    assert [update["status"] for update in shown] == ["pending", "claimed", "running", "completed"]
    assert shown[-1] == {
        "run_id": run["run_id"], "session_id": run["session_id"], "status": "completed", "runner_id": runner,
        "attempt": 1, "error": None,
    }  # fmt: skip


def test_filters_leave_out_everything_else(client: WebClient, db: DbVerbs) -> None:
    """Filter live events and history alike."""
    runner = client.register()
    runs = [client.finished(runner) for _ in range(2)]
    say(client, db, runs[0]["session_id"], "one")
    say(client, db, runs[1]["session_id"], "two")
    run = runs[0]
    expected = {
        f"session_id={run['session_id']}": f"session_id = '{run['session_id']}' AND kind <> 'run_updated'",
        f"run_id={run['run_id']}": f"run_id = '{run['run_id']}' AND kind <> 'run_updated'",
        f"run_id={run['run_id']}&types=run_updated,event": f"run_id = '{run['run_id']}' AND kind IN ('run_updated', 'event')",
        "types=session_created": "kind = 'session_created'",
        f"types=event&session_id={run['session_id']}": f"session_id = '{run['session_id']}' AND kind = 'event'",
        "created_by=whoever": "kind <> 'run_updated'",
    }
    for query, where in expected.items():
        wanted = ledger(db.engine, where=where)
        asked = dict(pair.split("=") for pair in query.split("&"))
        with open_stream(client.url, asked | {"last_event_id": cursor_at(db, 0)}) as stream:
            assert seen_events(stream.take(len(wanted))) == wanted, query


def test_cursor_of_sparse_stream_moves_on(client: WebClient, db: DbVerbs, history: str) -> None:
    """Send a message of only an id now and then: a returning client need not start where the last event was."""
    with open_stream(client.url, {"session_id": "none", "include_init": "false"}) as stream:
        messages = stream.messages()
        next(message for message in messages if message.id)
        say(client, db, history, "f")
        moved = next(messages)
    assert (moved.id, moved.event) == (cursor_at(db, 8), "")


def test_silent_stream_sends_heartbeats(client: WebClient) -> None:
    """Send comments, which no client shows."""
    with open_stream(client.url) as stream:
        stream.until("init")

        def heard() -> bool:
            list(stream.parser.feed(stream.response.read1(100)))
            return stream.parser.comments >= 3

        eventually(heard, what="heartbeats")


# Visibility.


@pytest.fixture
def guarded(settings: Settings) -> Iterator[WebInThread]:
    """Start a web process with authentication."""
    with served(settings.model_copy(update=QUICK | {"auth": True})) as web:
        until_ready(web)
        yield web


def test_user_sees_only_its_own_sessions(guarded: WebInThread, db: DbVerbs) -> None:
    """Check snapshot, history and live events, whatever else it requests."""
    token = make_key(db, Role.USER, "ann")
    shown = bearer(token)
    with client_with(guarded.client.url, token) as ann, client_with(ann.url, make_key(db, Role.USER, "bob")) as bob:
        own = ann.submit(session_id="anns")
        bob.submit(session_id="bobs")
        db.do(sequence_feed)
        with open_stream(ann.url, None, **shown) as stream:
            init = json.loads(stream.until("init")[-1].data)
        assert [session["session_id"] for session in init["sessions"]] == [own["session_id"]]
        for query in ({}, {"created_by": "ann"}, {"session_id": "anns"}):
            with open_stream(ann.url, query | {"last_event_id": cursor_at(db, 0)}, **shown) as stream:
                assert seen_events(stream.take(1)) == ledger(db.engine, where="owner = 'ann' AND kind <> 'run_updated'")
                say(ann, db, "anns", "for me")
                assert contents([first_event(stream)]) == ["for me"]
            db.rows("DELETE FROM events WHERE kind = 'event'")
        for query in ({"created_by": "bob"}, {"session_id": "bobs"}):
            with open_stream(ann.url, query | {"last_event_id": cursor_at(db, 0)}, **shown) as stream:
                messages = stream.messages()
                assert [next(messages).event for _ in range(3)] == ["", "", ""]


@pytest.mark.parametrize("owner", ["root", None])
def test_admin_may_filter_by_owner(guarded: WebInThread, db: DbVerbs, owner: str | None) -> None:
    """Filter with `created_by`, also for an admin without an owner."""
    root = make_key(db, Role.ADMIN, owner)
    with (
        client_with(guarded.client.url, make_key(db, Role.USER, "ann")) as ann,
        client_with(ann.url, make_key(db, Role.USER, "bob")) as bob,
    ):
        ann.submit(session_id="anns")
        bob.submit(session_id="bobs")
        db.do(sequence_feed)
        with open_stream(ann.url, {"created_by": "bob"}, **bearer(root)) as stream:
            init = json.loads(stream.until("init")[-1].data)
            say(ann, db, "anns", "not for bob")
            say(bob, db, "bobs", "for bob")
            assert contents([first_event(stream)]) == ["for bob"]
    assert [session["session_id"] for session in init["sessions"]] == ["bobs"]


# Refusals and ends.


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"types": "run_updated,nonsense"}, "session_created, session_updated"),
        ({"types": ","}, "session_created, session_updated"),
        ({"include_init": "perhaps"}, "true or false"),
    ],
)
def test_meaningless_query_is_422(client: WebClient, query: dict[str, str], said: str) -> None:
    """List the allowed values; a misspelt filter must not look like a quiet feed."""
    answer = client.get("/sse/sessions", **query)
    assert answer.status_code == 422
    assert said in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize("name", ["session_id", "run_id", "created_by", "last_event_id"])
@pytest.mark.parametrize(
    "value", ["\x00", "x" * 5000, "'; DROP TABLE events", "\ud800".encode("utf-8", "surrogatepass")]
)
def test_stream_answers_any_filter_content(client: WebClient, name: str, value: Any) -> None:
    """Find nothing, or reset an unknown cursor."""
    with open_stream(client.url, {name: value}) as stream:
        assert stream.response.status == 200
        stream.until("init")


def test_stream_ends_cleanly_at_its_time(settings: Settings) -> None:
    """Send a whole `retry:` message, then end the answer; a returning client has missed nothing."""
    with served(settings.model_copy(update=QUICK | {"stream_lifetime_seconds": 1})) as web:
        until_ready(web)
        with open_stream(web.client.url) as stream:
            *_, last = stream.messages()
            assert stream.response.isclosed()
    assert last.retry is not None
    assert last.event == ""


def test_streams_end_during_drain_and_new_ones_are_answered(web: WebInThread, client: WebClient) -> None:
    """Answer 200, since a browser gives up for good on anything else."""
    with open_stream(client.url) as stream:
        stream.until("init")
        web.drain(1.5)
        with open_stream(client.url) as late:
            assert late.response.status == 200
            assert (late.response.headers.get_all("connection") or [""])[-1] == "close"
            assert [*late.messages()][-1].retry is not None
        assert [*stream.messages()][-1].retry is not None
