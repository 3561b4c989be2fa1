"""Types of the calls of operators, made by scripts/client_types.py."""

from typing import NotRequired, TypedDict


class FailureGroup(TypedDict):
    """Failed runs whose errors differ in numbers, ids and paths only.

    Attributes:
        text: First and last line of the error, without what differs.
        newest_at: End of the run of them that ended last.
        oldest_at: End of the run of them that ended first.
        example: Error of the newest run, cut to 2,000 characters.
        agents: Runs by agent, up to 10 names.
        run_ids: The newest 1,000 of them, for `POST /bulk`.
    """

    fingerprint: str
    text: str
    count: int
    newest_run_id: str
    newest_at: str
    oldest_at: str
    example: str | None
    agents: dict[str, int]
    run_ids: list[str]


class Failures(TypedDict):
    """Failed runs by the fingerprint of their error, the largest group first, up to 100 groups.

    Attributes:
        runs: Failed runs looked at, 2,000 at most.
        searched_until: Creation of the oldest run looked at; older ones may match, too.
    """

    groups: list[FailureGroup]
    runs: int
    searched_until: NotRequired[str]
