"""Replays of runs, and actions on many runs at once."""

import json
from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.auth.caller_limits import caller_of
from app.endpoint import Endpoint
from app.http.bodies import checked, strict_body
from app.http.headers import header_of
from app.http.problems import accepted, of_submission
from app.http.query import CURSOR, LIMIT, strict_query
from app.http.serializers import Json, stored, submitted_json, summary_json
from app.http.trace_context import traceparent_of
from app.inputs.bulk import DryRun, bulk_request, replay_changes
from app.inputs.submission import body_hash, idempotency_key
from app.openapi.document import body, query
from app.openapi.responses import AWAY, BAD_CURSOR, INVALID, TOO_LARGE, Responses, answer, problem
from app.schemas.bulk import Bulk, BulkPage, BulkPreview, BulkStarted, ReplayRun, StartBulk
from app.schemas.runs import Submitted
from app.web import Web
from models.bulk.jobs import Bulk as BulkRow
from models.bulk.jobs import NewBulk, StopBulk, get_bulk, list_bulks, new_bulk_id, token_of
from models.bulk.jobs import StartBulk as Start
from models.bulk.match import Matched, match_runs
from models.bulk.stored_search import write_search
from models.core.callers import Caller
from models.core.errors import CoordinatorError
from models.core.ids import new_id
from models.core.storable_text import storable
from models.runs.prompts import is_prompt
from models.runs.replay import Replay
from models.state.runs import iso

router = APIRouter(tags=["Runs"], route_class=Endpoint)

USUAL_LIMIT: Final = 50
NO_BULK: Final[Responses] = {404: problem("No such bulk", "Bulk not found")}


@router.post(
    "/runs/{run_id}/replay",
    operation_id="replayRun",
    status_code=201,
    openapi_extra=body(ReplayRun, required=False),
    responses={
        201: answer("Accepted", Submitted),
        200: answer("The first answer to this Idempotency-Key", Submitted),
        400: problem("A changed parent or parameters cannot be used", "Parent session 'X' is a descendant"),
        404: problem("No such run, or no such parent session", "Run not found"),
        409: problem(
            "The run has not ended, or the key came with another request",
            {
                "error": "run_not_ended",
                "status": "running",
                "message": "The run is running; it can be replayed once it has ended",
            },
        ),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def replay_run(run_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Submit an ended run again, in a new session: as it was submitted, but for the `changes`.

    Without other parameters, demands or another agent it demands what the run demanded, whatever became of its agent.
    `not_before` and a resume's `hostname` and `executor_profile` are not copied. The replay belongs to the run's owner.
    """
    await web.caller_limits.submit(credential_of(request))
    given = await strict_body(request, web.parser, web.settings.submission_bytes, instead_of_none=b"{}")
    asked = checked(ReplayRun, given)
    key, at = header_of(request.scope, b"idempotency-key"), ("header", "Idempotency-Key")
    if key is None:
        key, at = asked.idempotency_key, ("body", "idempotency_key")
    key = idempotency_key(key, at)
    changes = replay_changes(web.settings, asked.changes, ("body", "changes"))
    hashed = None if key is None else body_hash({"replay_of": run_id, "changes": given.get("changes")})
    trace = traceparent_of(request.scope)
    parameters = None if asked.changes is None else asked.changes.parameters
    prompt_only = parameters is None or is_prompt(parameters)
    item = Replay(caller, storable(run_id), new_id("run_"), new_id("ses_"), changes, key, hashed, trace, prompt_only)
    size = len(changes.get("parameters", ""))
    submitted = await web.parameter_checks.submit(item, lambda checked: web.verbs.replay.one(checked, size))
    if isinstance(submitted, CoordinatorError):
        raise of_submission(submitted)
    return Json(submitted_json(submitted), 200 if submitted.replayed else 201)


@router.post(
    "/bulk",
    operation_id="startBulk",
    openapi_extra=body(StartBulk),
    responses={
        200: answer("With `dry_run`: the runs that match, and the token with which to act on them", BulkPreview),
        202: answer("With a token: started, now or by an earlier request with this token", BulkStarted),
        400: problem("Changed parameters cannot be used", {"error": "parameter_validation_failed"}),
        404: problem(
            "The token is unknown or has expired",
            "No dry run of yours has this token, or it has expired: ask again with dry_run",
        ),
        409: problem("Too many bulks", "20 bulks of yours run already: wait for one to end, or stop one"),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def start_bulk(request: Request, web: Web, caller: Caller) -> Response:
    """Stop, replay, hold or release many runs, or delete their sessions: first a dry run, then its token alone.

    The token acts on the runs that the dry run matched, as long as they still match; others are skipped with a reason.
    """
    given = await strict_body(request, web.parser, web.settings.submission_bytes)
    asked = bulk_request(web.settings, caller, given)
    if isinstance(asked, DryRun):
        return await _prepare(request, web, caller, asked)
    bulk = accepted(await web.verbs.start_bulk.one(Start(caller, asked)))
    return Json({"bulk_id": bulk.bulk_id}, 202)


@router.get(
    "/bulk",
    operation_id="listBulks",
    openapi_extra=query(LIMIT, CURSOR),
    responses={200: answer("Page, newest first", BulkPage), **BAD_CURSOR, **INVALID, **AWAY},
)
async def read_bulks(request: Request, web: Web, caller: Caller) -> Response:
    """List bulks that were started, newest first: the caller's own, for an admin all. Kept for 30 days."""
    given = strict_query(request, (LIMIT, CURSOR))
    limit = LIMIT.of(given) or USUAL_LIMIT
    page = accepted(await web.reads.autocommit(list_bulks, caller, limit=limit, after=CURSOR.of(given)))
    shown: dict[str, Any] = {"bulks": [_bulk_json(bulk) for bulk in page.bulks]}
    return Json(shown if page.next_cursor is None else shown | {"next_cursor": page.next_cursor})


@router.get("/bulk/{bulk_id}", operation_id="getBulk", responses={200: answer("The bulk", Bulk), **NO_BULK, **AWAY})
async def read_bulk(bulk_id: str, web: Web, caller: Caller) -> Response:
    """Return how far a bulk has come."""
    return Json(_bulk_json(accepted(await web.reads.autocommit(get_bulk, caller, storable(bulk_id)))))


@router.post(
    "/bulk/{bulk_id}/stop",
    operation_id="stopBulk",
    responses={200: answer("The bulk as it is now; repeating is harmless", Bulk), **NO_BULK, **AWAY},
)
async def stop_bulk(bulk_id: str, web: Web, caller: Caller) -> Response:
    """Stop a bulk once the chunk of runs in progress is done. What it has done stays."""
    return Json(_bulk_json(accepted(await web.verbs.stop_bulk.one(StopBulk(caller, storable(bulk_id))))))


async def _prepare(request: Request, web: Web, caller: Caller, asked: DryRun) -> Response:
    async def fetch() -> Matched:
        return await web.reads.autocommit(_match, caller, asked)

    matched = await web.lists.make(caller_of(credential_of(request)), fetch)
    new = NewBulk(
        new_bulk_id(),
        caller,
        asked.action,
        matched.chunks,
        asked.given,
        None if asked.given is None else write_search(asked.which),
        None if asked.changes is None else json.dumps(asked.changes),
    )
    expires_at = accepted(await web.verbs.prepare_bulk.one(new, 48 * matched.number))
    return Json(
        {
            "matches": matched.number,
            "exact": matched.exact,
            "searched_until": iso(matched.searched_until),
            "sample": [summary_json(run) for run in matched.sample],
            "token": token_of(new.bulk_id),
            "expires_at": iso(expires_at),
        }
    )


def _match(connection: Connection, caller: Caller, asked: DryRun) -> Matched:
    return match_runs(connection, caller, asked.which, action=asked.action, limit=asked.limit)


def _bulk_json(bulk: BulkRow) -> dict[str, Any]:
    return {
        "bulk_id": bulk.bulk_id,
        "action": bulk.action,
        "state": bulk.state,
        "total": bulk.total,
        "done": bulk.done,
        "changed": bulk.changed,
        "skipped": bulk.skipped,
        "errors": bulk.errors,
        "created_at": iso(bulk.created_at),
        "ended_at": iso(bulk.ended_at),
        "created_by": bulk.created_by,
        "filter": stored(bulk.filter),
    }
