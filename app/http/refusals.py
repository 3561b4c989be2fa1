from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.http.problems import TooMany, VerbRefused
from models.core.errors import DuplicateRunner, RunnerNotRegistered, StaleClaim
from runtime.limited_lines import LimitedLines
from runtime.logs import log

_REFUSED: Final = LimitedLines(log(__name__), "request refused")


def log_refusal(fault: Exception, scope: Scope) -> None:
    """Log a refusal that an operator may have to act on: of a runner that is not registered or not alone, of a caller
    beyond a limit, of a bind of a run that the runner lost. Refused reports are logged for each item.
    """
    match fault:
        case TooMany():
            _write(scope, f"more than {fault.limit} {fault.what} a minute", caller=fault.caller)
        case VerbRefused(error=RunnerNotRegistered()):
            _write(scope, "runner not registered")
        case VerbRefused(error=DuplicateRunner(runner_id=runner_id)):
            _write(scope, "another process of the runner is online", runner_id=runner_id)
        case VerbRefused(error=StaleClaim(run_id=run_id, status=status)) if scope["path"].endswith("/bind"):
            _write(scope, "the run is not held by this claim any more", run_id=run_id, status=status)
        case HTTPException(status_code=429):
            _write(scope, fault.detail)


def _write(scope: Scope, reason: str, **about: str) -> None:
    _REFUSED.write(reason=reason, method=scope["method"], route=scope["route"].path, **about)
