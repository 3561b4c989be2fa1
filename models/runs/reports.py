from dataclasses import dataclass

from models.core.callers import ADMIN, Caller
from models.core.retries import Failure
from models.core.statuses import Outcome
from models.core.storable_text import storable_error


@dataclass(frozen=True, slots=True)
class Report:
    """Report of a runner about a run. ``session_status``: idle or finished, the state of the session after a completed
    run.

    ``caller`` must have made the runner's registration unless it is an admin. ``exit_code``, ``error_class``,
    ``retryable`` and ``retry_after`` (seconds) of a failure are for the run's retry policy.
    """

    run_id: str
    runner_id: str
    outcome: Outcome
    claim_token: str | None = None
    error: str | None = None
    session_status: str | None = None
    signal: str | int | None = None
    caller: Caller = ADMIN
    exit_code: int | None = None
    error_class: str | None = None
    retryable: bool = True
    retry_after: float | None = None

    @property
    def subject(self) -> str | None:
        return self.caller.subject


def error_of_run(report: Report) -> str | None:
    return storable_error(report.error) if report.outcome is Outcome.FAILED else None


def failure_of(report: Report) -> Failure:
    return Failure(error_of_run(report), report.exit_code, report.error_class, report.retryable, report.retry_after)
