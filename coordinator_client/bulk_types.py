"""Types of the calls of operators, made by scripts/client_types.py."""

from typing import Any, Literal, NotRequired, TypedDict

from coordinator_client.operator_types import RunSummary


class BulkPreview(TypedDict):
    """Runs that a dry run matched, and the token with which to act on them.

    Attributes:
        matches: Number of runs that it would act on.
        exact: No other run matches.
        searched_until: The search stopped at its bound at runs of this time.
        sample: Up to 10 of them.
        token: Token of the dry run, for its caller and 15 minutes.
    """

    matches: int
    exact: bool
    searched_until: str | None
    sample: list[RunSummary]
    token: str
    expires_at: str


BulkAction = Literal["stop", "delete", "replay", "hold", "release"]


class BulkError(TypedDict):
    """Run on which a bulk could not act."""

    run_id: str
    error: str


class Bulk(TypedDict):
    """Action on many runs, and how far it has come.

    Attributes:
        total: Runs that the dry run matched.
        done: Runs looked at so far: changed, skipped or with an error.
        changed: Runs acted on.
        skipped: Numbers of runs left as they are, by reason.
        errors: The first 100.
        created_by: Credential that started it; null while authentication is off.
        filter: Filter of its dry run; null for `run_ids`.
    """

    bulk_id: str
    action: BulkAction
    state: Literal["running", "completed", "stopped", "failed"]
    total: int
    done: int
    changed: int
    skipped: dict[str, int]
    errors: list[BulkError]
    created_at: str
    ended_at: str | None
    created_by: str | None
    filter: dict[str, Any] | None


class BulkPage(TypedDict):
    """Page of bulks, newest first.

    Attributes:
        next_cursor: Cursor of the next page; absent on the last one.
    """

    bulks: list[Bulk]
    next_cursor: NotRequired[str]
