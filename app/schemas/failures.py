from typing import Annotated

from pydantic import Field

from app.schemas.base import Described, MayLack, RunId, Timestamp


class FailureGroup(Described):
    """Failed runs whose errors differ in numbers, ids and paths only."""

    fingerprint: Annotated[str, Field(examples=["5f70bf18a0860070"])]
    text: Annotated[str, Field(description="First and last line of the error, without what differs")]
    count: Annotated[int, Field(examples=[12])]
    newest_run_id: RunId
    newest_at: Annotated[Timestamp, Field(description="End of the run of them that ended last")]
    oldest_at: Annotated[Timestamp, Field(description="End of the run of them that ended first")]
    example: Annotated[str | None, Field(description="Error of the newest run, cut to 2,000 characters")]
    agents: Annotated[dict[str, int], Field(description="Runs by agent, up to 10 names", examples=[{"coder": 12}])]
    run_ids: Annotated[list[RunId], Field(description="The newest 1,000 of them, for `POST /bulk`")]


class Failures(Described):
    """Failed runs by the fingerprint of their error, the largest group first, up to 100 groups."""

    groups: list[FailureGroup]
    runs: Annotated[int, Field(description="Failed runs looked at, 2,000 at most", examples=[40])]
    searched_until: Annotated[
        MayLack[Timestamp], Field(description="Creation of the oldest run looked at; older ones may match, too")
    ] = None
