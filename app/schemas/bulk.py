from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from app.schemas.base import Described, NextCursor, RunId, Text, Timestamp, Validated
from app.schemas.holds import LONGEST_NOTE
from app.schemas.runs import (
    AdditionalDemands,
    Labels,
    MaxAttempts,
    Mode,
    NotBefore,
    Parameters,
    ParentSession,
    Priority,
    RunSummary,
    Scope,
    TimeLimit,
)
from models.core.statuses import BulkAction

MOST_RUNS = 50_000
MOST_IDS = 1_000

BulkId = Annotated[str, Field(examples=["blk_0197f7a0c3d17c1e8f2a4b6c8d0e1f2d"])]
Token = Annotated[
    str,
    Field(
        max_length=128,
        description="Token of the dry run, for its caller and 15 minutes",
        examples=["blt_0197f7a0c3d17c1e8f2a4b6c8d0e1f2d"],
    ),
]
FilterValue = str | int | bool | list[str | int]


class ReplayChanges(Validated):
    """Fields of the submission to replace, each as a whole; null removes one. All others are copied."""

    model_config = ConfigDict(extra="forbid")

    parameters: Parameters | None = None
    agent_name: Text | None = None
    project_dir: Text | None = None
    parent_session_id: ParentSession = None
    scope: Scope = None
    execution_mode: Mode | None = None
    additional_demands: AdditionalDemands | None = None
    priority: Priority | None = None
    not_before: NotBefore = None
    max_attempts: MaxAttempts | None = None
    run_timeout_seconds: TimeLimit | None = None
    no_match_timeout_seconds: TimeLimit | None = None
    labels: Labels = None


class ReplayRun(Validated):
    """Changes to make in a replay."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"changes": {"priority": 10, "labels": {"retry": "1"}}}]}
    )

    changes: ReplayChanges | None = None
    idempotency_key: Annotated[
        Annotated[str, Field(min_length=1, max_length=255)] | None, Field(description="Like the header Idempotency-Key")
    ] = None


class StartBulk(Validated):
    """Dry run of an action on many runs, or with its token the action itself."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"action": "stop", "filter": {"status": ["pending"], "label": ["team=blue"]}, "dry_run": True}]
        },
    )

    action: Literal["stop", "delete", "replay", "hold", "release"] | None = None
    filter: Annotated[
        dict[str, FilterValue] | None, Field(description="Query of `GET /runs` by its names, without paging")
    ] = None
    run_ids: Annotated[
        list[Annotated[str, Field(max_length=256)]] | None,
        Field(min_length=1, max_length=MOST_IDS, description="Runs in place of a filter"),
    ] = None
    limit: Annotated[
        int | None, Field(ge=1, le=MOST_RUNS, description=f"Most runs to act on (default {MOST_RUNS})")
    ] = None
    changes: Annotated[ReplayChanges | None, Field(description="For `replay`")] = None
    note: Annotated[
        Annotated[str, Field(max_length=LONGEST_NOTE)] | None, Field(description="For `hold`: text that `why` shows")
    ] = None
    dry_run: Annotated[bool | None, Field(description="True; without it send the token alone")] = None
    token: Token | None = None


class BulkPreview(Described):
    """Runs that a dry run matched, and the token with which to act on them."""

    matches: Annotated[int, Field(description="Number of runs that it would act on", examples=[1234])]
    exact: Annotated[bool, Field(description="No other run matches", examples=[True])]
    searched_until: Annotated[
        Timestamp | None,
        Field(description="The search stopped at its bound at runs of this time", examples=[None]),
    ]
    sample: Annotated[list[RunSummary], Field(description="Up to 10 of them")]
    token: Token
    expires_at: Timestamp


class BulkStarted(Described):
    """Action on many runs that was started."""

    bulk_id: BulkId


class BulkError(Described):
    """Run on which a bulk could not act."""

    run_id: RunId
    error: Annotated[str, Field(examples=["Session would be nested 11 levels deep; at most 10 are allowed"])]


class Bulk(Described):
    """Action on many runs, and how far it has come."""

    bulk_id: BulkId
    action: Annotated[BulkAction, Field(examples=["stop"])]
    state: Literal["running", "completed", "stopped", "failed"]
    total: Annotated[int, Field(description="Runs that the dry run matched", examples=[1234])]
    done: Annotated[int, Field(description="Runs looked at so far: changed, skipped or with an error", examples=[500])]
    changed: Annotated[int, Field(description="Runs acted on", examples=[497])]
    skipped: Annotated[
        dict[str, int],
        Field(description="Numbers of runs left as they are, by reason", examples=[{"already ended": 3}]),
    ]
    errors: Annotated[list[BulkError], Field(description="The first 100", examples=[[]])]
    created_at: Timestamp
    ended_at: Annotated[Timestamp | None, Field(examples=[None])]
    created_by: Annotated[
        str | None, Field(description="Credential that started it; null while authentication is off", examples=[None])
    ]
    filter: Annotated[
        dict[str, Any] | None, Field(description="Filter of its dry run; null for `run_ids`", examples=[None])
    ]


class BulkPage(Described):
    """Page of bulks, newest first."""

    bulks: list[Bulk]
    next_cursor: NextCursor = None
