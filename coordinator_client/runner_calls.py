from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import quote
from uuid import uuid4

from coordinator_client.calls import Calls
from coordinator_client.requests import Identity
from coordinator_client.trace_context import checked_traceparent
from coordinator_client.types import (
    HeartbeatAnswer,
    ItemAnswer,
    NewEvent,
    PollAnswer,
    Registration,
    Report,
    RunnerLeaves,
    Session,
)

# Time for the response beyond the poll's own wait before the address counts as failed. Deployed runners give up 5 s
# after the poll's 30 s.
POLL_SLACK_SECONDS = 10.0


class RunnerCalls(Calls):
    async def register(self, identity: Identity) -> Registration:
        """Register this process, or reconnect it.

        Raises:
            Refused: 409 while another process of the same identity is online.
        """
        return cast(
            "Registration", await self._call("POST", "/runner/register", body=identity.body(), expects=("runner_id",))
        )

    async def poll(self, runner_id: str, *, max_runs: int, seconds: float) -> PollAnswer:
        """Wait for runs or orders; return an empty object when the time is up.

        Args:
            runner_id: Id that `register` returned.
            max_runs: Largest number of runs; 0 waits for orders only.
            seconds: Longest wait, 0 to 600.

        Raises:
            Refused: 401 when the runner is not registered, or not any more.
        """
        query = {"runner_id": runner_id, "max": max_runs, "wait": seconds}
        expects = ("stop_sessions", "sync_scripts", "deregistered", "runs")
        answer = await self._call(
            "GET", "/runner/runs", query=query, seconds=seconds + POLL_SLACK_SECONDS, expects=expects
        )
        return cast("PollAnswer", answer or {})

    async def report(
        self, runner_id: str, reports: Sequence[Report], *, traceparent: str | None = None
    ) -> list[ItemAnswer]:
        """Report what became of runs; return one item for each, in the same order. Repeating a report is harmless.

        `traceparent` is the trace to which this call belongs, such as that of the run.
        """
        body = {"runner_id": runner_id, "reports": list(reports)}
        trace = checked_traceparent(traceparent)
        headers = {} if trace is None else {"traceparent": trace}
        answer = await self._call("POST", "/runner/runs/report", body=body, headers=headers, expects=("results",))
        return cast("list[ItemAnswer]", answer["results"])

    async def heartbeat(self, runner_id: str, holding: Sequence[str] | None = None) -> HeartbeatAnswer:
        """Send a heartbeat with the ids of the runs in hand; the response names those that the runner no longer has.

        Raises:
            Refused: 401 when the runner is not registered.
        """
        body: dict[str, Any] = {"runner_id": runner_id}
        if holding is not None:
            body["holding"] = list(holding)
        answer = await self._call("POST", "/runner/heartbeat", body=body, expects=("ok",))
        return cast("HeartbeatAnswer", answer)

    async def report_session_status(self, runner_id: str, session_id: str, status: str) -> None:
        """Report the end of a session that has no run: `finished`, `failed` or `stopped`."""
        path = f"/runner/sessions/{quote(session_id, safe='')}/status"
        await self._call("POST", path, body={"runner_id": runner_id, "status": status}, expects=("ok",))

    async def deregister(self, runner_id: str, *, is_caller: bool = False) -> RunnerLeaves:
        """Deregister the calling runner now (`is_caller`), or order another runner to leave with its next poll.

        Raises:
            Refused: 404 for an unknown runner.
        """
        query = {"self": "true"} if is_caller else {}
        answer = await self._call("DELETE", f"/runners/{quote(runner_id, safe='')}", query=query, expects=("ok",))
        return cast("RunnerLeaves", answer)

    async def bind(
        self,
        session_id: str,
        *,
        executor_session_id: str,
        hostname: str,
        executor_profile: str,
        project_dir: str | None = None,
    ) -> Session:
        """Bind the session to a machine and a profile, so that the run that resumes it goes there.

        Raises:
            Refused: 404 for an unknown session, 409 `stale_claim` when the runner no longer holds its run.
        """
        body = {
            "executor_session_id": executor_session_id,
            "hostname": hostname,
            "executor_profile": executor_profile,
            "project_dir": project_dir,
        }
        path = f"/sessions/{quote(session_id, safe='')}/bind"
        answer = await self._call("POST", path, body=body, expects=("session",))
        return cast("Session", answer["session"])

    async def append_events(self, session_id: str, events: Sequence[NewEvent]) -> list[ItemAnswer]:
        """Append up to 1,000 events; return one item for each, or nothing if the response has none.

        Events without an `event_key` get a new one, so that a repeat inside this call stores them once.

        Raises:
            Refused: 404 for an unknown session.
        """
        body = [{"event_key": uuid4().hex, **event, "session_id": session_id} for event in events]
        path = f"/sessions/{quote(session_id, safe='')}/events"
        answer = await self._call("POST", path, body=body, expects=("results", "ok"))
        return cast("list[ItemAnswer]", answer.get("results", []))
