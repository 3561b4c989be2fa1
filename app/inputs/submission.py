import hashlib
import re
from datetime import datetime
from typing import Any, Final

import orjson

from app.http.bodies import Fault, Invalid, Loc, TooLarge, checked
from app.http.problems import BadRequest, Forbidden
from app.inputs.parameters import check_parameters
from app.schemas.retries import Retry
from app.schemas.runs import SESSION_ID, AdditionalDemands, SubmitRun
from models.claims.matching import Demands
from models.core.callers import Caller, Role
from models.core.ids import new_id
from models.core.retries import Backoff, RetryPolicy
from models.core.statuses import ExecutionMode, RunType
from models.runs.prompts import is_prompt
from models.runs.submission import NewRun
from runtime.settings import Settings

_SESSION_ID: Final = re.compile(SESSION_ID)
_SESSION_ID_TEXT: Final = "Should be 1 to 128 letters, digits or any of _ . : -"
_NO_DEMANDS: Final = Demands()


def new_run(
    settings: Settings,
    caller: Caller,
    body: Any,
    *,
    model: type[SubmitRun] = SubmitRun,
    key: str | None = None,
    at: Loc = ("body",),
    traceparent: str | None = None,
) -> tuple[NewRun, int]:
    """Return the run of a parsed body, and its size in bytes; its ids are generated here, before the first attempt.

    Raises Invalid (422), TooLarge (413), BadRequest (400) or Forbidden (403).
    """
    asked = checked(model, body, at)
    if asked.type == "resume_session":
        if asked.session_id is None:
            raise BadRequest("session_id is required for resume_session")
    elif caller.role is Role.RUNNER and asked.parent_session_id is None:
        # A run started by a runner belongs to the tree that the runner holds, and so to that tree's owner.
        raise Forbidden
    elif asked.session_id is not None and not _SESSION_ID.fullmatch(asked.session_id):
        raise Invalid([Fault("string_pattern_mismatch", (*at, "session_id"), _SESSION_ID_TEXT)])
    parameters = orjson.dumps(asked.parameters)
    if len(parameters) > settings.parameters_bytes:
        raise TooLarge(f"parameters are larger than {settings.parameters_bytes} bytes")
    # A runner may provide an agent of this name, which takes other parameters; the verb knows.
    prompt_only = is_prompt(asked.parameters)
    if not prompt_only and (asked.type == "resume_session" or not asked.agent_name):
        check_parameters(asked.parameters)
    scope = None if asked.scope is None else orjson.dumps(asked.scope)
    moment = asked.not_before
    run = NewRun(
        run_id=new_id("run_"),
        session_id=asked.session_id,
        new_session_id=new_id("ses_"),
        caller=caller,
        type=RunType(asked.type),
        parameters=parameters.decode(),
        agent_name=asked.agent_name or None,
        project_dir=asked.project_dir,
        parent_session_id=asked.parent_session_id,
        scope=None if scope is None else scope.decode(),
        execution_mode=ExecutionMode(asked.execution_mode),
        additional_demands=demands_of(asked.additional_demands),
        affinity=asked.affinity,
        priority=asked.priority,
        not_before=moment if isinstance(moment, datetime) else None,
        delay_seconds=None if moment is None or isinstance(moment, datetime) else float(moment),
        max_attempts=asked.max_attempts,
        run_timeout_seconds=asked.run_timeout_seconds or default_run_timeout(settings),
        no_match_timeout_seconds=asked.no_match_timeout_seconds or default_no_match_timeout(settings),
        labels=asked.labels or {},
        idempotency_key=key,
        body_hash=None if key is None else body_hash(body),
        traceparent=traceparent,
        prompt_only=prompt_only,
        retry=None if asked.retry is None else retry_of(asked.retry),
    )
    return run, len(parameters) + len(scope or b"") + 512


def idempotency_key(value: str | None, loc: Loc) -> str | None:
    if not value:
        return None
    if len(value) > 255 or not value.isprintable():
        raise Invalid([Fault("idempotency_key", loc, "Should be at most 255 printable characters")])
    return value


def demands_of(asked: AdditionalDemands | None) -> Demands:
    if asked is None:
        return _NO_DEMANDS
    # Take an empty text as no demand, as earlier coordinators did, whose clients are deployed.
    return Demands(
        hostname=asked.hostname or None,
        project_dir=asked.project_dir or None,
        executor_profile=asked.executor_profile or None,
        executor_type=asked.executor_type or None,
        tags=tuple(asked.tags or ()),
    )


def retry_of(asked: Retry) -> RetryPolicy:
    on = None if asked.on is None else tuple(asked.on)
    return RetryPolicy(asked.max_attempts, Backoff(**asked.backoff.model_dump()), on, tuple(asked.not_on or ()))


def body_hash(body: Any) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


def default_run_timeout(settings: Settings) -> int | None:
    seconds = settings.default_run_timeout_seconds
    return None if seconds is None else max(1, int(seconds))


def default_no_match_timeout(settings: Settings) -> int:
    return int(settings.no_match_timeout_seconds) or 1
