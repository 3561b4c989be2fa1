from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote
from uuid import uuid4

from coordinator_client.calls import Calls
from coordinator_client.schedule_types import (
    Backfill,
    Fire,
    FirePage,
    NextTimes,
    Schedule,
    SchedulePage,
    SchedulesChanged,
)


class ScheduleCalls(Calls):
    """Calls about schedules: runs that are submitted at times that their owner states."""

    async def put_schedule(self, schedule_id: str, schedule: Mapping[str, Any]) -> Schedule:
        """Create a schedule, or replace it as a whole.

        Args:
            schedule_id: A name of your own.
            schedule: Body of `PUT /schedules/{id}`: `spec`, `timezone`, `run`, `overlap` and so on.

        Raises:
            Refused: 409 for another version than `expect_version`, and for another owner's; 422 for times that cannot
                be read.
        """
        headers = {"Idempotency-Key": uuid4().hex}
        answer = await self._call("PUT", _path(schedule_id), body=dict(schedule), headers=headers, expects=("version",))
        return cast("Schedule", answer)

    async def schedule(self, schedule_id: str) -> Schedule:
        """Return a schedule. Raises `Refused` 404 for an unknown one."""
        return cast("Schedule", await self._call("GET", _path(schedule_id), expects=("version",)))

    async def schedules(self, *, limit: int | None = None, cursor: str | None = None) -> SchedulePage:
        """Return one page of schedules, newest first; for admins those of all owners."""
        query = {"limit": limit, "cursor": cursor}
        return cast("SchedulePage", await self._call("GET", "/schedules", query=query, expects=("schedules",)))

    async def delete_schedule(self, schedule_id: str) -> None:
        """Delete a schedule; its runs stay. Raises `Refused` 404 for an unknown one."""
        await self._call("DELETE", _path(schedule_id), expects=("ok",))

    async def fires(self, schedule_id: str, *, limit: int | None = None, cursor: str | None = None) -> FirePage:
        """Return one page of the decisions on a schedule's times, newest time first."""
        query = {"limit": limit, "cursor": cursor}
        return cast("FirePage", await self._call("GET", _path(schedule_id, "fires"), query=query, expects=("fires",)))

    async def next_times(self, schedule_id: str, *, count: int | None = None) -> NextTimes:
        """Return the next nominal times of a schedule, up to 100."""
        query = {"count": count}
        return cast("NextTimes", await self._call("GET", _path(schedule_id, "next"), query=query, expects=("times",)))

    async def preview_schedule(self, times: Mapping[str, Any]) -> NextTimes:
        """Return the next 10 times of a `spec` in a `timezone`. Raises `Refused` 422 if it cannot be read."""
        answer = await self._call("POST", "/schedules/preview", body=dict(times), expects=("times",))
        return cast("NextTimes", answer)

    async def pause_schedule(self, schedule_id: str, note: str | None = None) -> Schedule:
        """Pause a schedule; the times of the pause run only if they are backfilled."""
        answer = await self._call("POST", _path(schedule_id, "pause"), body={"note": note}, expects=("version",))
        return cast("Schedule", answer)

    async def resume_schedule(self, schedule_id: str) -> Schedule:
        """End the pause of a schedule: its times count from now on."""
        answer = await self._call("POST", _path(schedule_id, "resume"), body={}, expects=("version",))
        return cast("Schedule", answer)

    async def trigger_schedule(self, schedule_id: str, *, overlap: str | None = None) -> Fire:
        """Make a fire now, by the schedule's overlap policy or another one; return the decision."""
        headers, body = {"Idempotency-Key": uuid4().hex}, {"overlap": overlap}
        path = _path(schedule_id, "trigger")
        return cast("Fire", await self._call("POST", path, body=body, headers=headers, expects=("outcome",)))

    async def backfill_schedule(
        self,
        schedule_id: str,
        begin: datetime,
        end: datetime,
        *,
        overlap: str = "buffer_all",
        most: int = 1000,
        dry_run: bool = False,
    ) -> Backfill:
        """Submit the nominal times from `begin` to before `end` that have no run; with `dry_run` only count them.

        Args:
            schedule_id: The schedule.
            begin: First moment; without a time zone it is local time.
            end: Moment behind the last; nothing later than now is submitted.
            overlap: `buffer_all`: one after the other; `allow`: all at once.
            most: Most times, up to 1,000; the oldest ones.
            dry_run: Submit nothing.
        """
        body = {
            "from": begin.astimezone().isoformat(),
            "to": end.astimezone().isoformat(),
            "overlap": overlap,
            "most": most,
            "dry_run": dry_run,
        }
        path = _path(schedule_id, "backfill")
        return cast("Backfill", await self._call("POST", path, body=body, expects=("times",)))

    async def change_schedules(
        self,
        action: str,
        *,
        schedule_ids: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        note: str | None = None,
        dry_run: bool = False,
    ) -> SchedulesChanged:
        """Pause, resume or delete up to 200 schedules; with `dry_run` only tell which.

        Args:
            action: `pause`, `resume` or `delete`.
            schedule_ids: The schedules, up to 200.
            filters: In place of ids: `paused`, `owner` (for admins) and `id_prefix`.
            note: Reason of a pause that the schedules show.
            dry_run: Change nothing.

        Raises:
            Refused: 422 for filters that are unknown, or beside ids.
        """
        body: dict[str, Any] = {"action": action, "dry_run": dry_run}
        if schedule_ids is not None:
            body["schedule_ids"] = list(schedule_ids)
        if filters is not None:
            body["filter"] = dict(filters)
        if note is not None:
            body["note"] = note
        answer = await self._call("POST", "/schedules/bulk", body=body, expects=("schedule_ids",))
        return cast("SchedulesChanged", answer)


def _path(schedule_id: str, *parts: str) -> str:
    return "/".join(["/schedules", quote(schedule_id, safe=""), *parts])
