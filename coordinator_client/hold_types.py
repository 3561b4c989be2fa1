"""Types of the calls of operators, made by scripts/client_types.py."""

from typing import TypedDict

from coordinator_client.types import Demands, RunStatus


class Hold(TypedDict):
    """Hold: the runs to which it applies do not become claimable.

    Attributes:
        name: `run:` and its id for the hold of one run.
        run_id: The only run that it holds.
        everything: It holds all runs.
        agent_name: It holds the runs of this agent.
        demands: It holds the runs that demand all of this.
        held_by: Credential that set it.
    """

    name: str
    run_id: str | None
    everything: bool
    agent_name: str | None
    demands: Demands | None
    note: str | None
    held_by: str | None
    created_at: str


class HoldList(TypedDict):
    """Holds of several runs by name, for admins, then the newest 1,000 of single runs."""

    holds: list[Hold]


class RunHeld(TypedDict):
    """Answer to the hold or release of a run.

    Attributes:
        held: Held by itself; holds of several runs may apply besides.
    """

    run_id: str
    session_id: str
    status: RunStatus
    held: bool
