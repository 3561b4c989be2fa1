"""Runner endpoints: registration, polls, reports, heartbeats, leaving (PROTOCOL, Runners)."""

from typing import Any

import pytest

from tests.support.web import WebClient, WebInThread

OFFER: dict[str, Any] = {
    "hostname": "h",
    "project_dir": "/p",
    "executor_profile": "e",
    "executor": {"type": "autonomous", "command": "c", "model": "m"},
}


def test_registration_tells_where_and_how_to_poll(client: WebClient) -> None:
    """Derive the id from four properties; tell deployed runners 60 s, those with an instance_id 10 s."""
    answer = client.post("/runner/register", OFFER)
    assert answer.status_code == 200
    assert answer.json() == {
        "runner_id": "lnch_ec0ef7f0d958",
        "poll_endpoint": "/runner/runs",
        "poll_timeout_seconds": 30,
        "heartbeat_interval_seconds": 60,
    }
    other = client.post("/runner/register", OFFER | {"hostname": "other", "instance_id": "i"}).json()
    assert other["heartbeat_interval_seconds"] == 10


def test_online_runner_of_same_identity_is_duplicate(client: WebClient) -> None:
    """Answer 409 with the documented detail; the same instance_id is the same process reconnecting."""
    client.post("/runner/register", OFFER)
    answer = client.post("/runner/register", OFFER)
    assert answer.status_code == 409
    detail = answer.json()["detail"]
    assert set(detail) == {"error", "message", "runner_id", "hostname", "project_dir", "executor_profile"}
    assert (detail["error"], detail["hostname"]) == ("duplicate_runner", "h")
    offer = OFFER | {"hostname": "mine", "instance_id": "i"}
    assert client.post("/runner/register", offer).status_code == 200
    assert client.post("/runner/register", offer).status_code == 200
    assert client.post("/runner/register", offer | {"instance_id": "j"}).status_code == 409


def test_runner_without_executor_type_is_warned(client: WebClient) -> None:
    """Warn, since every run demands one."""
    assert "warning" in client.post("/runner/register", OFFER | {"executor": None}).json()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hostname", None),
        ("hostname", "x\x00"),
        ("hostname", "x" * 1025),
        ("executor", "text"),
        ("executor", {"type": 5}),
        ("tags", ["t" * 129]),
        ("tags", ["t"] * 65),
        ("tags", [5]),
        ("capacity", 0),
        ("capacity", 2**31),
        ("require_matching_tags", "yes"),
        ("agents", {}),
    ],
)
def test_malformed_registration_is_422(client: WebClient, field: str, value: Any) -> None:
    """Bound names, tags and numbers; the refusal names the field."""
    answer = client.post("/runner/register", OFFER | {field: value})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["body", field]


def test_runners_are_listed_with_all_fields(client: WebClient) -> None:
    """Show the executor as it was sent, capacity and runs in hand."""
    runner = client.register(tags=["b", "a"], capacity=3)
    client.started(runner)
    (listed,) = client.get("/runners").json()["runners"]
    assert set(listed) == {
        "runner_id", "registered_at", "last_heartbeat", "hostname", "project_dir", "executor_profile", "executor",
        "tags", "require_matching_tags", "status", "seconds_since_heartbeat", "capacity", "runs_in_hand", "lost",
        "draining_since", "drain_reason",
    }  # fmt: skip
    assert (listed["runner_id"], listed["status"], listed["capacity"], listed["runs_in_hand"]) == (
        runner,
        "online",
        3,
        1,
    )
    assert (listed["executor"], listed["lost"]) == ({"type": "autonomous"}, False)


def test_poll_delivers_claim_with_token_and_scope(client: WebClient) -> None:
    """Send status claimed, the attempt of this start, scope, blueprint and token."""
    client.submit(scope={"user": 1})
    run = client.claim(client.register())
    assert (run["status"], run["attempt"], run["scope"]) == ("claimed", 1, {"user": 1})
    assert run["resolved_agent_blueprint"] is None
    assert run["claim_token"]
    assert "claim_token" not in client.get(f"/runs/{run['run_id']}").json()


def test_poll_with_max_answers_with_list(client: WebClient) -> None:
    """Return up to `max` runs; without it one."""
    runner = client.register()
    for _ in range(5):
        client.submit()
    assert len(client.poll(runner, max=3).json()["runs"]) == 3
    assert set(client.poll(runner).json()) == {"run"}
    assert len(client.poll(runner, max=100).json()["runs"]) == 1
    assert client.poll(runner, max=100).status_code == 204


@pytest.mark.parametrize("query", [{"max": "-1"}, {"max": "101"}, {"max": "x"}, {"wait": "601"}, {"wait": "x"}])
def test_poll_numbers_have_bounds(client: WebClient, query: dict[str, str]) -> None:
    """Answer 422 naming the parameter."""
    answer = client.get("/runner/runs", runner_id=client.register(), **query)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", next(iter(query))]


def test_poll_must_name_registered_runner(client: WebClient) -> None:
    """Answer 422 without runner_id and 401 for an unknown one."""
    assert client.get("/runner/runs").status_code == 422
    for unknown in ("none", "\x00", "é" * 500):
        answer = client.get("/runner/runs", runner_id=unknown)
        assert (answer.status_code, answer.json()) == (401, {"detail": "Runner not registered"})


def test_reports_take_run_through_its_life(client: WebClient) -> None:
    """Repeat `started` and `completed`."""
    runner = client.register()
    client.submit()
    run = client.claim(runner)
    for outcome, status in (("started", "running"), ("completed", "completed")):
        for _ in range(2):
            answer = client.report(run, runner, outcome)
            assert (answer.status_code, answer.json()) == (200, {"ok": True})
        assert client.status(run["run_id"]) == status


def test_refused_report_changes_nothing(client: WebClient) -> None:
    """Answer 401 for an unknown runner, 404 for an unknown run, 409 for a stale token or a forbidden transition."""
    runner = client.register()
    run = client.started(runner)
    assert client.report(run, "none", "completed").status_code == 401
    assert client.report({"run_id": "none"}, runner, "completed").status_code == 404
    stale = client.report(run | {"claim_token": "stale"}, runner, "completed")
    assert (stale.status_code, stale.json()["detail"]["error"]) == (409, "stale_claim")
    other = client.register("other")
    assert client.report(run | {"claim_token": None}, other, "completed").status_code == 409
    assert client.status(run["run_id"]) == "running"
    client.report(run, runner, "completed")
    again = client.report(run, runner, "failed", error="late")
    assert (again.status_code, again.json()["detail"]["error"]) == (409, "invalid_transition")
    assert set(again.json()["detail"]) == {"error", "status", "message"}
    assert client.status(run["run_id"]) == "completed"


@pytest.mark.parametrize("error", ["x" * 200_000, "nul \x00", 5, {"a": [1]}, None, "\ud800"])
def test_report_is_never_refused_for_its_content(client: WebClient, error: Any) -> None:
    """Keep errors of any kind as text, cut to 64 KiB, with unstorable characters replaced."""
    runner = client.register()
    run = client.started(runner)
    assert client.report(run, runner, "failed", error=error, unknown=[{}]).status_code == 200
    shown = client.get(f"/runs/{run['run_id']}").json()
    assert shown["status"] == "failed"
    assert error is None or shown["error"]
    assert len((shown["error"] or "").encode()) <= 64 * 1024


def test_report_with_broken_json_values_is_applied(client: WebClient) -> None:
    """Accept NaN and bad UTF-8: a report is sent once and must not be lost."""
    runner = client.register()
    run = client.started(runner)
    body = b'{"runner_id": "%s", "error": "bad \xff", "exit_code": NaN}' % runner.encode()
    assert client.raw(f"/runner/runs/{run['run_id']}/failed", body).status_code == 200
    assert client.get(f"/runs/{run['run_id']}").json()["error"] == "bad \ufffd"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"runner_id": 5}', b"nonsense"])
def test_report_must_name_its_runner(client: WebClient, body: bytes) -> None:
    """Answer 422 otherwise, for every kind of report and for heartbeats."""
    for path in ("/runner/runs/x/started", "/runner/runs/report", "/runner/heartbeat", "/runner/sessions/x/status"):
        assert client.raw(path, body).status_code == 422


def test_reports_of_list_are_answered_in_order(client: WebClient) -> None:
    """Allow a run twice; bad items fail alone."""
    runner = client.register()
    client.submit()
    client.submit()
    runs = client.poll(runner, max=2).json()["runs"]
    reports = [
        {"run_id": run["run_id"], "claim_token": run["claim_token"], "outcome": outcome}
        for run in runs
        for outcome in ("started", "completed")
    ]
    bad = [
        {"run_id": "none", "outcome": "started"},
        {"run_id": "x", "outcome": "nonsense"},
        "text",
        {"outcome": "failed"},
    ]
    stale = {"run_id": runs[0]["run_id"], "claim_token": "stale", "outcome": "failed"}
    answer = client.post("/runner/runs/report", {"runner_id": runner, "reports": [*reports, *bad, stale]})
    assert answer.status_code == 200
    codes = [result["code"] for result in answer.json()["results"]]
    assert codes == [200, 200, 200, 200, 404, 422, 422, 422, 409]
    assert {client.status(run["run_id"]) for run in runs} == {"completed"}
    assert client.post("/runner/runs/report", {"runner_id": "none", "reports": reports}).status_code == 401
    assert client.post("/runner/runs/report", {"runner_id": runner, "reports": []}).json() == {"results": []}
    assert client.post("/runner/runs/report", {"runner_id": runner, "reports": {}}).status_code == 422


def test_completed_run_may_leave_its_process_idle(client: WebClient) -> None:
    """Report `session_status: idle`, and end it later by the runner's report about the session."""
    runner = client.register()
    run = client.started(runner)
    client.report(run, runner, "completed", session_status="idle")
    status = f"/sessions/{run['session_id']}/status"
    assert client.get(status).json() == {"status": "idle"}
    path = f"/runner/sessions/{run['session_id']}/status"
    refused = client.post(path, {"runner_id": runner, "status": "running"})
    assert (refused.status_code, refused.json()["detail"]) == (400, "Status must be 'finished', 'failed', or 'stopped'")
    other = client.register("other")
    assert client.post(path, {"runner_id": other, "status": "failed"}).status_code == 200
    assert client.get(status).json() == {"status": "idle"}
    assert client.post(path, {"runner_id": runner, "status": "finished"}).json() == {"ok": True}
    assert client.get(status).json() == {"status": "finished"}


def test_heartbeats_are_known_or_401(client: WebClient) -> None:
    """Send them with or without `holding`, with any content."""
    runner = client.register()
    for holding, unknown in (([], []), (["a", 5, None, "\x00"], ["a", "\ufffd"]), ("text", []), (None, [])):
        body = {"runner_id": runner, "holding": holding}
        assert client.post("/runner/heartbeat", body).json() == {"ok": True, "not_yours": unknown}
    answer = client.post("/runner/heartbeat", {"runner_id": runner, "holding": ["run_x"] * 10_001})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "holding"])
    assert client.post("/runner/heartbeat", {"runner_id": runner}).json() == {"ok": True, "not_yours": []}
    answer = client.post("/runner/heartbeat", {"runner_id": "none"})
    assert (answer.status_code, answer.json()) == (401, {"detail": "Runner not registered"})


def test_heartbeat_names_held_runs_that_were_taken_away(client: WebClient) -> None:
    """Name an ended one and a deleted one, but no run in hand."""
    runner = client.register()
    ids = [client.submit()["run_id"] for _ in range(3)]
    runs = {run_id: client.claim(runner) for run_id in ids}
    kept, lost, gone = (runs[run_id]["run_id"] for run_id in ids)
    for run_id in (lost, gone):
        client.post(f"/runner/runs/{run_id}/completed", {"runner_id": runner})
    client.http.delete(f"/sessions/{runs[gone]['session_id']}")
    answer = client.post("/runner/heartbeat", {"runner_id": runner, "holding": [gone, kept, lost]})
    assert answer.json() == {"ok": True, "not_yours": [gone, lost]}


def test_runner_that_leaves_releases_its_claims(client: WebClient) -> None:
    """Leave with `self=true`, at once; then its polls are 401."""
    runner = client.register()
    client.submit()
    run = client.claim(runner)
    answer = client.http.delete(f"/runners/{runner}", params={"self": "true"})
    assert (answer.json()["ok"], answer.json()["initiated_by"]) == (True, "self")
    assert client.status(run["run_id"]) == "pending"
    assert client.poll(runner).status_code == 401
    assert client.post("/runner/heartbeat", {"runner_id": runner}).status_code == 401
    assert client.http.delete("/runners/none").status_code == 404


def test_deregistered_runner_is_told_on_its_poll(web: WebInThread, client: WebClient) -> None:
    """Answer `{"deregistered": true}`, also to a parked poll; after that 401."""
    runner = client.register()
    waiting = client.meanwhile(client.poll, runner, 30)
    web.until_parked()
    answer = client.http.delete(f"/runners/{runner}")
    assert (answer.json()["ok"], answer.json()["initiated_by"]) == (True, "external")
    assert waiting.result(30).json() == {"deregistered": True}
    assert client.poll(runner).status_code == 401
