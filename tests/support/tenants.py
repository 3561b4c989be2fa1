"""Two owners and their runner on one coordinator, and every call that one may make with the other's ids."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from models.core.callers import Role
from tests.support.callers import client_with, make_key
from tests.support.db_verbs import DbVerbs
from tests.support.web import PROMPT, WebClient

# Text in everything that is Bob's, and nowhere else.
MARK = "belongs-to-bob"


@dataclass(frozen=True)
class Names:
    """Ids that a caller uses: Bob's own, or unknown ones."""

    session: str
    run: str
    runner: str


NONE = Names(session="never-was", run="run_never_was", runner="lnch_never_was")

Calls: TypeAlias = Mapping[str, Callable[[WebClient, Names], list[httpx.Response]]]


@dataclass(frozen=True)
class Tenants:
    """All callers, and Bob's things. ``machine`` is the runner that works for him, ``other`` holds nothing of his."""

    ann: WebClient
    bob: WebClient
    admin: WebClient
    machine: WebClient
    other: WebClient
    bobs: Names
    child: Names

    def close(self) -> None:
        for client in (self.ann, self.bob, self.admin, self.machine, self.other):
            client.close()


@contextmanager
def tenants(url: str, db: DbVerbs) -> Iterator[Tenants]:
    """Give Bob a session with a live process, events and a result, one child of it, and one run that is
    never claimed.
    """
    roles = {"ann": Role.USER, "bob": Role.USER, "admin": Role.ADMIN, "machine": Role.RUNNER, "other": Role.RUNNER}
    with ExitStack() as stack:
        who = {name: stack.enter_context(client_with(url, make_key(db, role, name))) for name, role in roles.items()}
        bob, machine = who["bob"], who["machine"]
        runner_id = machine.register(MARK)
        session_id = f"session-{MARK}"
        bob.submit(
            session_id=session_id,
            parameters={"prompt": MARK},
            project_dir=f"/{MARK}",
            agent_name=MARK,
            labels={"team": MARK},
            scope={"secret": MARK},
        )
        schedule = {
            "spec": {"every_seconds": 86_400},
            "note": MARK,
            "paused": True,
            "run": _start(parameters={"prompt": MARK}),
        }
        good(bob.raw(f"/schedules/{session_id}", json.dumps(schedule).encode(), "PUT"))
        run = machine.claim(runner_id)
        good(machine.report(run, runner_id, "started"))
        where = {"executor_session_id": MARK, "hostname": MARK, "executor_profile": "e"}
        good(machine.post(f"/sessions/{session_id}/bind", where))
        for kind in ("message", "result"):
            event = {
                "event_type": kind,
                "session_id": session_id,
                "timestamp": "t",
                "content": MARK,
                "result_text": MARK,
            }
            good(machine.post(f"/sessions/{session_id}/events", event))
        child = machine.submit(parent_session_id=session_id, session_id=f"child-{MARK}", parameters={"prompt": MARK})
        good(machine.report(run, runner_id, "completed", session_status="idle"))
        bob.submit(
            session_id=f"waiting-{MARK}",
            labels={"team": MARK},
            parameters={"prompt": MARK},
            additional_demands={"tags": [MARK]},
        )
        yield Tenants(
            **who,
            bobs=Names(session_id, run["run_id"], runner_id),
            child=Names(child["session_id"], child["run_id"], runner_id),
        )


def good(answer: httpx.Response) -> httpx.Response:
    assert answer.status_code in {200, 201}, answer.text
    return answer


def answers_as_for_unknown(who: WebClient, name: str, names: Names, never: Names = NONE) -> None:
    """Check that the endpoint answers these ids as unknown ones, and shows nothing of Bob's."""
    theirs, unknown = _answers(who, name, names), _answers(who, name, never)
    assert theirs == unknown, f"{name} reveals that it exists"
    assert all(MARK not in text for _, text in theirs)
    assert all(status != 403 for status, _ in theirs)


def _answers(who: WebClient, name: str, names: Names) -> list[tuple[int, str]]:
    """Return the answers without the ids of the request, the feed's position, which moves, and tokens: no difference
    may be left.
    """
    said = []
    for answer in CALLS[name](who, names):
        text = re.sub(r"v1\.\w+\.\d+", "POSITION", answer.text)
        text = re.sub(r'blt_\w+|"expires_at":"[^"]+"', "TOKEN", text)
        for one in (names.session, names.run, names.runner):
            text = text.replace(one, "IT")
        said.append((answer.status_code, text))
    return said


def _event(names: Names) -> dict[str, Any]:
    return {"event_type": "message", "session_id": names.session, "timestamp": "t", "content": "from another owner"}


def _start(**fields: Any) -> dict[str, Any]:
    return {"type": "start_session", "parameters": PROMPT} | fields


def _resume(names: Names) -> dict[str, Any]:
    return {"type": "resume_session", "session_id": names.session, "parameters": PROMPT}


def _report(names: Names, outcome: str) -> dict[str, Any]:
    return {"runner_id": names.runner, "reports": [{"run_id": names.run, "outcome": outcome}]}


# By endpoint: all that a caller can do with ids that it may not see. Each answer must be the one
# that it gets for unknown ids.
CALLS: Calls = {
    "POST /runs": lambda who, names: [
        who.post("/runs", _resume(names)),
        who.post("/runs", _start(parent_session_id=names.session)),
    ],
    "POST /runs/batch": lambda who, names: [
        who.post("/runs/batch", {"runs": [_resume(names), _start(parent_session_id=names.session)]})
    ],
    "GET /runs": lambda who, names: [
        who.get("/runs", session_id=names.session),
        who.get("/runs", session_id=names.session, limit=5),
        who.get("/runs", runner_id=names.runner),
        who.get("/runs", q=names.session, fields="summary"),
        who.get("/runs", run_id=names.run, order="created"),
    ],
    "GET /runs/{run_id}": lambda who, names: [
        who.get(f"/runs/{names.run}"),
        who.get(f"/runs/{names.run}", wait=60),
    ],
    "GET /runs/{run_id}/timeline": lambda who, names: [who.get(f"/runs/{names.run}/timeline")],
    "GET /runs/{run_id}/result": lambda who, names: [who.get(f"/runs/{names.run}/result")],
    "GET /runs/{run_id}/why": lambda who, names: [who.get(f"/runs/{names.run}/why")],
    "POST /runs/{run_id}/stop": lambda who, names: [who.post(f"/runs/{names.run}/stop")],
    "POST /runs/{run_id}/hold": lambda who, names: [who.post(f"/runs/{names.run}/hold", {})],
    "POST /runs/{run_id}/release": lambda who, names: [who.post(f"/runs/{names.run}/release")],
    "POST /runs/{run_id}/replay": lambda who, names: [
        who.post(f"/runs/{names.run}/replay", {}),
        who.post(f"/runs/{names.run}/replay", {"changes": {"parent_session_id": names.session}}),
    ],
    "POST /bulk": lambda who, names: [
        who.post("/bulk", {"action": action, "dry_run": True} | which)
        for action in ("stop", "delete", "replay")
        for which in ({"run_ids": [names.run]}, {"filter": {"session_id": names.session}})
    ],
    **{
        f"{method} /schedules/{{schedule_id}}{path}": lambda who, names, method=method, path=path, body=body: [
            who.raw(f"/schedules/{names.session}{path}", body, method)
        ]
        for method, path, body in (
            ("GET", "", b""),
            ("DELETE", "", b""),
            ("GET", "/fires", b""),
            ("GET", "/next", b""),
            ("POST", "/pause", b"{}"),
            ("POST", "/resume", b"{}"),
            ("POST", "/trigger", b"{}"),
            ("POST", "/backfill", b'{"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}'),
        )
    },
    "GET /sessions": lambda who, names: [who.get("/sessions", parent_session_id=names.session)],
    "GET /sessions/{session_id}": lambda who, names: [who.get(f"/sessions/{names.session}")],
    "GET /sessions/{session_id}/tree": lambda who, names: [who.get(f"/sessions/{names.session}/tree")],
    "GET /sessions/{session_id}/status": lambda who, names: [who.get(f"/sessions/{names.session}/status")],
    "GET /sessions/{session_id}/result": lambda who, names: [who.get(f"/sessions/{names.session}/result")],
    "GET /sessions/{session_id}/affinity": lambda who, names: [who.get(f"/sessions/{names.session}/affinity")],
    "POST /sessions/{session_id}/bind": lambda who, names: [
        who.post(
            f"/sessions/{names.session}/bind",
            {"executor_session_id": "x", "hostname": "h", "executor_profile": "e", "project_dir": "/x"},
        )
    ],
    "PATCH /sessions/{session_id}/metadata": lambda who, names: [
        who.raw(f"/sessions/{names.session}/metadata", b'{"agent_name": "x"}', "PATCH")
    ],
    "POST /sessions/{session_id}/stop": lambda who, names: [who.post(f"/sessions/{names.session}/stop")],
    "DELETE /sessions/{session_id}": lambda who, names: [who.http.delete(f"/sessions/{names.session}")],
    "GET /sessions/{session_id}/events": lambda who, names: [
        who.get(f"/sessions/{names.session}/events"),
        who.get(f"/sessions/{names.session}/events", limit=1),
        who.get(f"/sessions/{names.session}/events", run_id=names.run, order="desc"),
    ],
    "POST /sessions/{session_id}/events": lambda who, names: [
        who.post(f"/sessions/{names.session}/events", _event(names)),
        who.post(f"/sessions/{names.session}/events", [_event(names)]),
    ],
    "GET /runner/runs": lambda who, names: [who.poll(names.runner, 20), who.poll(names.runner, 20, max=3)],
    "POST /runner/heartbeat": lambda who, names: [
        who.post("/runner/heartbeat", {"runner_id": names.runner, "holding": []})
    ],
    "POST /runner/runs/report": lambda who, names: [
        who.post("/runner/runs/report", _report(names, outcome)) for outcome in ("started", "failed")
    ],
    **{
        f"POST /runner/runs/{{run_id}}/{outcome}": lambda who, names, outcome=outcome: [
            who.post(f"/runner/runs/{names.run}/{outcome}", {"runner_id": names.runner, "error": "x"})
        ]
        for outcome in ("started", "completed", "failed", "stopped")
    },
    "POST /runner/runs/{run_id}/released": lambda who, names: [
        who.post(f"/runner/runs/{names.run}/released", {"runner_id": names.runner, "claim_token": "guessed"})
    ],
    "POST /runner/sessions/{session_id}/status": lambda who, names: [
        who.post(f"/runner/sessions/{names.session}/status", {"runner_id": names.runner, "status": "finished"})
    ],
    "GET /runners/{runner_id}/why-idle": lambda who, names: [who.get(f"/runners/{names.runner}/why-idle")],
    "DELETE /runners/{runner_id}": lambda who, names: [
        who.http.delete(f"/runners/{names.runner}"),
        who.http.delete(f"/runners/{names.runner}", params={"self": "true"}),
    ],
}
# Endpoints without ids of an owner, or tested elsewhere.
OTHERS = {
    "GET /sse/sessions",
    "POST /sse/ticket",
    "POST /runner/register",
    "GET /runners",
    "GET /bulk",
    "GET /bulk/{bulk_id}",
    "POST /bulk/{bulk_id}/stop",
    "GET /runs/failures",
    "GET /holds",
    "PUT /holds/{name}",
    "DELETE /holds/{name}",
    "GET /schedules",
    "POST /schedules/preview",
    "POST /schedules/bulk",
    "PUT /schedules/{schedule_id}",
    "POST /runners/{runner_id}/drain",
    "DELETE /runners/{runner_id}/drain",
    "PUT /webhooks/{webhook_id}",
    "GET /webhooks",
    "GET /webhooks/{webhook_id}",
    "DELETE /webhooks/{webhook_id}",
    "POST /webhooks/{webhook_id}/rotate-secret",
    "POST /webhooks/{webhook_id}/test",
    "GET /webhooks/{webhook_id}/deliveries",
    "POST /webhooks/{webhook_id}/deliveries/{event_id}/replay",
    "GET /me",
    "GET /audit",
    "GET /keys",
    "POST /keys",
    "DELETE /keys/{key_id}",
    "GET /system",
    "GET /runs/counts",
    "GET /queues",
    "GET /stats/series",
    "GET /agents",
    "GET /agents/{name}",
    "POST /agents",
    "PATCH /agents/{name}",
    "PATCH /agents/{name}/status",
    "DELETE /agents/{name}",
    "GET /capabilities",
    "GET /capabilities/{name}",
    "POST /capabilities",
    "PATCH /capabilities/{name}",
    "DELETE /capabilities/{name}",
    "GET /mcp-servers",
    "GET /mcp-servers/{server_id}",
    "POST /mcp-servers",
    "PUT /mcp-servers/{server_id}",
    "DELETE /mcp-servers/{server_id}",
    "GET /scripts",
    "GET /scripts/{name}",
    "GET /scripts/{name}/download",
    "POST /scripts",
    "PATCH /scripts/{name}",
    "DELETE /scripts/{name}",
    "GET /config/export",
    "POST /config/import",
    "GET /health",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
    "GET /metrics/cluster",
    "GET /metrics/targets",
    "POST /console/session",
    "DELETE /console/session",
    "GET /console/sign-in",
    "GET /console/sign-in/methods",
    "GET /console/callback",
    "GET /docs",
    "GET /openapi.json",
}
