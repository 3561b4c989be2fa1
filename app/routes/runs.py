"""Submit, read, await and stop runs (PROTOCOL, Submission)."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.deps import TheCaller, TheWeb, parsed, strict_body
from app.endpoint import Endpoint
from app.http.bodies import Fault, Invalid, TooLarge, first_fault, parse_strict, read_body
from app.http.lenient import encode
from app.http.pagination import seconds, storable_query, wanted
from app.http.problems import BadRequest, Forbidden, accepted, item_problem, of_submission
from app.http.serializers import Json, result_json, run_json, without_nulls
from app.inputs.schemas import SubmitBatch, SubmitBatchItem, SubmitRun
from app.inputs.submission import idempotency_key, new_run
from app.lifecycle.hangup import hang_up
from app.lists.answers import Page, answer_list
from app.openapi import answers, document
from app.writes.attempts import Unavailable
from models.core.errors import CoordinatorError
from models.core.storable_text import storable
from models.runs.lists import RunFilter, list_runs
from models.runs.results import run_result
from models.runs.stop import StopRun
from models.runs.submission import NewRun, Submitted
from models.state.runs import Run, get_run

router = APIRouter(tags=["Runs"], route_class=Endpoint)

MOST_IN_BATCH: Final = 1000
LONGEST_WAIT: Final = 60.0


@router.post("/runs", status_code=201, openapi_extra=document.body(SubmitRun), responses=answers.SUBMITTED)
async def submit_run(request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Submit a run. With `Idempotency-Key` the same body gets 200 with the first answer and creates nothing."""
    key = idempotency_key(request.headers.get("idempotency-key"), ("header", "Idempotency-Key"))
    await web.caller_limits.submit(credential_of(request))
    body = await strict_body(request, web.settings.submission_bytes)
    run, size = new_run(web.settings, caller, body, key=key)
    submitted = await web.verbs.submit.one(run, size)
    if isinstance(submitted, CoordinatorError):
        raise of_submission(submitted)
    return Json(_submitted_json(submitted), 200 if submitted.replayed else 201)


@router.post("/runs/batch", openapi_extra=document.body(SubmitBatch), responses=answers.BATCH)
async def submit_batch(request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Submit up to 1000 runs, each with an optional `idempotency_key`; one bad run never fails the others."""
    document = await parsed(request, parse_strict, await read_body(request, web.settings.batch_bytes))
    bodies = document.value.get("runs") if isinstance(document.value, dict) else None
    if not isinstance(bodies, list) or len(bodies) > MOST_IN_BATCH:
        raise Invalid([Fault("list_type", ("body", "runs"), f"Should be a list of at most {MOST_IN_BATCH} runs")])
    await web.caller_limits.submit(credential_of(request), len(bodies))
    results: list[dict[str, Any]] = [{} for _ in bodies]
    good: list[tuple[int, NewRun, int]] = []
    for place, body in enumerate(bodies):
        try:
            run, size = _batch_item(web, caller, body, place, suspect=document.suspect)
            good.append((place, run, size))
        except (Invalid, TooLarge, BadRequest, Forbidden) as refused:
            results[place] = item_problem(refused)
    outcomes = await web.verbs.submit_bulk.many((run, size) for _, run, size in good)
    if outcomes and all(isinstance(outcome, Unavailable) for outcome in outcomes):
        raise Unavailable
    for (place, _, _), outcome in zip(good, outcomes, strict=True):
        if isinstance(outcome, Unavailable):
            results[place] = item_problem(outcome)
        elif isinstance(outcome, CoordinatorError):
            results[place] = item_problem(of_submission(outcome))
        else:
            results[place] = {"code": 200 if outcome.replayed else 201, **_submitted_json(outcome)}
    return Json({"results": results})


@router.get("/runs", responses=answers.RUNS, openapi_extra=document.query(answers.RUN_FILTERS))
async def read_runs(request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """List runs, newest first. Without `limit` and `cursor` all of them are streamed, up to the list limit."""
    query = request.query_params
    limit, cursor = wanted(request)
    which = RunFilter(
        statuses=tuple(filter(None, (storable_query(status) for status in query.getlist("status")))),
        session_id=storable_query(query.get("session_id")),
        runner_id=storable_query(query.get("runner_id")),
        agent_name=storable_query(query.get("agent_name")),
        labels=_labels(query.getlist("label")),
    )

    async def fetch(after: str | None, most: int) -> Page:
        page = accepted(await web.reads.autocommit(list_runs, caller, which, limit=most, after=after))
        return Page([encode(run_json(run)) for run in page.runs], page.next_cursor, {"feed_cursor": page.feed_cursor})

    return await answer_list(request, "runs", fetch, limit, cursor, web.settings.list_limit)


@router.get("/runs/{run_id}", responses=answers.RUN, openapi_extra=document.query(answers.WAIT))
async def read_run(run_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Return a run. With `wait` the answer comes when it has ended, or after that many seconds."""
    text = request.query_params.get("wait")
    wait = seconds(text, ("query", "wait"), LONGEST_WAIT) if text else 0.0
    run = await _read(web, caller, run_id)
    if wait and run.completed_at is None and not web.drain.draining:
        credential = credential_of(request)
        async with hang_up(request) as client:
            with web.callers.watching(credential, client.leave):
                ended = await web.run_waiters.until_ended(run.run_id, wait, client.gone)
        web.callers.check(credential)
        run = ended or await _read(web, caller, run_id)
    return Json(run_json(run))


@router.get("/runs/{run_id}/result", responses=answers.RUN_RESULT)
async def read_run_result(run_id: str, web: TheWeb, caller: TheCaller) -> Response:
    """Return the newest `result` event of a completed run, never that of another run of its session."""
    return Json(result_json(accepted(await web.reads.read(run_result, caller, storable(run_id)))))


@router.post("/runs/{run_id}/stop", responses=answers.STOPPED)
async def stop_run(run_id: str, web: TheWeb, caller: TheCaller) -> Response:
    """Stop a run, and its session with it when it is the session's active one. Repeating it is harmless."""
    stopped = accepted(await web.verbs.stop_runs.one(StopRun(caller, storable(run_id))))
    return Json(stopped_json(stopped))


def stopped_json(stopped: Any) -> dict[str, Any]:
    """Return the answer to a stop (PROTOCOL, Sessions)."""
    return {"ok": True} | without_nulls(
        {
            "session_id": stopped.session_id,
            "run_id": stopped.run_id,
            "status": stopped.status,
            "message": stopped.message,
        }
    )


async def _read(web: TheWeb, caller: TheCaller, run_id: str) -> Run:
    return accepted(await web.reads.autocommit(get_run, caller, storable(run_id)))


def _batch_item(web: TheWeb, caller: TheCaller, body: Any, place: int, *, suspect: bool) -> tuple[NewRun, int]:
    at = ("body", "runs", place)
    fault = first_fault(body, at) if suspect else None
    if fault is not None:
        raise Invalid([fault])
    given = body.get("idempotency_key") if isinstance(body, dict) else None
    key = idempotency_key(given if isinstance(given, str) else None, (*at, "idempotency_key"))
    return new_run(web.settings, caller, body, model=SubmitBatchItem, key=key, at=at)


def _submitted_json(submitted: Submitted) -> dict[str, Any]:
    return {"run_id": submitted.run_id, "session_id": submitted.session_id, "status": submitted.status}


def _labels(given: Sequence[str]) -> dict[str, str]:
    """Return the labels of `key=value` texts; a run must have all of them. Raises Invalid."""
    labels: dict[str, str] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator:
            raise Invalid([Fault("label", ("query", "label"), "Should be key=value")])
        labels[storable(key)] = storable(value)
    return labels
