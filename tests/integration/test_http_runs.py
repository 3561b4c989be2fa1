"""Runs over the wire: every field, every refusal, lists and waits (PROTOCOL, Runs)."""

from typing import Any

import pytest

from tests.support.web import PROMPT, WebClient

START: dict[str, Any] = {"type": "start_session", "parameters": PROMPT}


def test_submission_is_answered_201_with_its_ids(client: WebClient) -> None:
    """Answer `{"run_id", "session_id", "status": "pending"}`; the run can be read at once."""
    answer = client.post("/runs", START)
    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == {"run_id", "session_id", "status"}
    assert body["status"] == "pending"
    assert body["run_id"].startswith("run_")
    assert body["session_id"].startswith("ses_")
    run = client.get(f"/runs/{body['run_id']}").json()
    assert run["parameters"] == PROMPT
    assert run["demands"] == {"executor_type": "autonomous", "tags": []}


def test_run_shows_exactly_documented_fields(client: WebClient) -> None:
    """Leave scope, blueprint and token to the answer of a poll."""
    run_id = client.submit(scope={"a": 1}, labels={"k": "v"}, priority=7, max_attempts=3)["run_id"]
    run = client.get(f"/runs/{run_id}").json()
    assert set(run) == {
        "run_id", "type", "session_id", "agent_name", "parameters", "project_dir", "parent_session_id",
        "execution_mode", "demands", "status", "runner_id", "error", "created_at", "claimed_at", "started_at",
        "completed_at", "timeout_at", "attempt", "priority", "not_before", "max_attempts", "labels", "replay_of",
    }  # fmt: skip
    assert (run["labels"], run["priority"], run["max_attempts"], run["attempt"]) == ({"k": "v"}, 7, 3, 0)
    assert run["created_at"].endswith("+00:00")
    assert run["timeout_at"] is not None


def test_delayed_run_shows_when_it_may_start(client: WebClient) -> None:
    """Give `not_before` in seconds or as a timestamp; `timeout_at` is null while it is delayed."""
    by_seconds = client.get(f"/runs/{client.submit(not_before=3600)['run_id']}").json()
    assert by_seconds["not_before"] is not None
    assert by_seconds["timeout_at"] is None
    moment = "2035-01-01T12:00:00+02:00"
    refused = client.post("/runs", START | {"not_before": "2095-01-01T00:00:00Z"})
    assert refused.status_code == 422
    for naive in ("2035-01-01T12:00:00", "2035-01-01", "2035-01-01 12:00"):
        refused = client.post("/runs", START | {"not_before": naive})
        assert refused.status_code == 422, naive
        assert "offset from UTC" in refused.json()["detail"][0]["msg"]
    by_moment = client.get(f"/runs/{client.submit(not_before=moment)['run_id']}").json()
    assert by_moment["not_before"] == "2035-01-01T10:00:00+00:00"


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"type": "resume_session", "parameters": PROMPT}, 400, "session_id is required for resume_session"),
        ({"type": "resume_session", "session_id": "", "parameters": PROMPT}, 400, "session_id is required for resume_session"),
        ({"type": "resume_session", "session_id": "none", "parameters": PROMPT}, 404, "Session 'none' not found"),
        (START | {"parent_session_id": "none"}, 404, "Parent session 'none' not found"),
    ],
)  # fmt: skip
def test_invalid_submission_is_refused_with_documented_text(
    client: WebClient, body: dict[str, Any], status: int, detail: str
) -> None:
    """Compare the texts that deployed clients compare."""
    answer = client.post("/runs", body)
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})


def test_existing_session_cannot_be_started(client: WebClient) -> None:
    """Answer 409 `Session 'X' already exists`."""
    client.submit(session_id="mine.1:a-b_c")
    answer = client.post("/runs", START | {"session_id": "mine.1:a-b_c"})
    assert (answer.status_code, answer.json()) == (409, {"detail": "Session 'mine.1:a-b_c' already exists"})


@pytest.mark.parametrize("session_id", ["a b", "a/b", "ü", "x" * 129, "a\n"])
def test_new_session_id_has_at_most_128_plain_characters(client: WebClient, session_id: str) -> None:
    """Answer 422 naming the field."""
    answer = client.post("/runs", START | {"session_id": session_id})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "session_id"]


@pytest.mark.parametrize("body", [None, 5, "text", [], {}, {"type": "start_session"}, {"parameters": PROMPT}])
def test_malformed_body_is_422(client: WebClient, body: Any) -> None:
    """Give type, place and message of each fault, and nothing of what was sent."""
    answer = client.post("/runs", body)
    assert answer.status_code == 422
    for fault in answer.json()["detail"]:
        assert set(fault) == {"type", "loc", "msg"}


def test_parameters_are_prompt_and_nothing_else(client: WebClient) -> None:
    """Answer 400 with jsonschema's findings, on starts and resumes."""
    answer = client.post("/runs", START | {"parameters": {"prompt": "", "x": 1}})
    assert answer.status_code == 400
    detail = answer.json()["detail"]
    assert detail["error"] == "parameter_validation_failed"
    assert {error["path"] for error in detail["validation_errors"]} == {"$", "$.prompt"}


def test_bodies_and_parameters_have_limits(client: WebClient) -> None:
    """Answer 413 over 1 MiB of body or 256 KiB of parameters."""
    assert client.post("/runs", START | {"parameters": {"prompt": "x" * 300_000}}).status_code == 413
    answer = client.post("/runs", START | {"parameters": {"prompt": "x" * 1_100_000}})
    assert answer.status_code == 413
    assert "detail" in answer.json()
    assert client.post("/runs", START | {"parameters": {"prompt": "x" * 200_000}}).status_code == 201


def test_body_without_announced_length_is_limited_too(client: WebClient) -> None:
    """Count chunked uploads as they arrive."""
    answer = client.http.post("/runs", content=(b"x" * 65536 for _ in range(40)))
    assert answer.status_code == 413


def test_same_key_and_body_answers_200_with_first_answer(client: WebClient) -> None:
    """Compare parsed JSON: order and spaces do not matter; another body is 409."""
    first = client.post("/runs", START | {"priority": 3}, **{"Idempotency-Key": "k"})
    again = client.http.post(
        "/runs",
        content=b'{ "priority": 3, "parameters": {"prompt": "hello"}, "type": "start_session" }',
        headers={"Idempotency-Key": "k"},
    )
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert client.post("/runs", START, **{"Idempotency-Key": "k"}).status_code == 409
    assert len(client.get("/runs").json()["runs"]) == 1


def test_key_has_at_most_255_characters(client: WebClient) -> None:
    """Answer 422 naming the header."""
    assert client.post("/runs", START, **{"Idempotency-Key": "k" * 255}).status_code == 201
    answer = client.post("/runs", START, **{"Idempotency-Key": "k" * 256})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]


def test_failed_submission_keeps_no_key(client: WebClient) -> None:
    """Repeat it with the same key after the cause is gone."""
    body = {"type": "resume_session", "session_id": "later", "parameters": PROMPT}
    assert client.post("/runs", body, **{"Idempotency-Key": "k"}).status_code == 404
    client.submit(session_id="later")
    assert client.post("/runs", body, **{"Idempotency-Key": "k"}).status_code == 201


def test_bad_run_of_batch_fails_alone(client: WebClient) -> None:
    """Return results in order, each with its code."""
    runs = [
        START,
        {"type": "nothing"},
        START | {"parameters": {"prompt": 5}},
        {"type": "resume_session", "session_id": "none", "parameters": PROMPT},
        START | {"idempotency_key": "k"},
        START | {"idempotency_key": "k"},
        "text",
        START | {"idempotency_key": "k" * 256},
        START | {"parameters": {"prompt": "x" * 300_000}},
    ]
    answer = client.post("/runs/batch", {"runs": runs})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["code"] for result in results] == [201, 422, 400, 404, 201, 200, 422, 422, 413]
    assert results[4]["run_id"] == results[5]["run_id"]
    assert results[1]["detail"][0]["loc"] == ["body", "runs", 1, "type"]


def test_unstorable_numbers_fail_their_own_run_of_batch(client: WebClient) -> None:
    """Answer 422 for the item with NaN."""
    body = b'{"runs": [{"type": "start_session", "parameters": {"prompt": "a"}}, {"type": "start_session", "parameters": {"prompt": "b"}, "scope": {"n": NaN}}]}'
    results = client.raw("/runs/batch", body).json()["results"]
    assert [result["code"] for result in results] == [201, 422]
    assert results[1]["detail"][0]["loc"] == ["body", "runs", 1, "scope", "n"]


@pytest.mark.parametrize("body", [{}, {"runs": {}}, {"runs": [START] * 1001}, []])
def test_batch_is_list_of_at_most_1000(client: WebClient, body: Any) -> None:
    """Answer 422 for the whole otherwise."""
    assert client.post("/runs/batch", body).status_code == 422


def test_empty_batch_returns_nothing(client: WebClient) -> None:
    assert client.post("/runs/batch", {"runs": []}).json() == {"results": []}


def test_batch_of_1000_runs_is_accepted_and_listed_whole(client: WebClient) -> None:
    """Read it back newest first, in one streamed answer."""
    results = client.post("/runs/batch", {"runs": [START] * 1000}).json()["results"]
    assert {result["code"] for result in results} == {201}
    listed = client.get("/runs", cursor_in_body=1).json()
    assert len(listed["runs"]) == 1000
    assert listed["feed_cursor"].startswith("v1.")
    assert "next_cursor" not in listed
    assert {run["run_id"] for run in listed["runs"]} == {result["run_id"] for result in results}


@pytest.mark.parametrize("run_id", ["none", "run_%00", "%F0%9F%98%80", "x" * 2000])
def test_unknown_run_is_404(client: WebClient, run_id: str) -> None:
    """Try every call of a run."""
    for answer in (client.get(f"/runs/{run_id}"), client.post(f"/runs/{run_id}/stop")):
        assert (answer.status_code, answer.json()) == (404, {"detail": "Run not found"})


def test_lists_filter_by_every_named_property(client: WebClient) -> None:
    """Filter by status, session_id, runner_id, agent_name and labels; an unknown status finds nothing."""
    a = client.submit(agent_name="a", labels={"x": "1", "y": "2"})
    b = client.submit(agent_name="b", labels={"x": "1"}, additional_demands={"tags": ["t"]})
    runner = client.register(tags=["t"], require_matching_tags=True)
    client.claim(runner)

    def found(**query: Any) -> set[str]:
        return {run["run_id"] for run in client.get("/runs", **query).json()["runs"]}

    assert found(agent_name="a") == {a["run_id"]}
    assert found(session_id=b["session_id"]) == {b["run_id"]}
    assert found(runner_id=runner) == found(status="claimed") == {b["run_id"]}
    assert found(status="pending") == {a["run_id"]}
    assert found(status=["pending", "claimed"]) == {a["run_id"], b["run_id"]}
    assert found(label="x=1") == {a["run_id"], b["run_id"]}
    assert found(label=["x=1", "y=2"]) == {a["run_id"]}
    assert found(status="nonsense") == found(label="x=2") == found(agent_name="\x00") == set()
    assert client.get("/runs", label="nonsense").status_code == 422


def test_pages_join_without_gap_or_repeat(client: WebClient) -> None:
    """Follow `next_cursor` while there is more, newest first throughout."""
    ids = [client.submit()["run_id"] for _ in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        page = client.get("/runs", limit=3, **({"cursor": cursor} if cursor else {})).json()
        seen += [run["run_id"] for run in page["runs"]]
        assert len(page["runs"]) <= 3
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"limit": "-1"}, {"limit": "1e2"}]
)
def test_limit_is_between_1_and_1000(client: WebClient, query: dict[str, str]) -> None:
    """Answer 422 naming the parameter."""
    answer = client.get("/runs", **query)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "limit"]


@pytest.mark.parametrize("cursor", ["nonsense", "\x00", "é", "WyJ4Il0", "v1.x.1"])
def test_invalid_cursor_is_refused(client: WebClient, cursor: str) -> None:
    """Answer 4xx, never a wrong page."""
    assert client.get("/runs", cursor=cursor).status_code == 400


def test_wait_ends_when_run_does(client: WebClient) -> None:
    """Answer `?wait=` with the terminal run, long before its time is up."""
    runner = client.register()
    run = client.started(runner)
    waiting = client.meanwhile(client.get, f"/runs/{run['run_id']}", wait=30)
    client.report(run, runner, "failed", error="broken")
    ended = waiting.result(30).json()
    assert (ended["status"], ended["error"]) == ("failed", "broken")


def test_wait_ends_at_its_time(client: WebClient) -> None:
    """Show the run as it is then."""
    run_id = client.submit()["run_id"]
    assert client.get(f"/runs/{run_id}", wait=0.1).json()["status"] == "pending"


@pytest.mark.parametrize("wait", ["61", "-1", "x", "nan", "inf", "1" * 500])
def test_wait_is_at_most_60_seconds(client: WebClient, wait: str) -> None:
    """Answer 422 naming the parameter."""
    run_id = client.submit()["run_id"]
    assert client.get(f"/runs/{run_id}", wait=wait).status_code == 422


def test_stopping_pending_run_cancels_it_and_may_be_repeated(client: WebClient) -> None:
    """Stop the session with it."""
    run = client.submit()
    first = client.post(f"/runs/{run['run_id']}/stop").json()
    assert (first["ok"], first["session_id"], first["status"]) == (True, run["session_id"], "stopped")
    assert client.status(run["run_id"]) == "stopped"
    assert client.post(f"/runs/{run['run_id']}/stop").status_code == 200
