from collections.abc import Mapping
from typing import Any

from app.http.bodies import Fault, Invalid, Loc
from app.http.lenient import encode
from app.schemas.reports import STATUSES_AFTER_RUN
from models.core.callers import ADMIN, Caller
from models.core.retries import LARGEST_EXIT_CODE, LONGEST_CLASS, LONGEST_PAUSE_SECONDS
from models.core.statuses import Outcome
from models.core.storable_text import storable
from models.runs.release import RELEASED, ReleaseRun
from models.runs.reports import Report


def report_of(body: Mapping[str, Any], run_id: str, runner_id: str, outcome: Outcome, caller: Caller = ADMIN) -> Report:
    session_status = body.get("session_status")
    error_class = _text(body.get("error_class"))
    return Report(
        run_id=storable(run_id),
        runner_id=runner_id,
        outcome=outcome,
        claim_token=_text(body.get("claim_token")),
        error=_text(body.get("error")),
        session_status=session_status
        if isinstance(session_status, str) and session_status in STATUSES_AFTER_RUN
        else None,
        signal=_text(body.get("signal")),
        caller=caller,
        exit_code=_exit_code(body.get("exit_code")),
        error_class=None if error_class is None else error_class[:LONGEST_CLASS],
        retryable=body.get("retryable") is not False,
        retry_after=_seconds(body.get("retry_after")),
    )


def release_of(body: Mapping[str, Any], run_id: str, runner_id: str, at: Loc, caller: Caller = ADMIN) -> ReleaseRun:
    """Return the release of a body. Raises Invalid without the claim's token, since it could hit another claim."""
    token = _text(body.get("claim_token"))
    if token is None:
        raise Invalid([Fault("missing", (*at, "claim_token"), "Field required")])
    return ReleaseRun(storable(run_id), runner_id, token, _text(body.get("reason")), caller)


def report_of_list(body: Any, runner_id: str, at: Loc, caller: Caller = ADMIN) -> Report | ReleaseRun:
    if not isinstance(body, dict):
        raise Invalid([Fault("dict_type", at, "Should be an object")])
    run_id = body.get("run_id")
    if not isinstance(run_id, str):
        raise Invalid([Fault("string_type", (*at, "run_id"), "Should be text")])
    outcome = body.get("outcome")
    if outcome == RELEASED:
        return release_of(body, run_id, runner_id, at, caller)
    if outcome not in tuple(Outcome):
        known = ", ".join((*Outcome, RELEASED))
        raise Invalid([Fault("literal_error", (*at, "outcome"), f"Should be one of {known}")])
    return report_of(body, run_id, runner_id, Outcome(outcome), caller)


def runner_id_of(body: Mapping[str, Any]) -> str:
    runner_id = body.get("runner_id")
    if not isinstance(runner_id, str):
        raise Invalid(
            [Fault("string_type" if "runner_id" in body else "missing", ("body", "runner_id"), "Should be text")]
        )
    return storable(runner_id)


def _exit_code(value: Any) -> int | None:
    is_code = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_EXIT_CODE
    return value if is_code else None


def _seconds(value: Any) -> float | None:
    """Return the seconds, a week at most; None for what is no number of seconds: the policy's own pause counts then."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        return None
    return float(min(value, LONGEST_PAUSE_SECONDS))


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return storable(value) if isinstance(value, str) else encode(value).decode()
