from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.base import (
    MAX_TEXT,
    Described,
    Done,
    MayLack,
    NextCursor,
    RunnerId,
    Tags,
    Text,
    Timestamp,
    Validated,
)

LARGEST_COUNT = 2**31 - 1
LONGEST_REASON = 200
AGENT_NAME = "^[a-zA-Z0-9][a-zA-Z0-9_-]*$"
LONGEST_NAME = 60
LONGEST_DESCRIPTION = 4096
MOST_AGENTS = 64


class Executor(BaseModel):
    """Executor that a runner starts; further properties are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    type: Annotated[Text | None, Field(description="Runs ask for `autonomous`")] = None
    command: Text | None = None


class RunnerAgent(Validated):
    """Procedural agent that a runner provides. Runs that name it go to this runner alone."""

    name: Annotated[
        str, Field(min_length=1, max_length=LONGEST_NAME, pattern=AGENT_NAME, description="One runner has a name")
    ]
    command: Annotated[str, Field(min_length=1, max_length=MAX_TEXT, description="Command that the runner executes")]
    description: Annotated[str | None, Field(max_length=LONGEST_DESCRIPTION)] = None
    parameters_schema: Annotated[
        dict[str, Any] | None,
        Field(description="JSON Schema (Draft 7) that the parameters of its runs must satisfy; null: any object"),
    ] = None
    output_schema: Annotated[dict[str, Any] | None, Field(description="JSON Schema (Draft 7) of its results")] = None


class RegisterRunner(Validated):
    """Process that claims and executes runs. The first four properties make its id."""

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
    executor: Executor | None = None
    tags: Annotated[Tags | None, Field(strict=False)] = None
    require_matching_tags: bool | None = None
    agents: Annotated[
        list[RunnerAgent] | None,
        Field(max_length=MOST_AGENTS, description="Agents that the runner provides from now on, instead of its former"),
    ] = None
    capacity: Annotated[int, Field(ge=1, le=LARGEST_COUNT, description="Most runs in hand at once")] | None = None
    instance_id: Annotated[Text | None, Field(description="Id of the process, the same when it reconnects")] = None


class Registration(Described):
    """Answer to a registration."""

    runner_id: RunnerId
    poll_endpoint: Annotated[str, Field(examples=["/runner/runs"])]
    poll_timeout_seconds: Annotated[float, Field(description="Longest wait of a poll by default", examples=[30.0])]
    heartbeat_interval_seconds: Annotated[int, Field(examples=[60])]
    warning: Annotated[MayLack[str], Field(description="Reason for which no run can match")] = None


class Runner(Described):
    """Registered runner, as clients see it."""

    runner_id: RunnerId
    registered_at: Timestamp
    last_heartbeat: Timestamp
    hostname: Annotated[str, Field(examples=["build-7"])]
    project_dir: Annotated[str, Field(examples=["/srv/project"])]
    executor_profile: Annotated[str, Field(examples=["coding"])]
    executor: Annotated[
        dict[str, Any] | None,
        Field(description="As registered", examples=[{"type": "autonomous", "command": "agent"}]),
    ]
    tags: Annotated[list[str], Field(examples=[["gpu"]])]
    require_matching_tags: Annotated[
        bool, Field(description="Takes only runs that demand one of its tags", examples=[False])
    ]
    status: Annotated[Literal["online", "stale"], Field(description="A lost runner is `stale` until it is forgotten")]
    seconds_since_heartbeat: Annotated[float, Field(examples=[1.2])]
    capacity: Annotated[int | None, Field(description="Most runs in hand at once; null: no bound", examples=[4])]
    runs_in_hand: Annotated[int, Field(description="Number of claimed, running and stopping runs", examples=[1])]
    lost: Annotated[bool, Field(description="True once its runs were taken away", examples=[False])]
    draining_since: Annotated[
        Timestamp | None,
        Field(description="An administrator drains it since then: it gets no new run; null: it does", examples=[None]),
    ]
    drain_reason: Annotated[str | None, Field(description="As given with the drain", examples=[None])]


class DrainRunner(Validated):
    """Drain of a runner."""

    reason: Annotated[
        str | None,
        Field(max_length=LONGEST_REASON, description="For people: `why` and the list show it", examples=["new kernel"]),
    ] = None


class RunnerPage(Described):
    """Page of runners that have not left and are not forgotten, in the order of their registration."""

    runners: list[Runner]
    next_cursor: NextCursor = None


class RunnerLeaves(Described):
    """Answer to the removal of a runner."""

    ok: Done
    message: Annotated[str, Field(examples=["Runner deregistered"])]
    initiated_by: Literal["self", "external"]
