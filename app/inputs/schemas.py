"""Define the bodies of requests as pydantic models: validated on receipt and described in /openapi.json."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.http.bodies import Fault, Invalid, Loc

MAX_TEXT = 1024
SESSION_ID = r"[A-Za-z0-9_.:-]{1,128}"
FARTHEST_SECONDS = 315_360_000.0
LONGEST_SECONDS = 604_800
LARGEST_COUNT = 2**31 - 1

Model = TypeVar("Model", bound=BaseModel)
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Tag = Annotated[str, Field(min_length=1, max_length=128)]
Tags = Annotated[tuple[Tag, ...], Field(max_length=64)]


def _absent_if_empty(value: Any) -> Any:
    return None if value == "" else value


def _no_path_segment(value: str | None) -> str | None:
    """Reject ids that clients and proxies resolve as parts of a path: they would address something else."""
    if value in {".", ".."}:
        raise ValueError("Should not be . or ..")
    return value


def _within_ten_years(value: float | datetime) -> float | datetime:
    if isinstance(value, datetime):
        try:
            value = value.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("Timestamp is out of range") from error
        if value > datetime.now(UTC) + timedelta(seconds=FARTHEST_SECONDS):
            raise ValueError("Timestamp is more than ten years away")
    return value


def _utc_by_default(value: Any) -> Any:
    """Take a timestamp without an offset as UTC; reject digits in quotes."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("Should be an ISO 8601 timestamp") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _offset_required(value: Any) -> Any:
    """Require an offset in a future timestamp: a local time taken for UTC would start a run hours early or late."""
    if isinstance(value, str):
        moment = _utc_by_default(value)
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(f"Should have an offset from UTC, like {value}Z or {value}+02:00")
        return moment
    return value


class _Body(BaseModel):
    """Base of all bodies: unknown fields are ignored; types are not coerced (``"5"`` is no number)."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)


class DemandsIn(_Body):
    """Properties that a run demands of a runner: given ones must be equal, all tags must be there."""

    hostname: Text | None = None
    project_dir: Text | None = None
    executor_profile: Text | None = None
    executor_type: Text | None = None
    tags: Annotated[Tags | None, Field(strict=False)] = None


class SubmitRun(_Body):
    """A unit of work for one runner: starts a session, or resumes one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"type": "start_session", "parameters": {"prompt": "Say hello"}},
                {
                    "type": "resume_session",
                    "session_id": "ses_0197f7a0",
                    "parameters": {"prompt": "And now in French"},
                    "priority": 10,
                    "max_attempts": 3,
                },
            ]
        }
    )

    type: Annotated[Literal["start_session", "resume_session"], Field(description="Effect of the run on its session")]
    session_id: Annotated[
        Text | None,
        AfterValidator(_no_path_segment),
        BeforeValidator(_absent_if_empty),
        Field(
            description=f"Optional on start (a name of your own, `{SESSION_ID}`), required on resume; not `.` or `..`"
        ),
    ] = None
    parameters: Annotated[dict[str, Any], Field(description='`{"prompt": "..."}`, unless the agent says otherwise')]
    agent_name: Text | None = None
    project_dir: Text | None = None
    parent_session_id: Annotated[Text | None, AfterValidator(_no_path_segment), BeforeValidator(_absent_if_empty)] = (
        None
    )
    scope: Annotated[dict[str, Any] | None, Field(description="Passed to the runner, inherited by children")] = None
    execution_mode: Literal["sync", "async_poll", "async_callback"] = "sync"
    additional_demands: Annotated[
        DemandsIn | None,
        Field(description="In addition to the demands of every run; on a resume a `hostname` wins over the session's"),
    ] = None
    affinity: Annotated[
        bool,
        Field(description="On a resume: false drops the session's `hostname` and `executor_profile` from its demands"),
    ] = True
    priority: Annotated[int, Field(ge=-100, le=100, description="Higher is claimed first")] = 0
    not_before: Annotated[
        Annotated[float, Field(ge=0, le=FARTHEST_SECONDS, allow_inf_nan=False)] | AwareDatetime | None,
        AfterValidator(lambda value: value if value is None else _within_ten_years(value)),
        BeforeValidator(_offset_required),
        Field(description="Earliest claim: a timestamp with its offset, or seconds from now"),
    ] = None
    max_attempts: Annotated[int, Field(ge=1, le=100, description="Starts allowed when runners are lost")] = 1
    run_timeout_seconds: Annotated[int, Field(ge=1, le=LONGEST_SECONDS)] | None = None
    no_match_timeout_seconds: Annotated[int, Field(ge=1, le=LONGEST_SECONDS)] | None = None
    labels: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=128)]] | None,
        Field(max_length=32, description="Labels by which runs can be listed"),
    ] = None


class SubmitBatchItem(SubmitRun):
    """A run of a batch."""

    idempotency_key: Annotated[
        Annotated[str, Field(min_length=1, max_length=255)] | None, Field(description="Like the header Idempotency-Key")
    ] = None


class SubmitBatch(_Body):
    """Up to 1000 runs; one bad run never fails the others."""

    runs: Annotated[list[SubmitBatchItem], Field(max_length=1000)]


class ExecutorIn(BaseModel):
    """Executor that a runner starts; further properties are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    type: Annotated[Text | None, Field(description="Runs ask for `autonomous`")] = None
    command: Text | None = None


class RegisterRunner(_Body):
    """A process that claims and executes runs. The first four properties make its id."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "hostname": "build-7",
                    "project_dir": "/srv/project",
                    "executor_profile": "coding",
                    "executor": {"type": "autonomous", "command": "agent"},
                    "tags": ["gpu"],
                    "capacity": 4,
                    "instance_id": "0197f7a0c3d1",
                }
            ]
        }
    )

    hostname: Text
    project_dir: Text
    executor_profile: Text
    executor: ExecutorIn | None = None
    tags: Annotated[Tags | None, Field(strict=False)] = None
    require_matching_tags: bool | None = None
    agents: Annotated[list[Any] | None, Field(description="Blueprints that the runner provides")] = None
    capacity: Annotated[int, Field(ge=1, le=LARGEST_COUNT, description="Most runs in hand at once")] | None = None
    instance_id: Annotated[Text | None, Field(description="Id of the process, the same when it reconnects")] = None


class BindSession(_Body):
    """The place where a session lives from now on; its resumes go there."""

    executor_session_id: Text
    hostname: Text
    executor_profile: Text
    project_dir: Text | None = None


class PatchSession(_Body):
    """Changes of a session; null leaves a field unchanged."""

    project_dir: Text | None = None
    agent_name: Text | None = None
    last_resumed_at: Annotated[AwareDatetime | None, BeforeValidator(_utc_by_default)] = None
    executor_session_id: Text | None = None
    executor_profile: Text | None = None
    hostname: Text | None = None


def checked(model: type[Model], value: Any, at: Loc = ("body",)) -> Model:
    """Return the model made of a parsed body. Raises Invalid with place and type of each fault (at most 100), never the
    input.
    """
    try:
        return model.model_validate(value)
    except ValidationError as refused:
        faults = refused.errors(include_url=False, include_context=False, include_input=False)
        raise Invalid([Fault(fault["type"], (*at, *fault["loc"]), fault["msg"]) for fault in faults[:100]]) from None
