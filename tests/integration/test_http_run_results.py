"""Runs with their events and results over HTTP: in lists, on the feed, by the client library."""

import asyncio
import json
from typing import Any

from coordinator_client.client import CoordinatorClient
from testkit.feed_follower import open_stream
from tests.support.web import WebClient


def post(client: WebClient, session_id: str, text: str, **fields: Any) -> None:
    body = {"event_type": "result", "session_id": session_id, "timestamp": "t", "result_text": text, **fields}
    assert client.post(f"/sessions/{session_id}/events", body).status_code == 201


def two_runs(client: WebClient) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two completed runs of one session, the second of which wrote no result."""
    runner = client.register()
    first = client.started(runner)
    post(client, first["session_id"], "first", result_data={"n": 1})
    client.report(first, runner, "completed")
    client.resume(first["session_id"])
    second = client.claim(runner)
    client.report(second, runner, "started")
    client.report(second, runner, "completed")
    return first, second


def test_run_answers_with_its_own_result(client: WebClient) -> None:
    """Compare the session, which still shows the former run's."""
    first, second = two_runs(client)
    shown = client.get(f"/runs/{first['run_id']}/result")
    assert (shown.status_code, shown.json()) == (200, {"result_text": "first", "result_data": {"n": 1}})
    none = client.get(f"/runs/{second['run_id']}/result")
    assert (none.status_code, none.json()) == (404, {"detail": "No result found"})
    assert client.get(f"/sessions/{first['session_id']}/result").json()["result_text"] == "first"


def test_result_of_unknown_or_unfinished_run_is_refused(client: WebClient) -> None:
    """Answer 404 and 400, as for sessions."""
    unknown = client.get("/runs/run_unknown/result")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Run not found"})
    pending = client.get(f"/runs/{client.submit()['run_id']}/result")
    assert (pending.status_code, pending.json()) == (400, {"detail": "Run not completed"})


def test_listed_events_carry_their_run_and_are_filtered_by_it(client: WebClient) -> None:
    """Show null for events of the session alone."""
    first, second = two_runs(client)
    session = f"/sessions/{first['session_id']}/events"
    post(client, first["session_id"], "nobody's")
    post(client, first["session_id"], "late", run_id=first["run_id"])
    post(client, first["session_id"], "number", run_id=5)
    shown = client.get(session).json()["events"]
    assert [(event["event_type"], event["run_id"]) for event in shown] == [
        ("run_start", first["run_id"]),
        ("result", first["run_id"]),
        ("run_completed", first["run_id"]),
        ("run_start", second["run_id"]),
        ("run_completed", second["run_id"]),
        ("result", None),
        ("result", first["run_id"]),
        ("result", None),
    ]
    own = client.get(session, run_id=second["run_id"]).json()["events"]
    assert [event["event_type"] for event in own] == ["run_start", "run_completed"]
    assert client.get(session, run_id="nul\0").json()["events"] == []
    assert client.get(f"/runs/{first['run_id']}/result").json()["result_text"] == "late"


def test_feed_events_carry_their_run(client: WebClient) -> None:
    """Add it to the earlier fields; live and later reads are the same."""
    with open_stream(client.url) as stream:
        stream.until("init")
        first, _ = two_runs(client)
        post(client, first["session_id"], "nobody's")
        live = [
            message
            for message in stream.take_until(lambda message: "nobody's" in message.data)
            if message.event == "event"
        ]
        again = json.loads(live[-1].data)["data"]
        assert list(again) == ["run_id", *[name for name in again if name != "run_id"]]
        assert (again["run_id"], again["result_text"]) == (None, "nobody's")
        cursor = str(live[0].id)
    runs = [json.loads(message.data)["data"]["run_id"] for message in live]
    assert runs[:3] == [first["run_id"]] * 3
    with open_stream(client.url, {"last_event_id": cursor}) as stream:
        later = [
            message
            for message in stream.take_until(lambda message: "nobody's" in message.data)
            if message.event == "event"
        ]
    assert [message.data for message in later] == [message.data for message in live[1:]]


def test_client_library_reads_result_and_events_of_run(client: WebClient) -> None:
    """Call `run_result`, and `session_events` with `run_id`."""
    first, second = two_runs(client)

    async def read() -> tuple[Any, list[Any]]:
        async with CoordinatorClient(client.url) as coordinator:
            result = await coordinator.run_result(first["run_id"])
            return result, await coordinator.session_events(first["session_id"], run_id=second["run_id"])

    result, events = asyncio.run(read())
    assert result == {"result_text": "first", "result_data": {"n": 1}}
    assert {event["run_id"] for event in events} == {second["run_id"]}
