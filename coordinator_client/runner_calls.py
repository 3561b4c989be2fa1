"""The calls a runner makes: registration, polls, reports, events, signs of life (PROTOCOL, Runners)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import quote
from uuid import uuid4

from coordinator_client.types import (
    Event,
    HeartbeatAnswer,
    Identity,
    ItemAnswer,
    PollAnswer,
    Registration,
    Report,
    Session,
)

# How much longer than the poll itself its answer may take before the address counts as failed. Deployed runners
# give up 5 s after the poll's 30.
POLL_SLACK_SECONDS = 10.0


class RunnerCalls(ABC):
    """The runner's half of CoordinatorClient."""

    @abstractmethod
    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
        seconds: float | None = None,
        expects: Sequence[str] = (),
    ) -> Any: ...

    async def register(self, identity: Identity) -> Registration:
        """Register, or reconnect. Raises Refused 409 while another process of the same identity is online."""
        return cast(
            "Registration", await self._call("POST", "/runner/register", body=identity.body(), expects=("runner_id",))
        )

    async def poll(self, runner_id: str, *, most: int, seconds: float) -> PollAnswer:
        """Wait up to `seconds` for up to `most` runs, or for a stop; nothing came: empty.

        Raises Refused 401 when the runner is not registered (any more).
        """
        query = {"runner_id": runner_id, "max": most, "wait": seconds}
        expects = ("stop_sessions", "deregistered", "runs")
        answer = await self._call(
            "GET", "/runner/runs", query=query, seconds=seconds + POLL_SLACK_SECONDS, expects=expects
        )
        return cast("PollAnswer", answer or {})

    async def report(self, runner_id: str, reports: Sequence[Report]) -> list[ItemAnswer]:
        """Report what became of runs; one answer each in the same order. Repeating a report is harmless."""
        body = {"runner_id": runner_id, "reports": list(reports)}
        answer = await self._call("POST", "/runner/runs/report", body=body, expects=("results",))
        return cast("list[ItemAnswer]", answer["results"])

    async def heartbeat(self, runner_id: str, holding: Sequence[str] | None = None) -> HeartbeatAnswer:
        """Show life, say which runs are held, and return which of them are not ours any more.

        Raises Refused 401 when the runner is not registered.
        """
        body: dict[str, Any] = {"runner_id": runner_id}
        if holding is not None:
            body["holding"] = list(holding)
        answer = await self._call("POST", "/runner/heartbeat", body=body, expects=("ok",))
        return cast("HeartbeatAnswer", answer)

    async def report_session_status(self, runner_id: str, session_id: str, status: str) -> None:
        """Say that a session without a run has ended: `finished`, `failed` or `stopped`."""
        path = f"/runner/sessions/{quote(session_id, safe='')}/status"
        await self._call("POST", path, body={"runner_id": runner_id, "status": status}, expects=("ok",))

    async def deregister(self, runner_id: str, *, itself: bool = False) -> dict[str, Any]:
        """Leave now (`itself`), or tell another runner to leave on its next poll. Raises Refused 404."""
        query = {"self": "true"} if itself else {}
        answer = await self._call("DELETE", f"/runners/{quote(runner_id, safe='')}", query=query, expects=("ok",))
        return cast("dict[str, Any]", answer)

    async def bind(
        self,
        session_id: str,
        *,
        executor_session_id: str,
        hostname: str,
        executor_profile: str,
        project_dir: str | None = None,
    ) -> Session:
        """Say where the session lives, so that a resume comes home. Raises Refused 404, 409 stale_claim."""
        body = {
            "executor_session_id": executor_session_id,
            "hostname": hostname,
            "executor_profile": executor_profile,
            "project_dir": project_dir,
        }
        path = f"/sessions/{quote(session_id, safe='')}/bind"
        answer = await self._call("POST", path, body=body, expects=("session",))
        return cast("Session", answer["session"])

    async def append_events(self, session_id: str, events: Sequence[Event]) -> list[ItemAnswer]:
        """Add up to 1000 events; those without an `event_key` get one. Answers per item, where there are any.

        Raises Refused 404 for an unknown session.
        """
        body = [{"event_key": uuid4().hex, **event, "session_id": session_id} for event in events]
        path = f"/sessions/{quote(session_id, safe='')}/events"
        answer = await self._call("POST", path, body=body, expects=("results", "ok"))
        return cast("list[ItemAnswer]", answer.get("results", []))
