"""Ids of requests: in answers and in the log lines that a process writes while it answers."""

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import structlog

from app.http.request_ids import request_id_of
from models.core.callers import Role
from models.expiry.expire import expire
from runtime.limited_lines import LimitedLines
from runtime.logs import configure_logs, log
from runtime.postgres import transaction
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.callers import client_with, make_key
from tests.support.clocks import fall_silent
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import running
from tests.support.web import PROMPT, WebInThread, served


@pytest.fixture
def logged(settings: Settings) -> Iterator[StringIO]:
    root, ours, stream = logging.getLogger(), structlog.get_config(), StringIO()
    handlers, level = root.handlers[:], root.level
    configure_logs(settings.model_copy(update={"log_format": "json"}), process="web-1", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = False
    structlog.configure(**ours)


def refusals(logged: StringIO) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    return [line for line in lines if line["event"] == "report refused"]


def test_answers_and_lines_carry_id_of_their_request(settings: Settings, logged: StringIO) -> None:
    with served(settings) as web:
        client = web.client
        runner = client.register()
        run = client.finished(runner)
        path, body = f"/runner/runs/{run['run_id']}/failed", {"runner_id": runner, "error": "x"}
        answers = [client.post(path, body, **{"X-Request-Id": "mine-1.A_b"}), client.post(path, body)]
        # Reports of several requests share transactions; each line names its own.
        crowd = [
            client.meanwhile(client.post, path, body, **{"X-Request-Id": f"crowd-{number}"}) for number in range(24)
        ]
        answers += [each.result(30) for each in crowd]
        assert {answer.status_code for answer in answers} == {409}
        ids = [answer.headers["x-request-id"] for answer in answers]
        assert ids == ["mine-1.A_b", ids[1], *(f"crowd-{number}" for number in range(24))]
        eventually(lambda: len(refusals(logged)) == 26, what="a line for each refusal")
        lines = refusals(logged)
        assert sorted(line["request_id"] for line in lines) == sorted(ids)
        named = {(line["run_id"], line["session_id"], line["runner_id"]) for line in lines}
        assert named == {(run["run_id"], run["session_id"], runner)}
        _check_other_answers(web, ids[1])


def _check_other_answers(web: WebInThread, earlier: str) -> None:
    """Check that refusals, errors, pages and preflights carry an id, and that no id is invented twice."""
    seen = {earlier}
    for sent in ("", "a b", "x" * 129, "\u00e9", "a;b", "a\tb"):
        answer = web.client.http.get("/nothing", headers={b"X-Request-Id": sent.encode("latin-1")})
        seen.add(answer.headers["x-request-id"])
        assert answer.headers["x-request-id"] != sent
    assert len(seen) == 7
    longest = "x" * 128
    for method, path, more in (
        ("GET", "/health/live", {}),
        ("GET", "/docs", {}),
        ("POST", "/runs", {}),
        ("GET", "/runs", {"Host": "elsewhere.example"}),
        ("OPTIONS", "/runs", {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}),
    ):
        answer = web.client.http.request(method, path, headers={"X-Request-Id": longest, **more})
        assert answer.headers.get_list("x-request-id") == [longest], path
    allowed = web.client.http.get("/runs", headers={"Origin": "http://localhost:3000"}).headers
    assert "X-Request-Id" in allowed["access-control-expose-headers"]


def lines_of(logged: StringIO, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_refusals_of_runners_are_logged_with_their_ids(settings: Settings, logged: StringIO) -> None:
    """Poll and beat as a runner that is not registered; register a second process of one."""
    with served(settings) as web:
        client = web.client
        runner = client.register()
        same = {"hostname": "host", "project_dir": "/p", "executor_profile": "e", "executor": {"type": "autonomous"}}
        again = client.post("/runner/register", same, **{"X-Request-Id": "again"})
        poll = client.http.get("/runner/runs?runner_id=lnch_unknown&wait=5", headers={"X-Request-Id": "poll"})
        beat = client.post("/runner/heartbeat", {"runner_id": "lnch_unknown"}, **{"X-Request-Id": "beat"})
        assert (again.status_code, poll.status_code, beat.status_code) == (409, 401, 401)
        found = {line["request_id"]: line for line in lines_of(logged, "request refused")}
        assert found["poll"]["runner_id"] == "lnch_unknown"
        assert found["poll"]["reason"] == found["beat"]["reason"] == "runner not registered"
        assert found["again"]["runner_id"] == runner
        assert (found["poll"]["method"], found["poll"]["route"]) == ("GET", "/runner/runs")


def test_refusals_beyond_limit_name_their_caller(settings: Settings, logged: StringIO, db: DbVerbs) -> None:
    few = settings.model_copy(update={"auth": True, "submissions_per_minute": 1})
    token = make_key(db, Role.USER, "ann")
    with served(few) as web, client_with(web.client.url, token) as client:
        body = {"type": "start_session", "parameters": PROMPT}
        assert [client.post("/runs", body).status_code for _ in range(3)] == [201, 429, 429]
        lines = lines_of(logged, "request refused")
        assert [(line["caller"], line["reason"]) for line in lines] == [
            ("user:ann", "more than 1 submissions a minute")
        ] * 2


def test_lines_name_run_session_and_runner_of_path(
    settings: Settings, logged: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(settings) as web:
        monkeypatch.setattr("app.routes.runs.run_result", None)
        assert web.client.get("/runs/run_broken/result").status_code == 500
        eventually(lambda: '"exception"' in logged.getvalue(), what="a traceback")
    (line,) = [json.loads(line) for line in logged.getvalue().splitlines() if '"exception"' in line]
    assert line["run_id"] == "run_broken"
    assert "session_id" not in line


def test_lines_about_requeued_and_ended_runs_name_their_trace(db: DbVerbs, logged: StringIO) -> None:
    first = db.runner()
    run = running(db, first, max_attempts=2, traceparent=f"00-{'a' * 32}-{'b' * 16}-00")
    plain = running(db, db.runner())
    fall_silent(db, first, 3600)
    with transaction(db.engine) as connection:
        expire(connection)
    (line,) = lines_of(logged, "run requeued")
    assert (line["run_id"], line["session_id"], line["runner_id"]) == (run.run_id, run.session_id, first.runner_id)
    assert (line["cause"], line["trace_id"]) == ("lost", "a" * 32)
    assert plain.runner_id is not None
    fall_silent(db, Runner(plain.runner_id, 0), 3600)
    with transaction(db.engine) as connection:
        expire(connection)
    (line,) = lines_of(logged, "run ended by the coordinator")
    assert (line["run_id"], "trace_id" in line) == (plain.run_id, False)


def test_lines_that_clients_cause_are_bounded(logged: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write so many a minute, and then how many were left out."""
    now = 60.0
    monkeypatch.setattr("runtime.limited_lines.time.monotonic", lambda: now)
    lines = LimitedLines(log("tests"), "refused", most=3)
    for number in range(10):
        lines.write(number=number)
    now = 120.0
    for number in range(2):
        lines.write(number=number)
    written = [(line["number"], line.get("left_out")) for line in lines_of(logged, "refused")]
    assert written == [(0, None), (1, None), (2, None), (0, 7), (1, None)]


def test_traceback_names_its_request(settings: Settings, logged: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(settings) as web:
        monkeypatch.setattr("app.routes.sessions.SessionFilter", None)
        answer = web.client.http.get("/sessions", headers={"X-Request-Id": "broken-1"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (500, "broken-1")
        eventually(lambda: '"exception"' in logged.getvalue(), what="a traceback")
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert [line["request_id"] for line in lines if "exception" in line] == ["broken-1"]
    assert all("request_id" not in line for line in lines if "exception" not in line)


def test_first_of_several_ids_decides() -> None:
    sent = [(b"x-request-id", b"a\nb"), (b"x-request-id", b"second")]
    assert request_id_of({"headers": sent}) not in {b"a\nb", b"second"}
    assert request_id_of({"headers": sent[::-1]}) == b"second"
