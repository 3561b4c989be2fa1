from typing import Annotated

from pydantic import Field, RootModel

from app.schemas.base import Described, SessionId
from app.schemas.runs import ClaimedRun


class AssignedRun(Described):
    """Answer to a poll without `max`: a run."""

    run: ClaimedRun


class AssignedRuns(Described):
    """Answer to a poll with `max`: runs."""

    runs: list[ClaimedRun]


class StopOrder(Described):
    """Answer to a poll: sessions to stop."""

    stop_sessions: list[SessionId]


class LeaveOrder(Described):
    """Answer to a poll: order to leave."""

    deregistered: Annotated[bool, Field(examples=[True])]


class PollAnswer(RootModel[AssignedRun | AssignedRuns | StopOrder | LeaveOrder]):
    """Answer to a poll, the first that applies: sessions to stop, the order to leave, runs."""
