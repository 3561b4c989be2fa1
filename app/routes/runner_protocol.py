from functools import partial
from typing import Any, Final, TypeVar

from fastapi import APIRouter
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from app.auth.authenticate import credential_of
from app.auth.callers import UNAUTHENTICATED_ADMIN
from app.endpoint import Endpoint
from app.http.bodies import Fault, Gone, Invalid, checked, read_body, strict_body
from app.http.lenient import encode, lenient_object, parse_object
from app.http.problems import BadRequest, VerbRefused, accepted, item_problem
from app.http.query import POLL_WAIT, Text, Whole
from app.http.serializers import OK, Json, claimed_run_json
from app.inputs.registration import agents_of
from app.inputs.reports import release_of, report_of, report_of_list, runner_id_of
from app.lifecycle.hangup import hang_up
from app.openapi.document import body, query
from app.openapi.responses import (
    AWAY,
    INVALID,
    NO_RUN,
    NO_RUNNER,
    NO_SESSION,
    STALE,
    TOO_LARGE,
    Responses,
    answer,
    problem,
)
from app.schemas import reports, runners
from app.schemas.polls import PollAnswer
from app.web import Web
from app.writes.attempts import Unavailable
from models.claims.matching import PROCEDURAL
from models.core.callers import Caller
from models.core.errors import CoordinatorError, RunnerNotRegistered
from models.core.statuses import Outcome
from models.core.storable_text import storable
from models.runners.heartbeat import Touch, Touched
from models.runners.registration import Registration
from models.runs.release import ReleaseRun
from models.runs.report import Reported
from models.runs.reports import Report
from models.sessions.bind import ReportSessionStatus
from runtime.logs import name_request

Result = TypeVar("Result")

router = APIRouter(prefix="/runner", tags=["Runners"], route_class=Endpoint)

RUNNER_ID: Final = Text("runner_id", "Id of the polling runner", required=True)
MOST_RUNS: Final = Whole("max", "Most runs to claim (0: only stops); the answer is then `runs`", least=0, most=100)
REPORTED: Final[Responses] = {
    200: answer("The report took effect, now or before", reports.Accepted),
    **NO_RUNNER,
    **NO_RUN,
    409: problem("The claim is over, or the transition is not allowed; nothing was changed", STALE),
    **AWAY,
}


@router.get(
    "/runs",
    operation_id="pollRuns",
    openapi_extra=query(RUNNER_ID, MOST_RUNS, POLL_WAIT),
    responses={
        200: answer(
            "The first that applies: sessions to stop, scripts to fetch and to remove, order to leave, runs (`runs` "
            "when `max` was given)",
            PollAnswer,
        ),
        204: {"description": "No run and no order"},
        **NO_RUNNER,
        **INVALID,
    },
)
async def poll_runs(request: Request, web: Web, caller: Caller) -> Response:
    """Poll for runs. Held until there are runs or orders, or the time is up (204); never 5xx while Postgres is away."""
    given = request.query_params
    runner_id = RUNNER_ID.of(given)
    if runner_id is None:
        raise Invalid([Fault("missing", ("query", RUNNER_ID.name), "Field required")])
    name_request(runner_id=runner_id)
    most, wait = MOST_RUNS.of(given), POLL_WAIT.of(given)
    wanted = 1 if most is None else most
    patience = web.settings.poll_timeout_seconds if wait is None else wait
    web.heartbeats.seen([(runner_id, caller.subject)])
    credential = credential_of(request)
    with hang_up(request) as client, web.callers.watching(credential, client.leave):
        try:
            found = await web.polls.hold(runner_id, wanted, patience, client, caller.subject)
        except Gone:
            web.callers.check(credential)
            raise
    if found is None:
        return Response(status_code=204)
    if found.runs:
        runs = [claimed_run_json(run) for run in found.runs]
        return Json({"run": runs[0]} if most is None else {"runs": runs})
    if found.stop_sessions:
        return Json({"stop_sessions": found.stop_sessions})
    if found.scripts is None:
        return Json({"deregistered": True})
    shown = {"sync_scripts": found.scripts.fetch, "remove_scripts": found.scripts.remove}
    written = BackgroundTask(web.polls.confirm_scripts, found.scripts)
    return Json(shown, background=written)


@router.post(
    "/register",
    operation_id="registerRunner",
    openapi_extra=body(runners.RegisterRunner),
    responses={
        200: answer("Registered; `warning` tells when no run can match", runners.Registration),
        409: problem(
            "A process of this owner with the same four properties is online (`duplicate_runner`), or another runner "
            "provides an agent of this name (`agent_name_collision`, with `agent_name` and `existing_runner_id`)",
            {
                "error": "duplicate_runner",
                "message": "Runner with identity (build-7, /srv/project, coding) is already registered and online as "
                "lnch_0a1b2c3d4e5f",
                "runner_id": "lnch_0a1b2c3d4e5f",
                "hostname": "build-7",
                "project_dir": "/srv/project",
                "executor_profile": "coding",
            },
        ),
        **TOO_LARGE,
        **INVALID,
        **AWAY,
    },
)
async def register_runner(request: Request, web: Web, caller: Caller) -> Response:
    """Register a process of a runner. The same four properties make the same runner; 409 while another process of it is
    online, and while another runner provides an agent of one of its names: then nothing was changed.
    """
    given = checked(runners.RegisterRunner, await strict_body(request, web.parser, web.settings.submission_bytes))
    executor = given.executor
    registration = Registration(
        hostname=given.hostname,
        project_dir=given.project_dir,
        executor_profile=given.executor_profile,
        tags=given.tags or (),
        executor=None if executor is None else encode(executor.model_dump(exclude_unset=True)).decode(),
        executor_type=executor.type if executor else None,
        command=executor.command if executor else None,
        require_matching_tags=bool(given.require_matching_tags),
        agents=await agents_of(given, web.parser),
        capacity=given.capacity,
        instance_id=given.instance_id,
        # While authentication is off a registration has no owner, and any later runner may act for it.
        owner=None if credential_of(request) is UNAUTHENTICATED_ADMIN else caller.owner or "",
        subject=caller.subject,
    )
    registered = accepted(await web.verbs.register.one(registration))
    shown: dict[str, Any] = {
        "runner_id": registered.runner_id,
        "poll_endpoint": "/runner/runs",
        "poll_timeout_seconds": _plain(web.settings.poll_timeout_seconds),
        "heartbeat_interval_seconds": registered.told_interval,
    }
    if executor is None or not executor.type:
        shown["warning"] = "Every run demands an executor type; without executor.type this runner gets none"
    elif given.agents and executor.type != PROCEDURAL:
        shown["warning"] = "Runs of its agents demand the executor type procedural, which this runner does not offer"
    return Json(shown)


@router.post(
    "/heartbeat",
    operation_id="sendHeartbeat",
    openapi_extra=body(reports.Heartbeat),
    responses={
        200: answer("Heartbeat recorded; the runner must end the runs in `not_yours`", reports.HeartbeatAnswer),
        **NO_RUNNER,
        **AWAY,
    },
)
async def record_heartbeat(request: Request, web: Web, caller: Caller) -> Response:
    """Report that the runner is alive and, with `holding`, which runs it has; the answer names those that it lost."""
    given = await lenient_object(request, web.parser, web.settings.body_bytes)
    holding = given.get("holding")
    if isinstance(holding, list) and len(holding) > reports.MOST_HELD:
        raise Invalid([Fault("too_long", ("body", "holding"), f"Should have at most {reports.MOST_HELD} items")])
    runs = (
        tuple(storable(run_id) for run_id in holding if isinstance(run_id, str)) if isinstance(holding, list) else None
    )
    admin = (
        None if caller.subject is not None or credential_of(request) is UNAUTHENTICATED_ADMIN else caller.owner or ""
    )
    touch = Touch(runner_id_of(given), runs, caller.subject, admin)
    heard: Touched | CoordinatorError = await web.retry_until(lambda: web.verbs.touch.submit(touch))
    return Json({"ok": True, "not_yours": accepted(heard).not_yours})


@router.post(
    "/runs/report",
    operation_id="reportRuns",
    openapi_extra=body(reports.ReportRuns),
    responses={200: answer("One result per report, in order", reports.ReportResult), **NO_RUNNER, **INVALID, **AWAY},
)
async def report_runs(request: Request, web: Web, caller: Caller) -> Response:
    """Report several runs at once, in order; a run may appear twice (started, then completed)."""
    given = await lenient_object(request, web.parser, web.settings.body_bytes, fields_below=2)
    runner_id, items = runner_id_of(given), given.get("reports")
    if not isinstance(items, list) or len(items) > reports.MOST_REPORTS:
        message = f"Should be a list of at most {reports.MOST_REPORTS} reports"
        raise Invalid([Fault("list_type", ("body", "reports"), message)])
    web.heartbeats.seen([(runner_id, caller.subject)])
    results: list[dict[str, Any]] = [{} for _ in items]
    reported: dict[int, Report] = {}
    releases: dict[int, ReleaseRun] = {}
    for place, item in enumerate(items):
        try:
            report = report_of_list(item, runner_id, ("body", "reports", place), caller)
        except Invalid as refused:
            results[place] = item_problem(refused)
            continue
        if isinstance(report, ReleaseRun):
            releases[place] = report
        else:
            reported[place] = report
    outcomes = await web.retry_until(lambda: _all_reported(web, list(reported.values())))
    # Releases go last, whatever their places: no report of a run may follow its release.
    outcomes += [
        await web.retry_until(partial(web.verbs.release_runs.submit, release)) for release in releases.values()
    ]
    for place, outcome in zip((*reported, *releases), outcomes, strict=True):
        if isinstance(outcome, RunnerNotRegistered):
            raise VerbRefused(outcome)
        results[place] = item_problem(outcome) if isinstance(outcome, CoordinatorError | Unavailable) else {"code": 200}
    web.run_waiters.hint(report.run_id for report in reported.values())
    web.run_waiters.hint(release.run_id for release in releases.values())
    return Json({"results": results})


@router.post(
    "/runs/{run_id}/started",
    operation_id="reportRunStarted",
    openapi_extra=body(reports.ReportRun),
    responses=REPORTED,
)
async def report_started(run_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Report that a run has started: run and session are `running` from now on."""
    return await _report(web, caller, request, run_id, Outcome.STARTED)


@router.post(
    "/runs/{run_id}/completed",
    operation_id="reportRunCompleted",
    openapi_extra=body(reports.ReportRun),
    responses=REPORTED,
)
async def report_completed(run_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Report that a run is completed; `session_status` says whether a process stays (`idle`)."""
    return await _report(web, caller, request, run_id, Outcome.COMPLETED)


@router.post(
    "/runs/{run_id}/failed",
    operation_id="reportRunFailed",
    openapi_extra=body(reports.ReportRun),
    responses=REPORTED,
)
async def report_failed(run_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Report that a run failed; `error` says why."""
    return await _report(web, caller, request, run_id, Outcome.FAILED)


@router.post(
    "/runs/{run_id}/stopped",
    operation_id="reportRunStopped",
    openapi_extra=body(reports.ReportRun),
    responses=REPORTED,
)
async def report_stopped(run_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Report that a run was stopped."""
    return await _report(web, caller, request, run_id, Outcome.STOPPED)


@router.post(
    "/runs/{run_id}/released",
    operation_id="releaseRun",
    openapi_extra=body(reports.ReleaseRun),
    responses={**REPORTED, **INVALID},
)
async def release_run(run_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Release a run that its runner cannot carry out. No attempt is counted; after ten in a row the run fails."""
    given = await lenient_object(request, web.parser, web.settings.body_bytes)
    item = release_of(given, run_id, runner_id_of(given), ("body",), caller)
    web.heartbeats.seen([(item.runner_id, item.subject)])
    accepted(await web.retry_until(lambda: web.verbs.release_runs.submit(item)))
    web.run_waiters.hint([item.run_id])
    return Json(OK)


@router.post(
    "/sessions/{session_id}/status",
    operation_id="reportSessionStatus",
    openapi_extra=body(reports.ReportSessionStatus),
    responses={
        200: answer("Recorded", reports.Accepted),
        400: problem("Unknown status", "Status must be 'finished', 'failed', or 'stopped'"),
        **NO_RUNNER,
        **NO_SESSION,
        **AWAY,
    },
)
async def report_session_status(session_id: str, request: Request, web: Web, caller: Caller) -> Response:
    """Report that the session's live process has ended; without effect when the process is another runner's, or a run
    is active.
    """
    given = await lenient_object(request, web.parser, web.settings.body_bytes)
    runner_id, status = runner_id_of(given), given.get("status")
    if not isinstance(status, str) or status not in reports.ENDINGS:
        raise BadRequest("Status must be 'finished', 'failed', or 'stopped'")
    web.heartbeats.seen([(runner_id, caller.subject)])
    item = ReportSessionStatus(runner_id, storable(session_id), status, caller)
    accepted(await web.retry_until(lambda: web.verbs.session_status.submit(item)))
    return Json(OK)


async def _report(web: Web, caller: Caller, request: Request, run_id: str, outcome: Outcome) -> Response:
    raw = await read_body(request, web.settings.body_bytes)
    given = await web.parser.run(parse_object, raw)
    report = report_of(given, run_id, runner_id_of(given), outcome, caller)
    web.heartbeats.seen([(report.runner_id, report.subject)])
    accepted(await web.retry_until(lambda: web.verbs.report.submit(report, len(raw))))
    web.run_waiters.hint([report.run_id])
    return Json(OK)


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number


async def _all_reported(web: Web, reports: list[Report]) -> list[Reported | CoordinatorError | Unavailable]:
    outcomes = await web.verbs.report_bulk.many((report, len(report.error or "") + 256) for report in reports)
    # Repeating the ones that took effect is harmless, so the whole list is sent again.
    if any(isinstance(outcome, Unavailable) for outcome in outcomes):
        raise Unavailable
    return outcomes
