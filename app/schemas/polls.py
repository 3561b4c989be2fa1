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


class ScriptOrder(Described):
    """Answer to a poll of a procedural runner: scripts to fetch (`GET /scripts/{name}/download`) and to remove.

    An answer that was cut off is repeated, so a script may be named twice.
    """

    sync_scripts: Annotated[list[str], Field(examples=[["deploy"]])]
    remove_scripts: list[str]


class LeaveOrder(Described):
    """Answer to a poll: order to leave."""

    deregistered: Annotated[bool, Field(examples=[True])]


class PollAnswer(RootModel[AssignedRun | AssignedRuns | StopOrder | ScriptOrder | LeaveOrder]):
    """Answer to a poll, the first that applies: sessions to stop, scripts, the order to leave, runs."""
