from fastapi import APIRouter
from starlette.responses import Response

from app.endpoint import Endpoint
from app.http.problems import accepted
from app.http.serializers import Json, run_explanation_json, runner_explanation_json
from app.openapi.responses import AWAY, NO_RUN, answer, problem
from app.schemas.explanations import RunExplanation, RunnerExplanation
from app.web import Web
from models.core.callers import Caller
from models.core.storable_text import storable
from models.explanations.explain_run import explain_run
from models.explanations.explain_runner import explain_runner

router = APIRouter(tags=["Explanations"], route_class=Endpoint)


@router.get(
    "/runs/{run_id}/why",
    operation_id="explainRun",
    responses={200: answer("Reasons, and the numbers of runners and runs", RunExplanation), **NO_RUN, **AWAY},
)
async def why_run(run_id: str, web: Web, caller: Caller) -> Response:
    """Explain why a run does not run now: one line, the reasons by code, the runners counted, the runs before it.

    Read-only and bounded: 1,000 runners, 1,000 runs before it. While a run is `pending` and nothing blocks it, a claim
    for the polls that wait now would give it out.
    """
    explained = await web.reads.autocommit(explain_run, caller, storable(run_id), limits=web.limits)
    return Json(run_explanation_json(accepted(explained)))


@router.get(
    "/runners/{runner_id}/why-idle",
    operation_id="explainRunner",
    responses={
        200: answer("Reasons, and the ready runs by what they demand", RunnerExplanation),
        404: problem("No such runner", "Runner not found"),
        **AWAY,
    },
)
async def why_idle(runner_id: str, web: Web, caller: Caller) -> Response:
    """Explain why a runner gets no run now: one line, the reasons by code, and the ready runs by what it lacks.

    Read-only and bounded, as the explanation of a run. Callers other than admins see the kind of a demand, not its
    value.
    """
    explained = await web.reads.autocommit(explain_runner, caller, storable(runner_id), limits=web.limits)
    return Json(runner_explanation_json(accepted(explained)))
