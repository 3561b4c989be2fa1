"""Schedules over HTTP: from a definition to its runs by a worker, with and without Redis; hostile bodies; owners."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from models.core.callers import Role
from runtime.settings import Settings
from testkit.ports import own_port
from testkit.waiting import eventually
from tests.support.answer_models import check_fields
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs
from tests.support.in_process_worker import running_ticker, running_worker
from tests.support.schedules import decide, ledger, rewind
from tests.support.web import PROMPT, WebClient, WebInThread, served

RUN: dict[str, Any] = {"type": "start_session", "parameters": PROMPT}
GOOD: dict[str, Any] = {"spec": {"cron": ["0 9 * * MON-FRI"]}, "timezone": "Europe/Berlin", "run": RUN}
AGENT = {"name": "count", "command": "count"}
ONE = "/schedules/{schedule_id}"


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings) as web:
        yield web


def put(client: WebClient, schedule_id: str, body: Any, **headers: str) -> httpx.Response:
    return client.http.put(f"/schedules/{schedule_id}", content=json.dumps(body).encode(), headers=headers)


def made(client: WebClient, schedule_id: str, **fields: Any) -> dict[str, Any]:
    answer = put(client, schedule_id, GOOD | fields)
    assert answer.status_code in {200, 201}, answer.text
    check_fields(f"PUT {ONE}", answer.status_code, answer.json())
    found: dict[str, Any] = answer.json()
    return found


def asked(client: WebClient, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """Return the answer to a call about schedule `a`, which has the fields of its model."""
    sent = b"" if body is None else json.dumps(body).encode()
    answer = client.raw(f"/schedules/a{path}", sent, method)
    assert answer.status_code == 200, answer.text
    check_fields(f"{method} {ONE}{path.partition('?')[0]}", 200, answer.json())
    found: dict[str, Any] = answer.json()
    return found


def every_second(client: WebClient) -> None:
    made(client, "a", spec={"every_seconds": 1}, overlap="allow", timezone="UTC")


def submitted(client: WebClient) -> list[dict[str, Any]]:
    return [fire for fire in asked(client, "GET", "/fires")["fires"] if fire["outcome"] == "submitted"]


def test_schedule_runs_from_definition_to_deletion(settings: Settings, web: WebInThread) -> None:
    client = web.client
    with running_worker(settings), running_ticker(settings):
        every_second(client)
        eventually(lambda: len(submitted(client)) >= 2, what="two runs of the schedule")
        paused = asked(client, "POST", "/pause", {"note": "enough"})
        assert (paused["state"], paused["pause_reason"], paused["next_fire_at"]) == ("paused", "enough", None)
    fires = submitted(client)
    run = client.get(f"/runs/{fires[0]['run_id']}").json()
    assert run["labels"] == {"schedule": "a", "fire_at": fires[0]["fire_at"].replace("+00:00", "Z")}
    listed = client.get("/runs", label="schedule=a").json()["runs"]
    assert {each["run_id"] for each in listed} == {fire["run_id"] for fire in fires}
    page = client.get("/schedules").json()
    check_fields("GET /schedules", 200, page)
    assert page["schedules"] == [{key: value for key, value in asked(client, "GET", "").items() if key != "run"}]
    assert asked(client, "POST", "/trigger", {"overlap": "allow"})["outcome"] == "submitted"
    assert asked(client, "POST", "/resume")["state"] == "active"
    assert asked(client, "DELETE", "") == {"ok": True, "schedule_id": "a"}
    assert client.get("/schedules/a").status_code == 404
    assert client.raw("/schedules/a", b"", "DELETE").status_code == 404


def test_worker_decides_without_redis(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{own_port()}/0"})
    with served(away) as web, running_ticker(away):
        every_second(web.client)
        eventually(lambda: len(submitted(web.client)) >= 2, what="two runs of the schedule")


def test_next_times_tell_changes_of_the_clock(web: WebInThread) -> None:
    client = web.client
    begin = datetime(2027, 3, 27, 0, 0, tzinfo=UTC)
    body = {"spec": {"cron": ["30 2 * * *"]}, "timezone": "Europe/Berlin", "start_at": begin.isoformat()}
    answer = client.post("/schedules/preview", body)
    assert answer.status_code == 200, answer.text
    check_fields("POST /schedules/preview", 200, answer.json())
    shown = [(time["local"], time["note"]) for time in answer.json()["times"][:3]]
    assert shown == [
        ("2027-03-27T02:30:00+01:00", None),
        ("2027-03-28T03:00:00+02:00", "UTC+02:00, before UTC+01:00"),
        ("2027-03-29T02:30:00+02:00", None),
    ]
    made(client, "a", **body)
    assert asked(client, "GET", "/next?count=10") == answer.json()


def test_put_is_repeated_by_key_and_refused_for_another_version(web: WebInThread) -> None:
    client = web.client
    created = put(client, "a", GOOD | {"expect_version": 0}, **{"Idempotency-Key": "k"})
    again = put(client, "a", GOOD | {"expect_version": 0}, **{"Idempotency-Key": "k"})
    assert (created.status_code, again.status_code, again.json()) == (201, 201, created.json())
    assert created.json()["run"] == RUN
    assert made(client, "a", expect_version=1)["version"] == 2
    late = put(client, "a", GOOD | {"expect_version": 0}, **{"Idempotency-Key": "k"})
    assert (late.status_code, late.json()["version"]) == (200, 2)
    other = put(client, "a", GOOD | {"note": "other"}, **{"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["detail"]) == (409, "Idempotency-Key was used with another body")
    refused = put(client, "a", GOOD | {"expect_version": 1})
    assert (refused.status_code, refused.json()["detail"]["version"]) == (409, 2)
    late = client.post("/schedules/a/pause", {"expect_version": 1})
    assert late.status_code == 409
    triggers = [client.post("/schedules/a/trigger", {}, **{"Idempotency-Key": "t"}).json() for _ in range(2)]
    assert triggers[0] == triggers[1]
    assert client.post("/schedules/a/trigger", {"overlap": "allow"}, **{"Idempotency-Key": "t"}).status_code == 409
    assert len(asked(client, "GET", "/fires")["fires"]) == 1


def test_backfill_counts_and_submits(web: WebInThread, db: DbVerbs) -> None:
    client = web.client
    made(client, "a", spec={"every_seconds": 3600}, timezone="UTC")
    until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    body = {"from": (until - timedelta(hours=3)).isoformat(), "to": until.isoformat(), "overlap": "allow"}
    planned = asked(client, "POST", "/backfill", body | {"dry_run": True})
    assert (planned["times"], planned["already"], planned["more"], len(ledger(db))) == (3, 0, False, 0)
    assert asked(client, "POST", "/backfill", body) == planned | {"dry_run": False}
    decide(db)
    assert len(ledger(db)) == 3
    assert asked(client, "POST", "/backfill", body)["already"] == 3


def test_parameters_of_an_agent_are_checked_when_the_schedule_is_put(web: WebInThread, db: DbVerbs) -> None:
    """A schema that has changed since fails the time."""
    client = web.client
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    client.register(instance_id="one", agents=[AGENT | {"parameters_schema": schema}])
    run = {"type": "start_session", "agent_name": "count", "parameters": {"n": "one"}}
    refused = put(client, "a", GOOD | {"run": run})
    assert (refused.status_code, refused.json()["detail"]["error"]) == (400, "parameter_validation_failed")
    made(client, "a", run=run | {"parameters": {"n": 1}}, spec={"every_seconds": 1}, overlap="allow")
    rewind(db, "a", 2)
    decide(db)
    assert len(submitted(client)) >= 2
    client.register(instance_id="one", agents=[AGENT | {"parameters_schema": schema | {"required": ["n", "m"]}}])
    db.rows("DELETE FROM schedule_fires")
    db.rows("DELETE FROM idempotency_keys")
    rewind(db, "a", 2)
    decide(db)
    newest = asked(client, "GET", "/fires")["fires"][0]
    assert (newest["outcome"], "another schema" in newest["reason"]) == ("failed", True)


BAD: list[Any] = [
    None,
    [],
    {},
    {"spec": {"cron": ["* * * * *"]}},
    GOOD | {"unknown": 1},
    GOOD | {"spec": {}},
    GOOD | {"spec": {"cron": "* * * * *"}},
    GOOD | {"spec": {"cron": [""]}},
    GOOD | {"spec": {"cron": ["61 * * * *"]}},
    GOOD | {"spec": {"cron": ["* * * * *\x00"]}},
    GOOD | {"spec": {"cron": ["* * * * *"] * 11}},
    GOOD | {"spec": {"cron": ["1," * 200 + "1 * * * *"]}},
    GOOD | {"spec": {"every_seconds": 0}},
    GOOD | {"spec": {"every_seconds": 1.5}},
    GOOD | {"spec": {"every_seconds": 10**30}},
    GOOD | {"spec": {"cron": ["* * * * *"], "offset_seconds": 5}},
    GOOD | {"spec": {"at": ["2026-12-01T09:00:00"]}},
    GOOD | {"spec": {"at": ["9999-12-31T23:59:59-12:00"]}},
    GOOD | {"spec": {"at": ["0001-01-01T00:00:00+12:00"]}},
    GOOD | {"spec": {"at": [5]}},
    GOOD | {"spec": {"at": ["2026-12-01T09:00:00Z"] * 1001}},
    GOOD | {"spec": {"every_seconds": 5, "except": ["2026-02-30"]}},
    GOOD | {"spec": {"every_seconds": 5, "except": ["2026-W01-1"]}},
    GOOD | {"spec": {"every_seconds": 5, "rrule": "FREQ=DAILY"}},
    GOOD | {"timezone": "Berlin"},
    GOOD | {"timezone": "../../etc/passwd"},
    GOOD | {"timezone": "\ud800"},
    GOOD | {"timezone": None},
    GOOD | {"start_at": "2027-01-01T00:00:00Z", "end_at": "2026-01-01T00:00:00Z"},
    GOOD | {"overlap": "terminate"},
    GOOD | {"buffer_most": 201},
    GOOD | {"catch_up": {"within_seconds": -1}},
    GOOD | {"catch_up": {"most": 101}},
    GOOD | {"jitter_seconds": 86_401},
    GOOD | {"most_fires": 0},
    GOOD | {"pause_after_failures": 0},
    GOOD | {"paused": "yes"},
    GOOD | {"note": "x" * 1001},
    GOOD | {"note": "\x00"},
    GOOD | {"expect_version": -1},
    GOOD | {"expect_version": 2**31},
    GOOD | {"run": None},
    GOOD | {"run": "later"},
    GOOD | {"run": RUN | {"type": "continue"}},
    GOOD | {"run": RUN | {"session_id": "always-the-same"}},
    GOOD | {"run": RUN | {"session_id": "bad/{fire_at}"}},
    GOOD | {"run": RUN | {"session_id": "x" * 128 + "{fire_at}"}},
    GOOD | {"run": RUN | {"not_before": 5}},
    GOOD | {"run": RUN | {"labels": {"schedule": "mine"}}},
    GOOD | {"run": RUN | {"labels": {f"l{number}": "x" for number in range(31)}}},
    GOOD | {"run": RUN | {"priority": 1000}},
]


def test_bad_schedule_is_refused_with_what_to_change(web: WebInThread, db: DbVerbs) -> None:
    for body in BAD:
        answer = put(web.client, "a", body)
        assert answer.status_code == 422, (body, answer.text)
        for fault in answer.json()["detail"]:
            assert fault["loc"][0] == "body", body
            assert fault["msg"], body
    assert db.count("schedules") == 0


def test_other_bad_requests_are_refused(web: WebInThread, db: DbVerbs) -> None:
    client = web.client
    for name in ("%00", "x" * 65, "-a", "a%20b", "%F0%9F%98%80", "a%2Fb"):
        assert put(client, name, GOOD).status_code in {404, 422}, name
        assert client.get(f"/schedules/{name}").status_code == 404, name
    made(client, "a")
    resume = {"type": "resume_session", "parameters": PROMPT}
    assert put(client, "a", GOOD | {"run": resume}).status_code == 400
    assert put(client, "a", GOOD | {"run": RUN | {"parameters": {"question": 1}}}).status_code == 400
    assert put(client, "a", GOOD | {"run": RUN | {"parameters": {"prompt": "x" * 300_000}}}).status_code == 413
    assert put(client, "b", GOOD, **{"Idempotency-Key": "x" * 256}).status_code == 422
    day = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    for path, body in {
        "trigger": {"overlap": "terminate"},
        "pause": {"note": 5},
        "resume": {"because": "x"},
        "backfill": {"from": "yesterday", "to": "today"},
    }.items():
        assert client.post(f"/schedules/a/{path}", body).status_code == 422, path
    for extra in ({"overlap": "skip"}, {"most": 1001}, {"most": 0}, {"dry_run": 1}, {"to": "10000-01-01T00:00:00Z"}):
        assert client.post("/schedules/a/backfill", day | extra).status_code == 422, extra
    assert client.get("/schedules/a/next", count=101).status_code == 422
    assert client.get("/schedules/a/fires", cursor="x").status_code == 400
    assert client.get("/schedules", cursor="\x00").status_code in {400, 422}
    assert asked(client, "POST", "/backfill", day | {"to": "2025-01-01T00:00:00Z"})["times"] == 0
    assert db.count("schedules") == 1


def test_schedules_belong_to_owners(settings: Settings, db: DbVerbs) -> None:
    """Runs belong to the owner also after an admin has changed the schedule, which is audited."""
    keys = {
        name: make_key(db, role, name) for name, role in (("ann", Role.USER), ("bob", Role.USER), ("root", Role.ADMIN))
    }
    runner = make_key(db, Role.RUNNER, "machine")
    with web_with_auth(settings) as web:
        url = str(web.client.http.base_url)
        with (
            client_with(url, keys["ann"]) as ann,
            client_with(url, keys["bob"]) as bob,
            client_with(url, runner) as box,
        ):
            every_second(ann)
            assert put(bob, "a", GOOD).status_code == 409
            assert bob.get("/schedules").json() == {"schedules": []}
            assert box.get("/schedules").status_code == 403
            with client_with(url, keys["root"]) as root:
                assert made(root, "a", spec={"every_seconds": 1}, overlap="allow", timezone="UTC")["owner"] == "ann"
                assert asked(root, "POST", "/trigger", {"overlap": "allow"})["outcome"] == "submitted"
                acts = [entry["act"] for entry in root.get("/audit").json()["entries"]]
            rewind(db, "a", 2)
            decide(db)
            assert len(submitted(ann)) >= 2
    assert {row.owner for row in db.rows("SELECT owner FROM runs")} == {"ann"}
    assert {"schedule_put", "schedule_triggered"} <= set(acts)
