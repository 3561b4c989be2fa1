from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.schemas.base import Described, RunId, SessionId, Text, Timestamp, Validated
from app.schemas.runs import AdditionalDemands, Demands
from models.core.statuses import RunStatus

HOLD_NAME = r"[A-Za-z0-9_.-]{1,64}"
LONGEST_NOTE = 200

Note = Annotated[
    Annotated[str, Field(max_length=LONGEST_NOTE)] | None,
    Field(description="For people: `why` and the list show it", examples=["deploy until 14:00"]),
]


class HoldRuns(Validated):
    """Hold of the runs of an agent, of those with certain demands, or of all."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"demands": {"tags": ["gpu"]}, "note": "new driver"}, {"everything": True}]},
    )

    agent_name: Annotated[
        Annotated[str, Field(min_length=1, max_length=1024)] | None, Field(description="Runs of this agent")
    ] = None
    demands: Annotated[
        AdditionalDemands | None, Field(description="Runs that demand all of this, and perhaps more")
    ] = None
    everything: Annotated[Literal[True] | None, Field(description="All runs")] = None
    note: Note = None


class HoldRun(Validated):
    """Hold of one run."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"note": "wait for the data"}]})

    note: Note = None


class Hold(Described):
    """Hold: the runs to which it applies do not become claimable."""

    name: Annotated[Text, Field(description="`run:` and its id for the hold of one run", examples=["deploy"])]
    run_id: Annotated[RunId | None, Field(description="The only run that it holds", examples=[None])]
    everything: Annotated[bool, Field(description="It holds all runs", examples=[False])]
    agent_name: Annotated[str | None, Field(description="It holds the runs of this agent", examples=[None])]
    demands: Annotated[Demands | None, Field(description="It holds the runs that demand all of this")]
    note: Annotated[str | None, Field(examples=["new driver"])]
    held_by: Annotated[str | None, Field(description="Credential that set it", examples=["key:crd_0a1b2c3d4e5f"])]
    created_at: Timestamp


class HoldList(Described):
    """Holds of several runs by name, for admins, then the newest 1,000 of single runs."""

    holds: list[Hold]


class RunHeld(Described):
    """Answer to the hold or release of a run."""

    run_id: RunId
    session_id: SessionId
    status: Annotated[RunStatus, Field(examples=["pending"])]
    held: Annotated[bool, Field(description="Held by itself; holds of several runs may apply besides")]
