"""Serve runners: register, poll, report, heartbeat (PROTOCOL, Runners)."""

from functools import partial
from typing import Any, Final, TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.auth.callers import UNAUTHENTICATED_ADMIN
from app.deps import TheCaller, TheWeb, lenient_object, parse_object, parsed, strict_body
from app.endpoint import Endpoint
from app.http.bodies import Fault, Gone, Invalid, read_body
from app.http.lenient import encode
from app.http.pagination import seconds, whole
from app.http.problems import BadRequest, VerbRefused, accepted, item_problem
from app.http.serializers import OK, Json, claimed_run_json
from app.inputs.reports import give_back_of, report_of, report_of_list, runner_id_of
from app.inputs.schemas import RegisterRunner, checked
from app.lifecycle.hangup import hang_up
from app.openapi import answers, document
from app.writes.attempts import Unavailable
from models.core.callers import Caller
from models.core.errors import CoordinatorError, RunnerNotRegistered
from models.core.statuses import Outcome
from models.core.storable_text import storable
from models.runners.heartbeat import Touch
from models.runners.register import Registration
from models.runs.release import ReleaseRun
from models.runs.report import Report, Reported
from models.sessions.bind import ReportSessionStatus

Result = TypeVar("Result")

router = APIRouter(prefix="/runner", tags=["Runners"], route_class=Endpoint)

MOST_RUNS: Final = 100
LONGEST_POLL: Final = 600.0
MOST_REPORTS: Final = 1000
MOST_HELD: Final = 10_000
ENDINGS: Final = frozenset({"finished", "failed", "stopped"})


@router.get("/runs", responses=answers.POLLED, openapi_extra=document.query(answers.POLL))
async def poll(request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Poll for runs. Held until there are runs or orders, or the time is up (204); never 5xx while Postgres is away."""
    query = request.query_params
    runner_id = query.get("runner_id")
    if not runner_id:
        raise Invalid([Fault("missing", ("query", "runner_id"), "Field required")])
    most, wait = query.get("max"), query.get("wait")
    wanted = whole(most, ("query", "max"), 0, MOST_RUNS) if most else 1
    patience = seconds(wait, ("query", "wait"), LONGEST_POLL) if wait else web.settings.poll_timeout_seconds
    runner_id = storable(runner_id)
    web.heartbeats.seen([(runner_id, caller.scope)])
    credential = credential_of(request)
    async with hang_up(request) as client:
        with web.callers.watching(credential, client.leave):
            try:
                answer = await web.polls.hold(runner_id, wanted, patience, client, caller.scope)
            except Gone:
                web.callers.check(credential)
                raise
    if answer is None:
        return Response(status_code=204)
    if answer.runs:
        runs = [claimed_run_json(run) for run in answer.runs]
        return Json({"runs": runs} if most else {"run": runs[0]})
    return Json({"stop_sessions": answer.stop_sessions} if answer.stop_sessions else {"deregistered": True})


@router.post("/register", openapi_extra=document.body(RegisterRunner), responses=answers.REGISTERED)
async def register(request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Register a process of a runner. The same four properties make the same runner; 409 while another process of it is
    online.
    """
    body = checked(RegisterRunner, await strict_body(request, web.settings.submission_bytes))
    executor = body.executor
    registration = Registration(
        hostname=body.hostname,
        project_dir=body.project_dir,
        executor_profile=body.executor_profile,
        tags=body.tags or (),
        executor=None if executor is None else encode(executor.model_dump(exclude_unset=True)).decode(),
        executor_type=executor.type if executor else None,
        command=executor.command if executor else None,
        require_matching_tags=bool(body.require_matching_tags),
        agents=None if body.agents is None else encode(body.agents).decode(),
        capacity=body.capacity,
        instance_id=body.instance_id,
        # While authentication is off a registration has no owner, and any later runner may act for it.
        owner=None if credential_of(request) is UNAUTHENTICATED_ADMIN else caller.owner or "",
        subject=caller.scope,
    )
    registered = accepted(await web.verbs.register.one(registration))
    answer: dict[str, Any] = {
        "runner_id": registered.runner_id,
        "poll_endpoint": "/runner/runs",
        "poll_timeout_seconds": _plain(web.settings.poll_timeout_seconds),
        "heartbeat_interval_seconds": registered.told_interval,
    }
    if executor is None or not executor.type:
        answer["warning"] = "Every run demands an executor type; without executor.type this runner gets none"
    return Json(answer)


@router.post("/heartbeat", responses=answers.HEARD, openapi_extra=document.fields(answers.BEAT))
async def heartbeat(request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Report that the runner is alive and, with `holding`, which runs it has; the answer names those that it lost."""
    body = await lenient_object(request, web.settings.body_bytes)
    holding = body.get("holding")
    if isinstance(holding, list) and len(holding) > MOST_HELD:
        raise Invalid([Fault("too_long", ("body", "holding"), f"Should have at most {MOST_HELD} items")])
    runs = (
        tuple(storable(run_id) for run_id in holding if isinstance(run_id, str)) if isinstance(holding, list) else None
    )
    admin = None if caller.scope is not None or credential_of(request) is UNAUTHENTICATED_ADMIN else caller.owner or ""
    touch = Touch(runner_id_of(body), runs, caller.scope, admin)
    heard = accepted(await web.retry_until(lambda: web.verbs.touch.one(touch)))
    return Json({"ok": True, "not_yours": heard.not_yours})


@router.post("/runs/report", responses=answers.REPORTED_MANY, openapi_extra=document.fields(answers.REPORTS))
async def report_many(request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Report several runs at once, in order; a run may appear twice (started, then completed)."""
    body = await lenient_object(request, web.settings.body_bytes, fields_below=2)
    runner_id, given = runner_id_of(body), body.get("reports")
    if not isinstance(given, list) or len(given) > MOST_REPORTS:
        raise Invalid([Fault("list_type", ("body", "reports"), f"Should be a list of at most {MOST_REPORTS} reports")])
    web.heartbeats.seen([(runner_id, caller.scope)])
    results: list[dict[str, Any]] = [{} for _ in given]
    reports: dict[int, Report] = {}
    given_back: dict[int, ReleaseRun] = {}
    for place, item in enumerate(given):
        try:
            report = report_of_list(item, runner_id, ("body", "reports", place), caller)
        except Invalid as refused:
            results[place] = item_problem(refused)
            continue
        if isinstance(report, ReleaseRun):
            given_back[place] = report
        else:
            reports[place] = report
    outcomes = await web.retry_until(lambda: _all_reported(web, list(reports.values())))
    # Releases go last, whatever their places: no report of a run may follow its release.
    outcomes += [await web.retry_until(partial(web.verbs.give_back.one, release)) for release in given_back.values()]
    for place, outcome in zip((*reports, *given_back), outcomes, strict=True):
        if isinstance(outcome, RunnerNotRegistered):
            raise VerbRefused(outcome)
        results[place] = item_problem(outcome) if isinstance(outcome, CoordinatorError | Unavailable) else {"code": 200}
    web.run_waiters.hint(report.run_id for report in reports.values())
    web.run_waiters.hint(release.run_id for release in given_back.values())
    return Json({"results": results})


@router.post("/runs/{run_id}/started", responses=answers.REPORTED, openapi_extra=document.fields(answers.REPORT))
async def started(run_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Report that a run has started: run and session are `running` from now on."""
    return await _report(web, caller, request, run_id, Outcome.STARTED)


@router.post("/runs/{run_id}/completed", responses=answers.REPORTED, openapi_extra=document.fields(answers.REPORT))
async def completed(run_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Report that a run is completed; `session_status` says whether a process stays (`idle`)."""
    return await _report(web, caller, request, run_id, Outcome.COMPLETED)


@router.post("/runs/{run_id}/failed", responses=answers.REPORTED, openapi_extra=document.fields(answers.REPORT))
async def failed(run_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Report that a run failed; `error` says why."""
    return await _report(web, caller, request, run_id, Outcome.FAILED)


@router.post("/runs/{run_id}/stopped", responses=answers.REPORTED, openapi_extra=document.fields(answers.REPORT))
async def stopped(run_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Report that a run was stopped."""
    return await _report(web, caller, request, run_id, Outcome.STOPPED)


@router.post("/runs/{run_id}/released", responses=answers.GIVEN_BACK, openapi_extra=document.fields(answers.GIVE_BACK))
async def released(run_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Release a run that its runner cannot carry out. No attempt is counted; after ten in a row the run fails."""
    body = await lenient_object(request, web.settings.body_bytes)
    item = give_back_of(body, run_id, runner_id_of(body), ("body",), caller)
    web.heartbeats.seen([(item.runner_id, item.subject)])
    accepted(await web.retry_until(lambda: web.verbs.give_back.one(item)))
    web.run_waiters.hint([item.run_id])
    return Json(OK)


@router.post(
    "/sessions/{session_id}/status", responses=answers.SESSION_REPORTED, openapi_extra=document.fields(answers.ENDED)
)
async def session_ended(session_id: str, request: Request, web: TheWeb, caller: TheCaller) -> Response:
    """Report that the session's live process has ended; without effect when the process is another runner's, or a run
    is active.
    """
    body = await lenient_object(request, web.settings.body_bytes)
    runner_id, status = runner_id_of(body), body.get("status")
    if not isinstance(status, str) or status not in ENDINGS:
        raise BadRequest("Status must be 'finished', 'failed', or 'stopped'")
    web.heartbeats.seen([(runner_id, caller.scope)])
    item = ReportSessionStatus(runner_id, storable(session_id), status, caller)
    accepted(await web.retry_until(lambda: web.verbs.session_status.one(item)))
    return Json(OK)


async def _report(web: TheWeb, caller: Caller, request: Request, run_id: str, outcome: Outcome) -> Response:
    raw = await read_body(request, web.settings.body_bytes)
    body = await parsed(request, parse_object, raw)
    report = report_of(body, run_id, runner_id_of(body), outcome, caller)
    web.heartbeats.seen([(report.runner_id, report.subject)])
    accepted(await web.retry_until(lambda: web.verbs.report.one(report, len(raw))))
    web.run_waiters.hint([report.run_id])
    return Json(OK)


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number


async def _all_reported(web: TheWeb, reports: list[Report]) -> list[Reported | CoordinatorError | Unavailable]:
    outcomes = await web.verbs.report_bulk.many((report, len(report.error or "") + 256) for report in reports)
    # Repeating the ones that took effect is harmless, so the whole list is sent again.
    if any(isinstance(outcome, Unavailable) for outcome in outcomes):
        raise Unavailable
    return outcomes
