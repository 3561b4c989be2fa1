from typing import Final

from models.core.errors import CoordinatorError, InvalidTransition, StaleClaim
from models.runs.release import RELEASED, ReleaseRun
from models.runs.reports import Report
from runtime import logs, metrics
from runtime.limited_lines import LimitedLines

_REFUSED: Final = LimitedLines(logs.log(__name__), "report refused")
_STALE: Final = metrics.REPORTS_REFUSED.labels("stale_claim")
_INVALID: Final = metrics.REPORTS_REFUSED.labels("invalid_transition")


def count_refusal(report: Report | ReleaseRun, refusal: CoordinatorError) -> None:
    """Count and log a report that was refused since the run is not, or not like that, the runner's any more."""
    if isinstance(refusal, StaleClaim | InvalidTransition):
        (_STALE if isinstance(refusal, StaleClaim) else _INVALID).inc()
        _REFUSED.write(
            run_id=report.run_id,
            session_id=refusal.session_id,
            runner_id=report.runner_id,
            outcome=RELEASED if isinstance(report, ReleaseRun) else report.outcome.value,
            status=refusal.status,
        )
