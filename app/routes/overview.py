from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.endpoint import Endpoint
from app.http.bodies import Fault, Invalid
from app.http.overview_json import queues_json, series_json
from app.http.query import Choice, Moment, strict_query
from app.http.serializers import Json
from app.inputs.run_search import OWNER, owner_of
from app.openapi.document import query
from app.openapi.responses import AWAY, INVALID, answer
from app.schemas.overview import Queues, Series
from app.web import Web
from models.core.callers import Caller
from models.overview.queues import read_queues
from models.overview.rollup import HOUR, KEPT_SECONDS, MINUTE
from models.overview.series import MOST_POINTS, STEPS, By, Metric, read_series

router = APIRouter(tags=["Overview"], route_class=Endpoint)

SINCE: Final = Moment("since", "Begin of the window (default: a day ago; by the hour 30 days)")
UNTIL: Final = Moment("until", "End of the window (default: now)")
METRIC: Final = Choice("metric", "What to draw", among=tuple(Metric), required=True)
BY: Final = Choice("by", "One curve for each; `status` for `ended` only (default: the sum)", among=tuple(By))
STEP: Final = Choice("step", "Seconds of a period", among=tuple(str(step) for step in STEPS))
DAY: Final = timedelta(days=1)


@router.get("/queues", operation_id="listQueues", responses={200: answer("Queues", Queues), **INVALID, **AWAY})
async def read_all_queues(request: Request, web: Web, caller: Caller) -> Response:
    """Return the unfinished runs by their demands, with the runners that match and the rate of claims."""
    strict_query(request, ())
    return Json(queues_json(await web.reads.read(read_queues, caller, limits=web.limits)))


@router.get(
    "/stats/series",
    operation_id="readSeries",
    openapi_extra=query(METRIC, BY, STEP, SINCE, UNTIL, OWNER),
    responses={200: answer("Curves", Series), **INVALID, **AWAY},
)
async def read_curves(request: Request, web: Web, caller: Caller) -> Response:
    """Return curves of the history: runs submitted or ended, seconds from readiness to claim and from start to end.

    Periods below an hour are kept for 48 hours, hours for 400 days.
    """
    given = strict_query(request, (METRIC, BY, STEP, SINCE, UNTIL, OWNER))
    metric, by = METRIC.of(given), BY.of(given)
    if metric is None:
        raise Invalid([Fault("missing", ("query", "metric"), "Field required")])
    if by == By.STATUS and metric != Metric.ENDED:
        raise Invalid([Fault("filter", ("query", "by"), "Should be profile or agent unless metric=ended")])
    step = int(STEP.of(given) or MINUTE)
    now = datetime.now(UTC)
    until = UNTIL.of(given) or now
    since = SINCE.of(given) or until - (DAY if step < HOUR else 30 * DAY)
    _check_window(since, until, step, now)
    series = await web.reads.read(
        read_series,
        caller,
        Metric(metric),
        None if by is None else By(by),
        step=step,
        since=since,
        until=until,
        owner=owner_of(given, caller),
    )
    return Json(series_json(series, metric, by, step))


def _check_window(since: datetime, until: datetime, step: int, now: datetime) -> None:
    if since >= until:
        raise Invalid([Fault("filter", ("query", "since"), "Should be before `until`")])
    if (until - since).total_seconds() / step > MOST_POINTS:
        raise Invalid([Fault("filter", ("query", "step"), f"Should be larger: at most {MOST_POINTS} periods")])
    if step < HOUR and (now - since).total_seconds() > KEPT_SECONDS[MINUTE]:
        raise Invalid([Fault("filter", ("query", "step"), f"Should be {HOUR} or more: minutes are kept for 48 hours")])
