from typing import cast
from urllib.parse import quote

from coordinator_client.calls import Calls
from coordinator_client.types import Event, Result, Session, SessionDeleted, SessionPage, Stopped


class SessionCalls(Calls):
    async def sessions(
        self,
        *,
        status: str | None = None,
        parent_session_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> SessionPage:
        """Return one page of sessions, newest first. Pass its `next_cursor` as `cursor` to get the next page."""
        query = {
            "status": status,
            "parent_session_id": parent_session_id,
            "limit": limit,
            "cursor": cursor,
            "cursor_in_body": 1,
        }
        return cast("SessionPage", await self._call("GET", "/sessions", query=query, expects=("sessions",)))

    async def session(self, session_id: str) -> Session:
        """Return the session. Raises `Refused` 404 for an unknown one."""
        return cast("Session", (await self._call("GET", _session(session_id), expects=("session",)))["session"])

    async def session_status(self, session_id: str) -> str:
        """Return the session's status; `not_existent` for an unknown session."""
        answer = await self._call("GET", f"{_session(session_id)}/status", expects=("status",))
        return cast("str", answer["status"])

    async def session_result(self, session_id: str) -> Result:
        """Return the newest result of any run of the session.

        Raises:
            Refused: 400 while the session runs, 404 when it is unknown or has no result.
        """
        return cast("Result", await self._call("GET", f"{_session(session_id)}/result", expects=("result_text",)))

    async def session_events(
        self, session_id: str, *, run_id: str | None = None, after: str | None = None, limit: int | None = None
    ) -> list[Event]:
        """Return events of the session in the order of the feed.

        Args:
            session_id: The session.
            run_id: Only events of this run.
            after: Only events behind this feed cursor.
            limit: Largest number of events.
        """
        query = {"run_id": run_id, "after": after, "limit": limit}
        answer = await self._call("GET", f"{_session(session_id)}/events", query=query, expects=("events",))
        return cast("list[Event]", answer["events"])

    async def stop_session(self, session_id: str) -> Stopped:
        """Stop all runs of the session and its live process; return the status it led to."""
        return cast("Stopped", await self._call("POST", f"{_session(session_id)}/stop", expects=("session_id",)))

    async def delete_session(self, session_id: str) -> SessionDeleted:
        """Delete the session with its runs and events; return the counts. Raises `Refused` 409 while it is active."""
        return cast("SessionDeleted", await self._call("DELETE", _session(session_id), expects=("ok",)))


def _session(session_id: str) -> str:
    return f"/sessions/{quote(session_id, safe='')}"
