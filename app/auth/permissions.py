"""Define which role may call which endpoint: the table that ``Authenticator`` reads and docs/security.md shows.

Endpoints that are not in it are for admins only. The rows that a role sees behind an endpoint are decided in the verbs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Mount
from starlette.types import Scope

from models.core.callers import Role


class Counted(StrEnum):
    # Counted by the routes, since one request may hold many.
    SUBMISSIONS = "submissions"
    EVENTS = "events"
    # Counted by ``Authenticator``, one per request.
    CHANGES = "changes"
    REGISTRATIONS = "registrations"
    REPORTS = "reports"


@dataclass(frozen=True, slots=True)
class Permission:
    """Scope of each role on an endpoint, in the words of the table; None: 403."""

    admin: str | None = "all"
    user: str | None = None
    runner: str | None = None
    public: bool = False
    # Describes the service itself: public when COORDINATOR_PUBLIC_DOCS says so.
    is_about: bool = False
    counted: Counted | None = None

    def allows(self, role: Role) -> bool:
        return self.words(role) is not None

    def words(self, role: Role) -> str | None:
        match role:
            case Role.ADMIN:
                return self.admin
            case Role.USER:
                return self.user
            case Role.RUNNER:
                return self.runner


_OWN, _TREES, _ITSELF = "own", "its trees", "itself"
_PUBLIC: Final = Permission("yes", "yes", "yes", public=True)
_ANY_ROLE: Final = Permission("yes", "yes", "yes")
_ABOUT: Final = Permission("yes", "yes", "yes", is_about=True)
_THINGS: Final = Permission(user=_OWN, runner=_TREES)
_OVERVIEW: Final = Permission(user=_OWN)
_SUBMISSION: Final = replace(_THINGS, counted=Counted.SUBMISSIONS)
_CHANGE: Final = replace(_THINGS, counted=Counted.CHANGES)
_EVENT: Final = replace(_THINGS, counted=Counted.EVENTS)
_RUNNER: Final = Permission(runner=_ITSELF)
_REGISTRATION: Final = replace(_RUNNER, counted=Counted.REGISTRATIONS)
_REPLAY: Final = Permission(user=_OWN, counted=Counted.SUBMISSIONS)
_OWN_CHANGE: Final = Permission(user=_OWN, counted=Counted.CHANGES)
_SCHEDULE: Final = _OWN_CHANGE
_REPORT: Final = replace(_RUNNER, counted=Counted.REPORTS)

ADMINS_ONLY: Final = Permission()
_ADMINISTRATION: Final = Permission(counted=Counted.CHANGES)

PERMISSIONS: Final[Mapping[str, Permission]] = {
    "POST /runs": _SUBMISSION,
    "POST /runs/batch": _SUBMISSION,
    "GET /runs": _THINGS,
    "GET /runs/counts": _OVERVIEW,
    "GET /runs/failures": _OVERVIEW,
    "GET /queues": _OVERVIEW,
    "GET /stats/series": _OVERVIEW,
    "GET /runs/{run_id}": _THINGS,
    "GET /runs/{run_id}/timeline": _THINGS,
    "GET /runs/{run_id}/result": _THINGS,
    "GET /runs/{run_id}/why": _THINGS,
    "POST /runs/{run_id}/stop": _CHANGE,
    "POST /runs/{run_id}/replay": _REPLAY,
    "POST /runs/{run_id}/hold": _OWN_CHANGE,
    "POST /runs/{run_id}/release": _OWN_CHANGE,
    "GET /holds": _OVERVIEW,
    "PUT /holds/{name}": _ADMINISTRATION,
    "DELETE /holds/{name}": _ADMINISTRATION,
    "POST /bulk": _OWN_CHANGE,
    "GET /bulk": _OVERVIEW,
    "GET /bulk/{bulk_id}": _OVERVIEW,
    "POST /bulk/{bulk_id}/stop": _OWN_CHANGE,
    "GET /schedules": _OVERVIEW,
    "POST /schedules/preview": _SCHEDULE,
    "POST /schedules/bulk": _SCHEDULE,
    "PUT /schedules/{schedule_id}": _SCHEDULE,
    "GET /schedules/{schedule_id}": _OVERVIEW,
    "DELETE /schedules/{schedule_id}": _SCHEDULE,
    "GET /schedules/{schedule_id}/fires": _OVERVIEW,
    "GET /schedules/{schedule_id}/next": _OVERVIEW,
    "POST /schedules/{schedule_id}/pause": _SCHEDULE,
    "POST /schedules/{schedule_id}/resume": _SCHEDULE,
    "POST /schedules/{schedule_id}/trigger": _REPLAY,
    "POST /schedules/{schedule_id}/backfill": _SCHEDULE,
    "GET /sessions": _THINGS,
    "GET /sessions/{session_id}": _THINGS,
    "GET /sessions/{session_id}/tree": _THINGS,
    "GET /sessions/{session_id}/status": _THINGS,
    "GET /sessions/{session_id}/result": _THINGS,
    "GET /sessions/{session_id}/affinity": _THINGS,
    "POST /sessions/{session_id}/bind": _CHANGE,
    "PATCH /sessions/{session_id}/metadata": _CHANGE,
    "POST /sessions/{session_id}/stop": _CHANGE,
    "DELETE /sessions/{session_id}": _CHANGE,
    "GET /sessions/{session_id}/events": _THINGS,
    "POST /sessions/{session_id}/events": _EVENT,
    "GET /sse/sessions": Permission(user=_OWN),
    "POST /sse/ticket": Permission(user=_OWN, counted=Counted.CHANGES),
    "GET /runner/runs": _RUNNER,
    "POST /runner/register": _REGISTRATION,
    "POST /runner/heartbeat": _REPORT,
    "POST /runner/runs/report": _REPORT,
    "POST /runner/runs/{run_id}/started": _REPORT,
    "POST /runner/runs/{run_id}/completed": _REPORT,
    "POST /runner/runs/{run_id}/failed": _REPORT,
    "POST /runner/runs/{run_id}/stopped": _REPORT,
    "POST /runner/runs/{run_id}/released": _REPORT,
    "POST /runner/sessions/{session_id}/status": _REPORT,
    "POST /console/session": _PUBLIC,
    "GET /console/sign-in": _PUBLIC,
    "GET /console/sign-in/methods": _PUBLIC,
    "GET /console/callback": _PUBLIC,
    "DELETE /console/session": replace(_ANY_ROLE, counted=Counted.CHANGES),
    "GET /runners": _RUNNER,
    "GET /runners/{runner_id}/why-idle": _RUNNER,
    "DELETE /runners/{runner_id}": _REGISTRATION,
    "POST /runners/{runner_id}/drain": _ADMINISTRATION,
    "DELETE /runners/{runner_id}/drain": _ADMINISTRATION,
    "PUT /webhooks/{webhook_id}": _OWN_CHANGE,
    "GET /webhooks": _OVERVIEW,
    "GET /webhooks/{webhook_id}": _OVERVIEW,
    "DELETE /webhooks/{webhook_id}": _OWN_CHANGE,
    "POST /webhooks/{webhook_id}/rotate-secret": _OWN_CHANGE,
    "POST /webhooks/{webhook_id}/test": _OWN_CHANGE,
    "GET /webhooks/{webhook_id}/deliveries": _OVERVIEW,
    "POST /webhooks/{webhook_id}/deliveries/{event_id}/replay": _OWN_CHANGE,
    "GET /me": _ANY_ROLE,
    "GET /agents": _ANY_ROLE,
    "GET /agents/{name}": _ANY_ROLE,
    "POST /agents": _ADMINISTRATION,
    "PATCH /agents/{name}": _ADMINISTRATION,
    "PATCH /agents/{name}/status": _ADMINISTRATION,
    "DELETE /agents/{name}": _ADMINISTRATION,
    "GET /capabilities": _ANY_ROLE,
    "GET /capabilities/{name}": _ANY_ROLE,
    "POST /capabilities": _ADMINISTRATION,
    "PATCH /capabilities/{name}": _ADMINISTRATION,
    "DELETE /capabilities/{name}": _ADMINISTRATION,
    "GET /mcp-servers": _ANY_ROLE,
    "GET /mcp-servers/{server_id}": _ANY_ROLE,
    "POST /mcp-servers": _ADMINISTRATION,
    "PUT /mcp-servers/{server_id}": _ADMINISTRATION,
    "DELETE /mcp-servers/{server_id}": _ADMINISTRATION,
    "GET /scripts": _ANY_ROLE,
    "GET /scripts/{name}": _ANY_ROLE,
    "GET /scripts/{name}/download": _ANY_ROLE,
    "POST /scripts": _ADMINISTRATION,
    "PATCH /scripts/{name}": _ADMINISTRATION,
    "DELETE /scripts/{name}": _ADMINISTRATION,
    "GET /config/export": ADMINS_ONLY,
    "POST /config/import": _ADMINISTRATION,
    "GET /health": _PUBLIC,
    "GET /health/live": _PUBLIC,
    "GET /health/ready": _PUBLIC,
    "GET /audit": ADMINS_ONLY,
    "GET /keys": ADMINS_ONLY,
    "POST /keys": _ADMINISTRATION,
    "DELETE /keys/{key_id}": _ADMINISTRATION,
    "GET /system": ADMINS_ONLY,
    "GET /metrics": Permission("yes"),
    "GET /metrics/cluster": Permission("yes"),
    "GET /metrics/targets": Permission("yes"),
    "GET /docs": _ABOUT,
    "GET /openapi.json": _ABOUT,
}


def endpoint_of(scope: Scope) -> str:
    route = scope.get("route")
    return f"{scope['method']} {route.path}" if route is not None else ""


def permission_of(endpoint: str) -> Permission:
    return PERMISSIONS.get(endpoint, ADMINS_ONLY)


def endpoints(routes: Sequence[BaseRoute]) -> list[str]:
    names = [
        f"{method} {route.path}"
        for route in iter_route_contexts(routes)
        if not isinstance(route.route, Mount)
        for method in sorted(route.methods or ())
    ]
    return sorted(names, key=lambda name: name.partition(" ")[::-1])


def access_table(names: Iterable[str]) -> str:
    rows = ["| endpoint | no credential | user | runner | admin |", "|---|---|---|---|---|"]
    for name in names:
        permission = PERMISSIONS.get(name, ADMINS_ONLY)
        cells = ["yes" if permission.public else "401"]
        cells += [permission.words(role) or "403" for role in (Role.USER, Role.RUNNER, Role.ADMIN)]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)
