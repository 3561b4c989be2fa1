"""Map exceptions and verb errors to answers in one table; all are ``{"detail": ...}`` (PROTOCOL, Conventions)."""

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, Final, NamedTuple, TypeVar

from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.http.bodies import Fault, Gone, Invalid, TooLarge
from app.http.lenient import encode
from app.writes.attempts import Unavailable
from models.core import errors
from models.core.errors import CoordinatorError
from models.registries.blueprints.dependencies import ResolutionError
from models.registries.blueprints.mcp_references import McpConfigMissing, McpReferenceUnresolved
from models.registries.blueprints.resolve import ScriptNotFound

Result = TypeVar("Result")

JSON: Final = "application/json"
CLIENT_CLOSED_REQUEST: Final = 499
# Agents that a refusal to delete names.
MOST_REFERRING: Final = 50


class VerbRefused(Exception):
    def __init__(self, error: CoordinatorError) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class BadRequest(Exception):
    def __init__(self, detail: Any) -> None:
        super().__init__("bad request")
        self.detail = detail


class Missing(Exception):
    def __init__(self, detail: str) -> None:
        super().__init__("missing")
        self.detail = detail


class Unauthenticated(Exception):
    """Request without a credential, or with a malformed one: 401."""


class Forbidden(Exception):
    """Request with an invalid or expired credential, or of a role that may not do this: 403."""


class TooMany(Exception):
    """Request beyond a limit of its caller: 429. ``reset`` is the number of seconds until more is allowed."""

    def __init__(self, what: str, limit: int, remaining: int, reset: float, caller: str = "") -> None:
        super().__init__(what)
        self.caller = caller
        self.what = what
        self.limit = limit
        self.remaining = remaining
        self.reset = reset


class EmptyPoll(Exception):
    """Poll whose caller could not be authenticated in time: 204, as if there were no work."""


class ReconnectLater(Exception):
    """Stream whose caller cannot be authenticated now: 200, over at once; its client reconnects."""


class Problem(NamedTuple):
    status: int
    detail: Any
    headers: Mapping[str, str] | None = None


def accepted(result: Result | CoordinatorError) -> Result:
    if isinstance(result, CoordinatorError):
        raise VerbRefused(result)
    return result


def of_submission(error: CoordinatorError) -> Exception:
    if isinstance(error, errors.NotFound) and error.noun == "session" and error.id:
        return Missing(f"Session '{error.id}' not found")
    return VerbRefused(error)


_NOT_FOUND: Final[Mapping[str, str]] = {
    "run": "Run not found",
    "session": "Session not found",
    "runner": "Runner not found",
    "key": "Key not found",
    "bulk": "Bulk not found",
    "hold": "Hold not found",
    "schedule": "Schedule not found",
    "webhook": "Webhook not found",
    "delivery": "Delivery not found",
}


def _not_found(error: errors.NotFound) -> Problem:
    if error.noun == "parent session":
        return Problem(404, f"Parent session '{error.id}' not found")
    return Problem(404, _NOT_FOUND.get(error.noun, "Not found"))


def _stale_claim(error: errors.StaleClaim) -> Problem:
    message = "The run is not held by this claim any more; nothing was changed"
    return Problem(409, {"error": "stale_claim", "status": error.status, "message": message})


def _invalid_transition(error: errors.InvalidTransition) -> Problem:
    message = f"A {error.status} run cannot become {error.wanted}; nothing was changed"
    return Problem(409, {"error": "invalid_transition", "status": error.status, "message": message})


def _duplicate_runner(error: errors.DuplicateRunner) -> Problem:
    identity = f"({error.hostname}, {error.project_dir}, {error.executor_profile})"
    detail = {
        "error": "duplicate_runner",
        "message": f"Runner with identity {identity} is already registered and online as {error.runner_id}",
        "runner_id": error.runner_id,
        "hostname": error.hostname,
        "project_dir": error.project_dir,
        "executor_profile": error.executor_profile,
    }
    return Problem(409, detail)


def _agent_name_taken(error: errors.AgentNameTaken) -> Problem:
    detail = {
        "error": "agent_name_collision",
        "message": f"Another runner provides an agent named '{error.agent_name}'; nothing was registered",
        "agent_name": error.agent_name,
        "existing_runner_id": error.runner_id,
    }
    return Problem(409, detail)


def _agent_not_resumable(error: errors.AgentNotResumable) -> Problem:
    message = "Procedural agents are stateless and cannot be resumed"
    return Problem(400, {"error": "procedural_agent_no_resume", "message": message, "agent_name": error.agent_name})


def _script_not_found(error: ScriptNotFound) -> Problem:
    named = {"agent_name": error.agent_name, "script_name": error.script_name}
    return Problem(400, {"error": "script_not_found", "message": str(error), **named})


def _mcp_unresolved(error: McpReferenceUnresolved) -> Problem:
    named = {"server_name": error.server_name, "ref": error.ref}
    return Problem(400, {"error": "mcp_ref_resolution_failed", "message": str(error), **named})


def _mcp_config_missing(error: McpConfigMissing) -> Problem:
    named = {"server_name": error.server_name, "missing_fields": list(error.missing_fields)}
    return Problem(400, {"error": "missing_required_mcp_config", "message": str(error), **named})


def _too_many_demands(error: errors.TooManyDemands) -> dict[str, Any]:
    message = (
        f"At most {error.limit} distinct sets of demands are allowed; use one again, "
        "or come again when some have not been used for a day"
    )
    return {"type": "too_many_demands", "loc": ["body", "additional_demands"], "msg": message}


def _too_many_agents(error: errors.TooManyAgents) -> dict[str, Any]:
    message = f"At most {error.limit} agents are allowed in all runners of an owner; name fewer, or remove a runner"
    return {"type": "too_many_agents", "loc": ["body", "agents"], "msg": message}


def _entry_exists(error: errors.EntryExists) -> Problem:
    if error.noun == "MCP server":
        return Problem(409, f"MCP server '{error.name}' already exists")
    return Problem(409, f"{error.noun} already exists: {error.name}")


def _entry_referenced(error: errors.EntryReferenced) -> Problem:
    shown = error.agents[:MOST_REFERRING]
    others = len(error.agents) - len(shown)
    text = ", ".join(shown) + (f" and {others} others" if others else "")
    return Problem(409, f"{error.noun} is referenced by agents: {text}")


def _registry_full(error: errors.RegistryFull) -> dict[str, Any]:
    message = (
        f"At most {error.entries} entries of {error.size} bytes together are allowed in a registry; delete some, or "
        "make them smaller"
    )
    return {"type": "registry_full", "loc": ["body"], "msg": message}


def _not_ended(error: errors.RunNotEnded) -> Problem:
    message = f"The run is {error.status}; it can be replayed once it has ended"
    return Problem(409, {"error": "run_not_ended", "status": error.status, "message": message})


def _version_conflict(error: errors.VersionConflict) -> Problem:
    message = f"The schedule has version {error.version}; nothing was changed"
    return Problem(409, {"error": "version_conflict", "version": error.version, "message": message})


def _too_many_schedules(error: errors.TooManySchedules) -> dict[str, Any]:
    message = f"At most {error.limit} schedules are allowed; delete one that is not needed any more"
    return {"type": "too_many_schedules", "loc": ["path", "schedule_id"], "msg": message}


_TABLE: Final[Mapping[type[CoordinatorError], Callable[[Any], Problem]]] = {
    errors.NotFound: _not_found,
    errors.SessionExists: lambda error: Problem(409, f"Session '{error.session_id}' already exists"),
    errors.ParentIsDescendant: lambda error: Problem(
        400, f"Parent session '{error.parent_session_id}' is a descendant"
    ),
    errors.ParentOfAnotherOwner: lambda error: Problem(400, str(error)),
    errors.TooDeep: lambda error: Problem(400, str(error)),
    errors.TooManyDemands: lambda error: Problem(422, [_too_many_demands(error)]),
    errors.KeyReused: lambda _: Problem(409, "Idempotency-Key was used with another body"),
    errors.Unstorable: lambda error: Problem(422, [{"type": "unstorable", "loc": ["body"], "msg": error.reason}]),
    errors.StaleClaim: _stale_claim,
    errors.InvalidTransition: _invalid_transition,
    errors.RunnerNotRegistered: lambda _: Problem(401, "Runner not registered"),
    errors.DuplicateRunner: _duplicate_runner,
    errors.AgentNameTaken: _agent_name_taken,
    errors.TooManyAgents: lambda error: Problem(422, [_too_many_agents(error)]),
    errors.AgentNotResumable: _agent_not_resumable,
    ResolutionError: lambda error: Problem(422, error.text_of_list()),
    ScriptNotFound: _script_not_found,
    McpReferenceUnresolved: _mcp_unresolved,
    McpConfigMissing: _mcp_config_missing,
    # Only when the agent's schema changed each time that the parameters were checked; `ParameterChecks` answers others.
    errors.SchemaUnchecked: lambda _: Problem(503, "Service temporarily unavailable", {"Retry-After": "1"}),
    errors.PromptRequired: lambda _: Problem(400, {"error": "parameter_validation_failed"}),
    errors.StopSessionFirst: lambda _: Problem(409, "Stop session first"),
    errors.RunNotEnded: _not_ended,
    errors.TokenUnknown: lambda _: Problem(
        404, "No dry run of yours has this token, or it has expired: ask again with dry_run"
    ),
    errors.TooManyBulks: lambda error: Problem(
        409, f"{error.limit} bulks of yours run already: wait for one to end, or stop one"
    ),
    errors.EntryNotFound: lambda error: Problem(404, f"{error.noun} not found: {error.name}"),
    errors.EntryExists: _entry_exists,
    errors.EntryReferenced: _entry_referenced,
    errors.BadEntry: lambda error: Problem(400, error.reason),
    errors.RegistryFull: lambda error: Problem(422, [_registry_full(error)]),
    errors.TooManyHolds: lambda error: Problem(
        409, f"At most {error.limit} holds of several runs are allowed: remove one first"
    ),
    errors.ScheduleExists: lambda error: Problem(409, f"Schedule '{error.schedule_id}' already exists"),
    errors.VersionConflict: _version_conflict,
    errors.TooManySchedules: lambda error: Problem(422, [_too_many_schedules(error)]),
    errors.WebhookExists: lambda error: Problem(409, f"Webhook '{error.webhook_id}' already exists"),
    errors.WebhookDisabled: lambda _: Problem(409, "The webhook is disabled: enable it first"),
    errors.TooManyWebhooks: lambda error: Problem(409, f"There are {error.limit} webhooks already: delete one first"),
    errors.TooManySecrets: lambda error: Problem(
        409, f"{error.limit} secrets of the webhook sign already: the oldest ends a day after it was replaced"
    ),
    errors.BadCursor: lambda _: Problem(400, "The cursor is not one that was given out here"),
    errors.ResultNotFound: lambda _: Problem(404, "No result found"),
    errors.SessionNotFinished: lambda _: Problem(400, "Session not finished or idle"),
    errors.RunNotCompleted: lambda _: Problem(400, "Run not completed"),
}


_FIXED: Final[Mapping[type[Exception], Problem]] = {
    Unauthenticated: Problem(401, "An API key or a bearer token is required", {"WWW-Authenticate": "Bearer"}),
    Forbidden: Problem(403, "The credential was rejected, or its role may not do this"),
    Gone: Problem(CLIENT_CLOSED_REQUEST, "Client closed the request"),
}


def _too_many(fault: TooMany) -> Problem:
    wait = str(max(1, ceil(fault.reset)))
    headers = {
        "Retry-After": wait,
        "RateLimit-Limit": str(fault.limit),
        "RateLimit-Remaining": str(fault.remaining),
        "RateLimit-Reset": wait,
    }
    return Problem(429, f"Too many {fault.what}: {fault.limit} a minute are allowed", headers)


def problem_of(fault: Exception | CoordinatorError) -> Problem:
    """Return the answer to an exception of a route or an error of a verb. Raises KeyError for unknown ones."""
    match fault:
        case VerbRefused():
            return problem_of(fault.error)
        case CoordinatorError():
            return _TABLE[type(fault)](fault)
        case Unauthenticated() | Forbidden() | Gone():
            return _FIXED[type(fault)]
        case BadRequest():
            return Problem(400, fault.detail)
        case Missing():
            return Problem(404, fault.detail)
        case Invalid():
            return Problem(422, [_fault_json(entry) for entry in fault.faults])
        case TooLarge():
            return Problem(413, fault.detail)
        case TooMany():
            return _too_many(fault)
        case Unavailable():
            return Problem(503, "Service temporarily unavailable", {"Retry-After": str(fault.retry_after)})
        case HTTPException():
            return Problem(fault.status_code, fault.detail, fault.headers)
        case _:
            raise KeyError(type(fault))


def item_problem(fault: Exception | CoordinatorError) -> dict[str, Any]:
    problem = problem_of(fault)
    return {"code": problem.status, "detail": problem.detail}


def _fault_json(fault: Fault) -> dict[str, Any]:
    return {"type": fault.type, "loc": list(fault.loc), "msg": fault.msg}


def answer_to(fault: Exception) -> Response | None:
    """Return the answer to an exception of a route; None if it is a bug."""
    match fault:
        case EmptyPoll():
            return Response(status_code=204)
        case ReconnectLater():
            # On anything but 200 a browser gives up for good.
            return Response(b"retry: 2000\n\n", 200, {"Cache-Control": "no-cache"}, "text/event-stream")
    try:
        problem = problem_of(fault)
    except KeyError:
        return None
    return Response(encode({"detail": problem.detail}), problem.status, dict(problem.headers or {}), JSON)


def answer_bug() -> Response:
    return Response(encode({"detail": "Internal server error"}), 500, media_type=JSON)
