"""Events over the wire: never refused for their content, listed in feed order (PROTOCOL, Sessions)."""

import json
from typing import Any

import pytest

from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.web import WebClient, served

FIELDS = (
    "event_type", "session_id", "timestamp", "tool_name", "tool_input", "tool_output", "error", "exit_code", "reason",
    "role", "content", "result_text", "result_data",
)  # fmt: skip


@pytest.fixture
def session_id(client: WebClient) -> str:
    return str(client.submit()["session_id"])


def event(session_id: str, **fields: Any) -> dict[str, Any]:
    return {"event_type": "message", "session_id": session_id, "timestamp": "2026-01-01T00:00:00Z"} | fields


def events(client: WebClient, session_id: str, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/sessions/{session_id}/events", **query)
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = json.loads(answer.content)["events"]
    return listed


def test_event_is_stored_and_listed_with_all_fields(client: WebClient, session_id: str) -> None:
    """Answer 201 `{"ok": true}`; list every field, null when unset, timestamps as sent."""
    answer = client.post(f"/sessions/{session_id}/events", event(session_id, content=[{"type": "text"}], more=1))
    assert (answer.status_code, answer.json()) == (201, {"ok": True})
    (listed,) = events(client, session_id)
    assert set(listed) == {*FIELDS, "id", "feed_cursor", "run_id"}
    assert isinstance(listed["id"], int)
    assert listed["timestamp"] == "2026-01-01T00:00:00Z"
    assert listed["content"] == [{"type": "text"}]
    assert listed["tool_name"] is None


def test_event_of_another_session_is_refused(client: WebClient, session_id: str) -> None:
    """Answer 400 with the documented text; an unknown session is 404."""
    answer = client.post(f"/sessions/{session_id}/events", event("other"))
    assert (answer.status_code, answer.json()) == (400, {"detail": "Event session_id must match URL session_id"})
    assert client.post("/sessions/none/events", event("none")).status_code == 404
    assert client.post("/sessions/none/events", [event("none")]).status_code == 404


@pytest.mark.parametrize("missing", ["event_type", "session_id", "timestamp"])
def test_missing_event_field_is_422_and_named(client: WebClient, session_id: str, missing: str) -> None:
    body = event(session_id)
    del body[missing]
    answer = client.post(f"/sessions/{session_id}/events", body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", missing]


@pytest.mark.parametrize(
    "fields", [{"event_type": ""}, {"event_type": "x" * 65}, {"event_type": 5}, {"event_key": "k" * 65}]
)
def test_event_names_are_bounded(client: WebClient, session_id: str, fields: dict[str, Any]) -> None:
    """Allow types and keys of at most 64 characters."""
    assert client.post(f"/sessions/{session_id}/events", event(session_id, **fields)).status_code == 422


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b'"\\u0000"', "\x00"),
        (b'"\\ud800 lone"', "\ud800 lone"),
        (b"NaN", None),
        (b"[1e999, -Infinity, 1]", [None, None, 1]),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b'"bad \xff utf-8"', "bad \ufffd utf-8"),
        (b'"\xed\xa0\x80"', "\ufffd\ufffd\ufffd"),
        (b'{"": {"\\u0000": 1}}', {"": {"\x00": 1}}),
        (b'"tab\tinside"', "tab\tinside"),
    ],
)
def test_no_event_content_is_refused(client: WebClient, session_id: str, written: bytes, read: Any) -> None:
    """Keep NUL, lone surrogates, NaN, infinities, huge numbers and bad UTF-8, as far as JSON can."""
    body = json.dumps(event(session_id)).encode()[:-1] + b', "content": ' + written + b"}"
    assert client.raw(f"/sessions/{session_id}/events", body).status_code == 201
    assert events(client, session_id)[0]["content"] == read


def test_nesting_beyond_64_is_stored_as_text(client: WebClient, session_id: str) -> None:
    """Break nothing, however deep."""
    for depth in (60, 70, 5000):
        body = json.dumps(event(session_id)).encode()[:-1] + b', "tool_input": ' + b"[" * depth + b"]" * depth + b"}"
        assert client.raw(f"/sessions/{session_id}/events", body).status_code == 201
    found = [json.dumps(item["tool_input"]) for item in events(client, session_id)]
    assert found[0] == "[" * 60 + "]" * 60
    assert '"[[[[' in found[1]
    assert '"[[[[' in found[2]


def test_oversized_field_is_left_out_and_named(settings: Settings) -> None:
    """Lower the default of 16 MiB to 100 kB. Beyond the bound of all bodies the answer is 413."""
    small = settings.model_copy(update={"event_bytes": 100_000, "body_bytes": 1_000_000})
    with served(small) as web:
        session_id = web.client.submit()["session_id"]
        path = f"/sessions/{session_id}/events"
        big = event(session_id, tool_output="x" * 200_000, content="kept")
        assert web.client.post(path, big).status_code == 201
        (listed,) = events(web.client, session_id)
        assert (listed["tool_output"], listed["content"], listed["truncated"]) == (None, "kept", ["tool_output"])
        assert web.client.post(path, event(session_id, content="x" * 1_000_000)).status_code == 413


def test_key_is_stored_once_in_its_session(client: WebClient, session_id: str) -> None:
    """Repeat it in one request, in one list and across them."""
    path = f"/sessions/{session_id}/events"
    keyed = event(session_id, event_key="k", content="first")
    for _ in range(2):
        assert client.post(path, keyed).status_code == 201
    answer = client.post(path, [keyed, keyed, event(session_id, event_key="k2")])
    assert [result["code"] for result in answer.json()["results"]] == [201, 201, 201]
    assert [item["content"] for item in events(client, session_id)] == ["first", None]
    other = client.submit()["session_id"]
    assert client.post(f"/sessions/{other}/events", event(other, event_key="k")).status_code == 201
    assert len(events(client, other)) == 1


def test_list_of_events_is_stored_in_order_and_bad_ones_fail_alone(client: WebClient, session_id: str) -> None:
    """Send at most 1,000, and get one result each."""
    path = f"/sessions/{session_id}/events"
    body = [event(session_id, content=n) for n in range(100)]
    body[50] = event("other")
    body[51] = {"event_type": "x"}
    answer = client.post(path, body)
    assert answer.status_code == 201
    codes = [result["code"] for result in answer.json()["results"]]
    assert (codes[50], codes[51], codes.count(201)) == (400, 422, 98)
    assert [item["content"] for item in events(client, session_id)] == [n for n in range(100) if n not in {50, 51}]
    assert client.post(path, [event(session_id)] * 1001).status_code == 422
    assert client.post(path, []).status_code == 201


def test_stale_token_refuses_its_own_event(client: WebClient) -> None:
    """Answer 409 for that item; accept the current token."""
    runner = client.register()
    run = client.started(runner)
    path = f"/sessions/{run['session_id']}/events"
    good = event(run["session_id"], claim_token=run["claim_token"])
    stale = event(run["session_id"], claim_token="stale")
    assert client.post(path, good).status_code == 201
    answer = client.post(path, stale)
    assert answer.status_code == 409
    assert answer.json()["detail"]["error"] == "stale_claim"
    assert [result["code"] for result in client.post(path, [good, stale]).json()["results"]] == [201, 409]
    shown = events(client, run["session_id"])[-1]
    assert "claim_token" not in shown
    assert "event_key" not in shown


def test_last_listed_event_has_cursor_to_follow_from(client: WebClient, session_id: str) -> None:
    """List right after storing, before any worker has numbered it: later events follow that cursor."""
    for number in range(5):
        client.post(f"/sessions/{session_id}/events", event(session_id, content=number))
        listed = events(client, session_id)
        assert all(item["feed_cursor"] for item in listed)
        assert [item["content"] for item in events(client, session_id, after=listed[-1]["feed_cursor"])] == []


def test_events_are_listed_page_by_page_in_feed_order(client: WebClient, session_id: str) -> None:
    """Use `limit` and `after`; each event has its `feed_cursor`."""
    path = f"/sessions/{session_id}/events"
    client.post(path, [event(session_id, content=n) for n in range(10)])
    eventually(lambda: all(item["feed_cursor"] for item in events(client, session_id)), what="numbering")
    seen: list[int] = []
    after = None
    while True:
        page = client.get(path, limit=3, **({"after": after} if after else {})).json()
        seen += [item["content"] for item in page["events"]]
        after = page.get("next_cursor")
        if after is None:
            break
    assert seen == list(range(10))
    middle = events(client, session_id)[4]["feed_cursor"]
    assert [item["content"] for item in events(client, session_id, after=middle)] == [5, 6, 7, 8, 9]
    assert client.get(path, after="nonsense").status_code == 400


def test_unlimited_list_of_events_is_one_streamed_answer(client: WebClient, session_id: str) -> None:
    path = f"/sessions/{session_id}/events"
    for first in (0, 600):
        client.post(path, [event(session_id, content=n) for n in range(first, first + 600)])
    assert [item["content"] for item in events(client, session_id)] == list(range(1200))


@pytest.mark.parametrize("body", [b"nonsense", b"", b"5", b'"text"', b"null"])
def test_only_non_objects_are_refused_as_events(client: WebClient, session_id: str, body: bytes) -> None:
    assert client.raw(f"/sessions/{session_id}/events", body).status_code == 422
