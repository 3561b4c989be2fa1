"""Sessions over the wire: reading, binding, changing, stopping, deleting (PROTOCOL, Sessions)."""

from typing import Any

import pytest

from runtime.settings import Settings
from tests.support.web import WebClient, served

BIND = {"executor_session_id": "a1", "hostname": "host", "executor_profile": "e"}


def test_session_shows_exactly_documented_fields(client: WebClient) -> None:
    """Include owner and depth."""
    session_id = client.submit(agent_name="a", project_dir="/p")["session_id"]
    session = client.get(f"/sessions/{session_id}").json()["session"]
    assert set(session) == {
        "session_id", "status", "created_at", "project_dir", "agent_name", "last_resumed_at", "parent_session_id",
        "executor_session_id", "executor_profile", "hostname", "owner", "depth",
    }  # fmt: skip
    assert (session["status"], session["agent_name"], session["owner"], session["depth"]) == ("pending", "a", None, 0)


@pytest.mark.parametrize("session_id", ["none", "%00", "%F0%9F%98%80", "x" * 2000])
def test_unknown_session_is_404_everywhere_but_in_status(client: WebClient, session_id: str) -> None:
    """Answer `Session not found` for all calls below a session; its status is `not_existent`."""
    path = f"/sessions/{session_id}"
    answers = [
        client.get(path),
        client.get(f"{path}/result"),
        client.get(f"{path}/affinity"),
        client.get(f"{path}/events"),
        client.post(f"{path}/bind", BIND),
        client.http.patch(f"{path}/metadata", json={"agent_name": "x"}),
        client.post(f"{path}/stop"),
        client.http.delete(path),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert all(answer.json() == {"detail": "Session not found"} for answer in answers)
    assert client.get(f"{path}/status").json() == {"status": "not_existent"}


def test_sessions_are_listed_newest_first_with_filters_and_pages(client: WebClient) -> None:
    """Return all without a limit; narrow by `status`, `parent_session_id`, `limit` and `cursor`."""
    parent = client.submit()["session_id"]
    children = [client.submit(parent_session_id=parent)["session_id"] for _ in range(3)]
    listed = client.get("/sessions", cursor_in_body=1).json()
    assert [session["session_id"] for session in listed["sessions"]] == [*children[::-1], parent]
    assert listed["feed_cursor"].startswith("v1.")
    of_parent = client.get("/sessions", parent_session_id=parent).json()["sessions"]
    assert [session["session_id"] for session in of_parent] == children[::-1]
    assert client.get("/sessions", status="finished").json()["sessions"] == []
    first = client.get("/sessions", limit=2).json()
    second = client.get("/sessions", limit=2, cursor=first["next_cursor"]).json()
    assert [session["session_id"] for session in first["sessions"] + second["sessions"]] == [*children[::-1], parent]
    assert client.get("/sessions", cursor="nonsense").status_code == 400


def test_unlimited_list_ends_at_list_limit_with_cursor(settings: Settings) -> None:
    """Lower the default of 10,000 to 3."""
    with served(settings.model_copy(update={"list_limit": 3})) as web:
        for _ in range(5):
            web.client.submit()
        for noun in ("runs", "sessions"):
            listed = web.client.get(f"/{noun}").json()
            assert len(listed[noun]) == 3
            assert len(web.client.get(f"/{noun}", cursor=listed["next_cursor"]).json()[noun]) == 2


def test_result_is_that_of_newest_result_event(client: WebClient) -> None:
    """Answer 400 while at work, 404 if it wrote none, then text and data."""
    runner = client.register()
    run = client.started(runner)
    path = f"/sessions/{run['session_id']}"
    answer = client.get(f"{path}/result")
    assert (answer.status_code, answer.json()["detail"]) == (400, "Session not finished or idle")
    for text, data in (("first", None), ("second", {"n": [1, 2.5, None]})):
        event = {
            "event_type": "result",
            "session_id": run["session_id"],
            "timestamp": "t",
            "result_text": text,
            "result_data": data,
        }
        assert client.post(f"{path}/events", event).status_code == 201
    client.report(run, runner, "completed")
    assert client.get(f"{path}/result").json() == {"result_text": "second", "result_data": {"n": [1, 2.5, None]}}
    empty = client.finished(runner)
    answer = client.get(f"/sessions/{empty['session_id']}/result")
    assert (answer.status_code, answer.json()["detail"]) == (404, "No result found")


def test_bound_session_shows_its_affinity(client: WebClient) -> None:
    """Answer the bind with the session; its affinity is null before."""
    runner = client.register("host")
    run = client.started(runner)
    path = f"/sessions/{run['session_id']}"
    assert client.get(f"{path}/affinity").json()["affinity"]["hostname"] is None
    answer = client.post(f"{path}/bind", BIND | {"project_dir": "/q"})
    assert answer.status_code == 200
    assert answer.json()["ok"] is True
    assert answer.json()["session"]["executor_session_id"] == "a1"
    affinity = client.get(f"{path}/affinity").json()["affinity"]
    assert affinity == BIND | {"session_id": run["session_id"], "project_dir": "/q"}


def test_bind_from_another_place_is_stale_claim(client: WebClient) -> None:
    """Answer 409 when the run is with another host or profile."""
    run = client.started(client.register("host"))
    answer = client.post(f"/sessions/{run['session_id']}/bind", BIND | {"hostname": "other"})
    assert answer.status_code == 409
    assert answer.json()["detail"]["error"] == "stale_claim"


@pytest.mark.parametrize(
    "body", [None, [], {}, {"hostname": 5}, BIND | {"hostname": "x" * 1025}, BIND | {"hostname": "x\x00"}]
)
def test_malformed_bind_is_422(client: WebClient, body: Any) -> None:
    """Refuse impossible names."""
    session_id = client.submit()["session_id"]
    assert client.post(f"/sessions/{session_id}/bind", body).status_code == 422


def test_metadata_patch_changes_given_fields_only(client: WebClient) -> None:
    """Leave null fields unchanged; ignore unknown ones."""
    session_id = client.submit(agent_name="a", project_dir="/p")["session_id"]
    path = f"/sessions/{session_id}/metadata"
    body = {"agent_name": "b", "project_dir": None, "last_resumed_at": "2026-01-01T10:00:00+01:00", "unknown": 1}
    answer = client.http.patch(path, json=body)
    assert answer.status_code == 200
    session = answer.json()["session"]
    assert (session["agent_name"], session["project_dir"]) == ("b", "/p")
    assert session["last_resumed_at"] == "2026-01-01T09:00:00+00:00"
    assert client.http.patch(path, json={}).status_code == 200
    assert client.http.patch(path, json={"last_resumed_at": "yesterday"}).status_code == 422
    assert client.http.patch(path, json={"agent_name": 5}).status_code == 422


def test_stopping_session_tells_its_runner(client: WebClient) -> None:
    """Set the running run to `stopping` and answer its parked poll at once; the end report makes it `stopped`."""
    runner = client.register()
    run = client.started(runner)
    waiting = client.meanwhile(client.poll, runner, 30)
    answer = client.post(f"/sessions/{run['session_id']}/stop").json()
    assert answer == {"ok": True, "session_id": run["session_id"], "run_id": run["run_id"], "status": "stopping"}
    assert waiting.result(30).json() == {"stop_sessions": [run["session_id"]]}
    assert client.post(f"/sessions/{run['session_id']}/stop").json()["status"] == "stopping"
    assert client.report(run, runner, "stopped", signal="SIGTERM").status_code == 200
    again = client.post(f"/sessions/{run['session_id']}/stop").json()
    assert again["status"] == "stopped"
    assert "already" in again["message"]


def test_session_is_deleted_with_its_runs_and_events(client: WebClient) -> None:
    """Return the counts; require a stop of running ones first; children lose their parent."""
    runner = client.register()
    run = client.started(runner)
    path = f"/sessions/{run['session_id']}"
    child = client.submit(parent_session_id=run["session_id"])["session_id"]
    answer = client.http.delete(path)
    assert (answer.status_code, answer.json()) == (409, {"detail": "Stop session first"})
    client.report(run, runner, "completed")
    deleted = client.http.delete(path).json()
    assert (deleted["ok"], deleted["session_id"]) == (True, run["session_id"])
    assert deleted["deleted"]["session"] is True
    assert deleted["deleted"]["runs_count"] == 1
    assert deleted["deleted"]["events_count"] >= 2
    assert client.get(path).status_code == 404
    assert client.get(f"/runs/{run['run_id']}").status_code == 404
    assert client.get(f"/sessions/{child}").json()["session"]["parent_session_id"] is None
    assert client.http.delete(path).status_code == 404
