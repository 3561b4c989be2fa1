"""Properties of every request: unknown paths, foreign pages, malformed bodies, and the service's description."""

import json
import re
from typing import Any

import pytest

from app.http.bodies import MAX_DEPTH
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.web import PROMPT, WebClient, served, until_ready

START: dict[str, Any] = {"type": "start_session", "parameters": PROMPT}
STRICT = [
    ("POST", "/runs"),
    ("POST", "/runner/register"),
    ("POST", "/sessions/x/bind"),
    ("PATCH", "/sessions/x/metadata"),
]

# Last parts of the addresses of calls that say everything by their address.
WITHOUT_BODY = {"stop", "release", "rotate-secret", "test", "replay"}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b'"\\u0000"', "string_nul"),
        (b'"\\ud800"', "string_unicode"),
        (b"NaN", "number_out_of_range"),
        (b"1e400", "number_out_of_range"),
        (b"9223372036854775808", "number_out_of_range"),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "json_too_deep"),
    ],
)
def test_unstorable_submission_is_422_and_names_field(client: WebClient, value: bytes, kind: str) -> None:
    """Put it anywhere in any strict body; the answer does not repeat it, and is never 500."""
    for method, path in STRICT:
        body = b'{"type": "start_session", "parameters": {"prompt": "x"}, "scope": {"here": ' + value + b"}}"
        answer = client.raw(path, body, method)
        assert answer.status_code == 422, (path, answer.text)
        (fault,) = answer.json()["detail"]
        assert set(fault) == {"type", "loc", "msg"}
        assert fault["type"] == kind
        assert fault["loc"][:3] == ["body", "scope", "here"]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff\xfe", b'"\xed\xa0\x80"', b"[" * 100_000, b"nonsense", b"[1]", b"null"]
)
def test_strict_body_that_is_no_object_is_422(client: WebClient, raw: bytes) -> None:
    """Send broken JSON, bad UTF-8 and values of every shape."""
    for method, path in [*STRICT, ("POST", "/runs/batch")]:
        answer = client.raw(path, raw, method)
        assert answer.status_code == 422, (path, answer.text)
        assert isinstance(answer.json()["detail"], list)


def test_content_type_does_not_matter(client: WebClient) -> None:
    """Accept what deployed clients send."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.http.post("/runs", content=json.dumps(START), headers={"Content-Type": kind})
        assert answer.status_code == 201


def test_unknown_paths_and_methods_answer_in_error_shape(client: WebClient) -> None:
    """Answer 404 and 405 with `detail`."""
    assert client.get("/nothing").json() == {"detail": "Not Found"}
    assert client.get("/nothing").status_code == 404
    answer = client.http.put("/runs", json={})
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
    assert answer.headers["allow"] == "GET, POST"
    assert client.http.put("/console/session").headers["allow"] == "DELETE, POST"
    assert client.http.put("/sessions/s").headers["allow"] == "DELETE, GET"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/runs/", "/sessions/", "/runners/", "/runner/runs/", "/health/", "/docs/", "/static/docs"]
)
def test_trailing_slash_is_another_path(client: WebClient, method: str, path: str) -> None:
    """Send no redirect, which would name the host of the request."""
    answer = client.http.request(method, path, headers={"Host": "localhost"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    assert "location" not in answer.headers


@pytest.mark.parametrize("name", [".", ".."])
def test_ids_that_are_path_segments_are_422(client: WebClient, name: str) -> None:
    """Reject `..` wherever a submission names a session.

    `DELETE /sessions/..` becomes `DELETE /` when paths are resolved.
    """
    bodies = [
        START | {"session_id": name},
        START | {"type": "resume_session", "session_id": name},
        START | {"parent_session_id": name},
    ]
    for body in bodies:
        answer = client.post("/runs", body)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"][:1] == ["body"]
    results = client.post("/runs/batch", {"runs": bodies}).json()["results"]
    assert [result["code"] for result in results] == [422, 422, 422]
    assert client.get("/runs").json()["runs"] == []
    assert client.submit(session_id="...")["session_id"] == "..."


def test_image_on_foreign_page_claims_nothing(client: WebClient) -> None:
    """Send `<img src="http://localhost:8765/runner/runs?…">`, which has no Origin."""
    runner_id, run = client.register(), client.submit()
    query = {"runner_id": runner_id, "wait": "0"}
    image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    refused = client.http.get("/runner/runs", params=query, headers=image)
    assert refused.status_code == 403
    assert "another site" in refused.json()["detail"]
    assert client.status(run["run_id"]) == "pending"
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.http.get("/docs", headers=link).status_code == 200
    assert client.http.get("/runs", headers=link).status_code == 403
    dashboard = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Origin": "http://127.0.0.1:3000"}
    assert client.http.get("/runs", headers=dashboard).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "10.1.2.3:8765"}],
)
def test_foreign_page_starts_no_jobs(client: WebClient, headers: dict[str, str]) -> None:
    """Answer 403 in the error shape and create nothing; health is exempt."""
    answer = client.http.post("/runs", json=START, headers=headers)
    assert answer.status_code == 403
    assert "detail" in answer.json()
    assert client.get("/runs").json()["runs"] == []
    assert client.http.get("/health", headers=headers).status_code == 200


def test_loopback_page_may_call_with_all_headers(client: WebClient) -> None:
    """Answer the preflight of a dashboard in development."""
    origin = "http://localhost:3000"
    wanted = "authorization, content-type, idempotency-key, last-event-id, x-api-key"
    answer = client.http.options(
        "/runs",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": wanted,
        },
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    simple = client.http.get("/runs", headers={"Origin": origin})
    assert simple.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in simple.headers


def test_named_origins_replace_loopback_origins(settings: Settings) -> None:
    """Set COORDINATOR_CORS_ORIGINS and COORDINATOR_ALLOWED_HOSTS."""
    named = settings.model_copy(update={"cors_origins": ("https://dash.example",), "allowed_hosts": ("lb",)})
    with served(named) as web:
        headers = {"Origin": "https://dash.example", "Host": "lb"}
        answer = web.client.http.get("/runs", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://dash.example"
        assert web.client.http.get("/runs", headers={"Origin": "https://other.example"}).status_code == 403


def test_health_is_alive_then_ready_then_degraded_without_workers(client: WebClient) -> None:
    assert client.get("/health").json() == {"status": "healthy"}
    assert client.get("/health/live").status_code == 200
    eventually(lambda: client.get("/health/ready").status_code == 200, what="readiness")
    eventually(lambda: "no worker" in client.get("/health/ready").text, what="the reason")
    assert client.get("/health/ready").json()["status"] == "degraded"


def test_database_without_schema_is_not_ready(settings: Settings, empty_database_url: str) -> None:
    """Answer 503 with the command that migrates it."""
    with served(Settings(database_url=empty_database_url, redis_url=settings.redis_url)) as web:
        eventually(lambda: "migrate" in web.client.get("/health/ready").text, what="the reason")
        for path in ("/health/ready", "/metrics/targets", "/runs"):
            assert web.client.get(path).status_code == 503
        assert not web.app.state.is_ready()


def test_registries_are_empty(client: WebClient) -> None:
    """Runners that provide agents fill the first one (test_http_agents)."""
    for path in ("/agents", "/capabilities", "/mcp-servers", "/scripts"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (200, [])


def test_metrics_count_requests_by_route(client: WebClient) -> None:
    """Keep ids and made-up paths out of the labels."""
    client.submit()
    client.get("/runs/some-id")
    client.get("/made-up")
    text = client.get("/metrics").text
    assert 'coordinator_http_requests_total{method="POST",route="/runs",status="201"}' in text
    assert 'route="/runs/{run_id}"' in text
    assert "some-id" not in text
    assert "made-up" not in text


def test_description_covers_every_route_with_examples_and_errors(client: WebClient) -> None:
    """Resolve every reference in /openapi.json: bodies, answers, error bodies."""
    described = client.get("/openapi.json").json()
    names = described["components"]["schemas"]
    references = [part.split('"')[0] for part in json.dumps(described).split("#/components/schemas/")[1:]]
    assert {"SubmitRun", "SubmitBatch", "RegisterRunner", "Problem"} <= set(references) <= set(names)
    operations = [
        (path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) >= 30
    for path, method, operation in operations:
        assert operation.get("description"), (path, method)
        if method in {"post", "patch"} and path.rpartition("/")[2] not in WITHOUT_BODY:
            assert "requestBody" in operation, path
        for status, answer in operation["responses"].items():
            if status >= "400" and "health" not in path:
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (path, method, status)
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(set(ids)) == len(ids)
    assert {"submitRun", "submitRuns", "listRuns", "getRun", "stopRun", "pollRuns", "appendEvents"} <= set(ids)
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)+", operation_id) for operation_id in ids)
    submitted = described["paths"]["/runs"]["post"]
    assert {"200", "201", "400", "404", "409", "413", "422", "503"} <= set(submitted["responses"])
    assert names["SubmitRun"]["examples"]


def test_api_reference_loads_nothing_from_elsewhere(client: WebClient) -> None:
    """Serve /docs without other hosts."""
    page = client.get("/docs")
    assert page.status_code == 200
    links = [part.split('"')[0] for part in page.text.split('src="')[1:] + page.text.split('href="')[1:]]
    assert links
    for link in links:
        assert link.startswith("/"), link
        assert client.get(link).status_code == 200


def test_process_serves_before_and_after_first_schema_check(settings: Settings) -> None:
    """Accept a submission right after the start."""
    with served(settings) as web:
        assert web.client.post("/runs", START).status_code == 201
        until_ready(web)
        assert web.app.state.is_ready()
