"""Names by which runs of tasks are told apart, and their parameters, with a coordinator that knows no tasks.

A run of the task `resize` demands the tag `task:resize`; a task runner offers the tags of its tasks and takes only runs
that demand one of its tags. The parameters are the prompt, as JSON: the coordinator takes no others.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypedDict, Unpack

from coordinator_client.requests import RunRequest
from coordinator_client.retry_types import Retry
from coordinator_client.types import AdditionalDemands, Run

TASK_TAG: Final = "task:"
# Prefix of a task runner's own tags. A runner with the plain tag `gpu` would be given runs that demand `gpu` alone,
# which are no tasks.
RUNNER_TAG: Final = "task-runner:"
MOST_TAG_LENGTH: Final = 128


class TaskOptions(TypedDict, total=False):
    """Fields of `RunRequest` that `task_request` takes."""

    type: Literal["start_session", "resume_session"]
    session_id: str | None
    project_dir: str | None
    parent_session_id: str | None
    scope: dict[str, Any] | None
    execution_mode: Literal["sync", "async_poll", "async_callback"] | None
    additional_demands: AdditionalDemands | None
    affinity: bool | None
    priority: int | None
    not_before: datetime | float | None
    max_attempts: int | None
    run_timeout_seconds: int | None
    no_match_timeout_seconds: int | None
    labels: dict[str, str]
    retry: Retry | None


def task_request(
    task: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    tags: Sequence[str] = (),
    **options: Unpack[TaskOptions],
) -> RunRequest:
    """Return the request for a run of a task, for `submit` and `submit_batch`.

    Args:
        task: Name of the task.
        parameters: Object of JSON values that the function gets.
        tags: Tags that the task runner must have.
        **options: Fields of `RunRequest`.

    Raises:
        ValueError: A name is empty or too long, or a parameter is no JSON value.
        TypeError: The same, for a value of another type.
    """
    demands: AdditionalDemands = {**(options.get("additional_demands") or {})}
    demands["tags"] = [task_tag(task), *map(runner_tag, tags), *(demands.get("tags") or ())]
    options["additional_demands"] = demands
    # No agent of a runner can have this name; a plain one could be that of an agent, whose runner the run would demand.
    return RunRequest(parameters={"prompt": _text(parameters or {})}, agent_name=task_tag(task), **options)


def task_tag(task: str) -> str:
    return _checked(TASK_TAG, task)


def runner_tag(tag: str) -> str:
    return _checked(RUNNER_TAG, tag)


def task_of(run: Run) -> str:
    """Return the name of the run's task. Raises ValueError unless it demands one."""
    names = [tag.removeprefix(TASK_TAG) for tag in run["demands"].get("tags", ()) if tag.startswith(TASK_TAG)]
    if len(names) == 1:
        return names[0]
    if names:
        raise ValueError(f"The run demands {len(names)} tasks ({', '.join(names)}): demand one")
    raise ValueError(f"The run demands no task: demand the tag `{TASK_TAG}NAME` of one, not a tag of the runner alone")


def parameters_of(run: Run) -> dict[str, Any]:
    """Return the parameters: the object that the prompt is as JSON, else the parameters as they are."""
    try:
        found = json.loads(run["parameters"]["prompt"])
    except (KeyError, TypeError, ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else dict(run["parameters"])


def _checked(prefix: str, name: str) -> str:
    tag = prefix + name
    if not name or len(tag) > MOST_TAG_LENGTH:
        raise ValueError(f"a name must have 1 to {MOST_TAG_LENGTH - len(prefix)} characters: {name!r}")
    return tag


def _text(parameters: Mapping[str, Any]) -> str:
    text = json.dumps(dict(parameters), ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate: only its escape can be sent.
        return json.dumps(dict(parameters), allow_nan=False)
    return text
