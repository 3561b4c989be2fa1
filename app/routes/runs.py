from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.auth.caller_limits import caller_of
from app.endpoint import Endpoint
from app.http.bodies import Fault, Invalid, TooLarge, first_fault, parse_strict, read_body, strict_body
from app.http.headers import header_of
from app.http.lenient import encode
from app.http.overview_json import counts_json
from app.http.problems import BadRequest, Forbidden, accepted, item_problem, of_submission
from app.http.query import CURSOR, LIMIT, Moment, Seconds, strict_query
from app.http.serializers import Json, result_json, run_json, stopped_json, submitted_json, summary_json, timeline_json
from app.http.trace_context import traceparent_of
from app.inputs.run_search import AGENT_NAME, OWN, OWNER, PLAIN, SEARCH, owner_of, run_filter, run_search
from app.inputs.submission import idempotency_key, new_run
from app.lifecycle.hangup import hang_up
from app.lists.answers import Page, answer_list, feed_cursor_headers, has_cursor_in_body
from app.openapi.document import body, query
from app.openapi.responses import AWAY, BAD_CURSOR, INVALID, NO_RUN, TOO_LARGE, Responses, answer, list_answer, problem
from app.schemas.overview import RunCounts
from app.schemas.runs import (
    MOST_IN_BATCH,
    BatchResult,
    Result,
    Run,
    RunPage,
    RunSummaryPage,
    RunTimeline,
    Stopped,
    SubmitBatch,
    SubmitBatchItem,
    SubmitRun,
    Submitted,
)
from app.web import Web
from app.writes.attempts import Unavailable
from models.core.callers import Caller
from models.core.errors import CoordinatorError
from models.core.storable_text import storable
from models.feed.run_timeline import run_timeline
from models.overview.counts import count_runs
from models.runs.lists import list_runs
from models.runs.results import run_result
from models.runs.search import FoundRuns, RunSearch, search_runs
from models.runs.search_sql import RunSummary as RunSummaryRow
from models.runs.stop import StopRun
from models.runs.submission import NewRun
from models.runs.submission import Submitted as SubmittedRow
from models.state.runs import Run as RunRow
from models.state.runs import get_run, iso
from runtime.logs import name_request

router = APIRouter(tags=["Runs"], route_class=Endpoint)

SEARCH_LIMIT: Final = 100
SINCE: Final = Moment("since", "Begin of the window (default: a day ago)")
WAIT: Final = Seconds("wait", "Seconds to wait for the end of the run", most=60.0)

STOPPED: Final[Responses] = {
    200: answer("Status after the stop; repeating is harmless", Stopped),
    404: problem("No such run or session", "Session not found"),
    **AWAY,
}


@router.post(
    "/runs",
    operation_id="submitRun",
    status_code=201,
    openapi_extra=body(SubmitRun),
    responses={
        201: answer("Accepted", Submitted),
        200: answer("The first answer to this Idempotency-Key", Submitted),
        400: problem(
            "Parameters or parent cannot be used, the session's agent cannot be resumed, or an agent of the registry "
            "cannot be resolved (as 422 if a capability is missing or a server comes twice)",
            "session_id is required for resume_session",
        ),
        404: problem("Session or parent session is unknown", "Session 'X' not found"),
        409: problem("The session exists, or the key came with another body", "Session 'X' already exists"),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def submit_run(request: Request, web: Web, caller: Caller) -> Response:
    """Submit a run. With `Idempotency-Key` the same body gets 200 with the first answer and creates nothing.

    `traceparent` (W3C Trace Context) names the trace that the run continues; a malformed one is ignored.
    """
    key = idempotency_key(header_of(request.scope, b"idempotency-key"), ("header", "Idempotency-Key"))
    await web.caller_limits.submit(credential_of(request))
    given = await strict_body(request, web.parser, web.settings.submission_bytes)
    run, size = new_run(web.settings, caller, given, key=key, traceparent=traceparent_of(request.scope))
    checks = web.parameter_checks
    submitted = await checks.submit(checks.presume(run), lambda item: web.verbs.submit.one(item, size))
    if isinstance(submitted, CoordinatorError):
        raise of_submission(submitted)
    name_request(run_id=submitted.run_id, session_id=submitted.session_id)
    return Json(submitted_json(submitted), 200 if submitted.replayed else 201)


@router.post(
    "/runs/batch",
    operation_id="submitRuns",
    openapi_extra=body(SubmitBatch),
    responses={200: answer("One result per run, in order", BatchResult), **TOO_LARGE, **INVALID, **AWAY},
)
async def submit_runs(request: Request, web: Web, caller: Caller) -> Response:
    """Submit up to 1000 runs, each with an optional `idempotency_key`; one bad run never fails the others.

    All continue the trace of the header `traceparent`.
    """
    document = await web.parser.run(parse_strict, await read_body(request, web.settings.batch_bytes))
    bodies = document.value.get("runs") if isinstance(document.value, dict) else None
    if not isinstance(bodies, list) or len(bodies) > MOST_IN_BATCH:
        raise Invalid([Fault("list_type", ("body", "runs"), f"Should be a list of at most {MOST_IN_BATCH} runs")])
    await web.caller_limits.submit(credential_of(request), len(bodies))
    results: list[dict[str, Any]] = [{} for _ in bodies]
    good: dict[int, NewRun] = {}
    sizes: dict[str, int] = {}
    traceparent = traceparent_of(request.scope)
    for place, given in enumerate(bodies):
        try:
            run, size = _batch_item(web, caller, given, place, suspect=document.suspect, traceparent=traceparent)
            good[place], sizes[run.run_id] = run, size
        except (Invalid, TooLarge, BadRequest, Forbidden) as refused:
            results[place] = item_problem(refused)

    async def write(runs: Sequence[NewRun]) -> list[SubmittedRow | CoordinatorError | Unavailable]:
        return await web.verbs.submit_bulk.many((run, sizes[run.run_id]) for run in runs)

    outcomes = await web.parameter_checks.submit_all(list(good.values()), write)
    if outcomes and all(isinstance(outcome, Unavailable) for outcome in outcomes):
        raise Unavailable
    for place, outcome in zip(good, outcomes, strict=True):
        if isinstance(outcome, Unavailable | BadRequest):
            results[place] = item_problem(outcome)
        elif isinstance(outcome, CoordinatorError):
            results[place] = item_problem(of_submission(outcome))
        else:
            results[place] = {"code": 200 if outcome.replayed else 201, **submitted_json(outcome)}
    return Json({"results": results})


@router.get(
    "/runs",
    operation_id="listRuns",
    openapi_extra=query(*PLAIN, *SEARCH),
    responses={
        200: list_answer(
            "Page, or all runs; with `fields=summary` without their large values", RunPage | RunSummaryPage
        ),
        **BAD_CURSOR,
        **INVALID,
        **AWAY,
    },
)
async def read_runs(request: Request, web: Web, caller: Caller) -> Response:
    """List runs, newest first. Without `limit` and `cursor` all of them are streamed, up to the list limit.

    With any parameter from `not_status` on it is a search: one page (100 runs unless `limit` says otherwise), in which
    unknown and contradictory parameters are refused. Filters that no index serves are checked for 200,000 runs or
    30 ms; then the page ends with `searched_until`, and `next_cursor` goes on from there.
    """
    given = request.query_params
    limit, cursor = LIMIT.of(given), CURSOR.of(given)
    search = run_search(request, caller)
    if search is not None:
        return await _search(request, web, caller, search, limit or SEARCH_LIMIT, cursor)
    which = run_filter(given)

    async def fetch(after: str | None, most: int) -> Page:
        page = accepted(await web.reads.autocommit(list_runs, caller, which, limit=most, after=after))
        return Page([encode(run_json(run)) for run in page.runs], page.next_cursor, page.feed_cursor)

    return await answer_list(request, "runs", fetch, limit, cursor, web.settings.list_limit, own=OWN)


@router.get(
    "/runs/counts",
    operation_id="countRuns",
    openapi_extra=query(SINCE, AGENT_NAME, OWNER),
    responses={200: answer("Numbers of runs", RunCounts), **INVALID, **AWAY},
)
async def read_counts(request: Request, web: Web, caller: Caller) -> Response:
    """Count unfinished runs exactly, and the runs that ended in a window by the counts of the history."""
    given = strict_query(request, (SINCE, AGENT_NAME, OWNER))
    since, owner = SINCE.of(given), owner_of(given, caller)
    if since is not None and since > datetime.now(UTC):
        raise Invalid([Fault("filter", ("query", "since"), "Should not be in the future")])
    counts = await web.reads.read(count_runs, caller, since=since, agent=AGENT_NAME.of(given), owner=owner)
    return Json(counts_json(counts))


@router.get(
    "/runs/{run_id}",
    operation_id="getRun",
    openapi_extra=query(WAIT),
    responses={200: answer("The run", Run), **NO_RUN, **INVALID, **AWAY},
)
async def read_run(run_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Return a run. With `wait` the answer comes when it has ended, or after that many seconds."""
    wait = WAIT.of(request.query_params)
    run = await _read(web, caller, run_id)
    if wait and run.completed_at is None and not web.drain.draining:
        credential = credential_of(request)
        with hang_up(request) as client, web.callers.watching(credential, client.leave):
            ended = await web.run_waiters.until_ended(run.run_id, wait, client.gone)
        web.callers.check(credential)
        run = ended or await _read(web, caller, run_id)
    return Json(run_json(run))


@router.get(
    "/runs/{run_id}/timeline",
    operation_id="getRunTimeline",
    responses={200: answer("Attempts, oldest first", RunTimeline), **NO_RUN, **AWAY},
)
async def read_run_timeline(run_id: str, web: Web, caller: Caller) -> Response:
    """Return every attempt of a run with its steps, for as long as events are kept."""
    return Json(timeline_json(accepted(await web.reads.read(run_timeline, caller, storable(run_id)))))


@router.get(
    "/runs/{run_id}/result",
    operation_id="getRunResult",
    responses={
        200: answer("Newest `result` event of the run", Result),
        400: problem("The run is not completed", "Run not completed"),
        404: problem("No such run, or no result of it is kept", "No result found"),
        **AWAY,
    },
)
async def read_run_result(run_id: str, web: Web, caller: Caller) -> Response:
    """Return the newest `result` event of a completed run, never that of another run of its session."""
    return Json(result_json(accepted(await web.reads.read(run_result, caller, storable(run_id)))))


@router.post("/runs/{run_id}/stop", operation_id="stopRun", responses=STOPPED)
async def stop_run(run_id: str, web: Web, caller: Caller) -> Response:
    """Stop a run, and its session with it when it is the session's active one. Repeating it is harmless."""
    stopped = accepted(await web.verbs.stop_runs.one(StopRun(caller, storable(run_id))))
    return Json(stopped_json(stopped))


async def _search(
    request: Request, web: Web, caller: Caller, which: RunSearch, limit: int, cursor: str | None
) -> Response:
    async def fetch() -> FoundRuns:
        return accepted(await web.reads.autocommit(search_runs, caller, which, limit=limit, after=cursor))

    page = await web.lists.make(caller_of(credential_of(request)), fetch)
    shown: dict[str, Any] = {
        "runs": [summary_json(run) if isinstance(run, RunSummaryRow) else run_json(run) for run in page.runs],
        "feed_cursor": page.feed_cursor if has_cursor_in_body(request.query_params, (*OWN, *SEARCH)) else None,
        "next_cursor": page.next_cursor,
        "searched_until": iso(page.searched_until),
    }
    given = {name: value for name, value in shown.items() if value is not None}
    return Json(given, headers=feed_cursor_headers(page.feed_cursor))


async def _read(web: Web, caller: Caller, run_id: str) -> RunRow:
    return accepted(await web.reads.autocommit(get_run, caller, storable(run_id)))


def _batch_item(
    web: Web, caller: Caller, given: Any, place: int, *, suspect: bool, traceparent: str | None
) -> tuple[NewRun, int]:
    at = ("body", "runs", place)
    fault = first_fault(given, at) if suspect else None
    if fault is not None:
        raise Invalid([fault])
    text = given.get("idempotency_key") if isinstance(given, dict) else None
    key = idempotency_key(text if isinstance(text, str) else None, (*at, "idempotency_key"))
    return new_run(web.settings, caller, given, model=SubmitBatchItem, key=key, at=at, traceparent=traceparent)
