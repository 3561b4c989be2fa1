from typing import Any, cast
from urllib.parse import quote

from coordinator_client.calls import Calls
from coordinator_client.hold_types import Hold, RunHeld
from coordinator_client.types import AdditionalDemands


class HoldCalls(Calls):
    """Calls that keep runs from being claimed."""

    async def hold_run(self, run_id: str, note: str | None = None) -> RunHeld:
        """Keep the run from being claimed until `release_run`. One that a runner has goes on.

        Args:
            run_id: The run.
            note: Text for people, at most 200 characters; a repeat keeps the first one.

        Raises:
            Refused: 404 for an unknown run, 409 for one that has ended.
        """
        path = f"/runs/{quote(run_id, safe='')}/hold"
        return cast("RunHeld", await self._call("POST", path, body={"note": note}, expects=("held",)))

    async def release_run(self, run_id: str) -> RunHeld:
        """Remove the hold of the run; those of several runs may apply to it still. Raises `Refused` 404."""
        path = f"/runs/{quote(run_id, safe='')}/release"
        return cast("RunHeld", await self._call("POST", path, expects=("held",)))

    async def holds(self) -> list[Hold]:
        """Return the holds of several runs, for admins, and the newest 1,000 of single runs."""
        answer = await self._call("GET", "/holds", expects=("holds",))
        return cast("list[Hold]", answer["holds"])

    async def set_hold(
        self,
        name: str,
        *,
        agent_name: str | None = None,
        demands: AdditionalDemands | None = None,
        everything: bool = False,
        note: str | None = None,
    ) -> Hold:
        """Hold the runs of an agent, those that demand all of `demands`, or everything; one of the three is given.

        After the answer no run that it applies to is claimed until `remove_hold`; runs that runners have go on.

        Args:
            name: 1 to 64 of `A-Za-z0-9_.-`; a hold of that name is replaced.
            agent_name: Name of the agent.
            demands: Demands that a run must have to be held, such as `{"tags": ["gpu"]}`.
            everything: Hold all runs.
            note: Text for people, at most 200 characters.

        Raises:
            Refused: 403 unless the caller is an admin, 409 for more than 100 holds.
        """
        given: dict[str, Any] = {"agent_name": agent_name, "demands": demands, "everything": everything or None}
        body = {field: value for field, value in {**given, "note": note}.items() if value is not None}
        return cast("Hold", await self._call("PUT", f"/holds/{quote(name, safe='')}", body=body, expects=("name",)))

    async def remove_hold(self, name: str) -> Hold:
        """Remove the hold and return it; what no other one applies to is ready at once. Raises `Refused` 404."""
        return cast("Hold", await self._call("DELETE", f"/holds/{quote(name, safe='')}", expects=("name",)))
