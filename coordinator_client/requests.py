from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from coordinator_client.retry_types import Retry
from coordinator_client.types import AdditionalDemands


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Run to submit (PROTOCOL, Runs). Fields that are None are not sent: the coordinator's defaults apply.

    Attributes:
        parameters: Input of the run: `{"prompt": "..."}`.
        type: `start_session` begins a session, `resume_session` continues the one of `session_id`.
        session_id: Id of the session, 1 to 128 characters of `A-Za-z0-9_.:-`; default for a start: a new one.
        agent_name: Name of the agent; default for a resume: the session's.
        project_dir: Project directory; default for a resume: the session's.
        parent_session_id: Session that started this one.
        scope: Object that the runner gets with the run; merged into the parent session's.
        execution_mode: How the parent session is told of the end: `async_callback` by a callback, else not at all.
        additional_demands: Properties that the runner must have.
        affinity: False resumes the session on any runner, wherever it lives.
        priority: -100 to 100; higher goes first.
        not_before: Earliest start: a time, or seconds from now.
        max_attempts: Starts at most, 1 to 100; used up by lost runners and run timeouts only.
        run_timeout_seconds: Time limit from the start; then the run is stopped, and retried or failed.
        no_match_timeout_seconds: Time without a live runner that satisfies the demands after which the run fails.
        labels: Up to 32 texts to filter lists by.
        retry: Failures reported by its runner that are tried again, such as `{"max_attempts": 5}`; default: none.
    """

    parameters: dict[str, Any]
    type: Literal["start_session", "resume_session"] = "start_session"
    session_id: str | None = None
    agent_name: str | None = None
    project_dir: str | None = None
    parent_session_id: str | None = None
    scope: dict[str, Any] | None = None
    execution_mode: Literal["sync", "async_poll", "async_callback"] | None = None
    additional_demands: AdditionalDemands | None = None
    affinity: bool | None = None
    priority: int | None = None
    not_before: datetime | float | None = None
    max_attempts: int | None = None
    run_timeout_seconds: int | None = None
    no_match_timeout_seconds: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    retry: Retry | None = None

    def body(self) -> dict[str, Any]:
        body = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        if isinstance(self.not_before, datetime):
            body["not_before"] = self.not_before.astimezone().isoformat()
        if not self.labels:
            del body["labels"]
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Registration of a runner. Hostname, project directory, profile and command decide its id, the same every time.

    Attributes:
        hostname: Machine of the runner.
        project_dir: Directory in which it works.
        executor_profile: Name of its configuration.
        executor_type: Kind of runner; runs demand `autonomous`.
        command: Command that it executes.
        tags: Words that runs may demand.
        require_matching_tags: Take only runs that demand one of the tags.
        capacity: Runs that it holds at most; None: no bound.
        instance_id: Name of this process, new at each start.
    """

    hostname: str
    project_dir: str
    executor_profile: str
    executor_type: str
    command: str
    tags: tuple[str, ...] = ()
    require_matching_tags: bool = False
    capacity: int | None = None
    instance_id: str | None = None

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "hostname": self.hostname,
            "project_dir": self.project_dir,
            "executor_profile": self.executor_profile,
            "executor": {"type": self.executor_type, "command": self.command},
            "tags": list(self.tags),
            "require_matching_tags": self.require_matching_tags,
        }
        if self.capacity is not None:
            body["capacity"] = self.capacity
        if self.instance_id is not None:
            body["instance_id"] = self.instance_id
        return body
