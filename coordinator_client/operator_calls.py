from datetime import datetime
from typing import Any, cast
from urllib.parse import quote

from coordinator_client.calls import Calls
from coordinator_client.failure_types import Failures
from coordinator_client.operator_types import (
    Me,
    RunExplanation,
    RunnerExplanation,
    RunSummaryPage,
    RunTimeline,
    SessionTree,
)
from coordinator_client.overview_types import AuditPage, KeyList, Queues, RunCounts, Series, System
from coordinator_client.types import Runner


class OperatorCalls(Calls):
    """Calls that show the whole to an operator, a console or a report."""

    async def me(self) -> Me:
        """Return role, owner and credential of this client, and the version of the coordinator."""
        return cast("Me", await self._call("GET", "/me", expects=("role",)))

    async def explain_run(self, run_id: str) -> RunExplanation:
        """Return why the run does not run now. Raises `Refused` 404 for an unknown one."""
        path = f"/runs/{quote(run_id, safe='')}/why"
        return cast("RunExplanation", await self._call("GET", path, expects=("headline",)))

    async def explain_runner(self, runner_id: str) -> RunnerExplanation:
        """Return why the runner gets no run now. Raises `Refused` 404 for an unknown one."""
        path = f"/runners/{quote(runner_id, safe='')}/why-idle"
        return cast("RunnerExplanation", await self._call("GET", path, expects=("headline",)))

    async def drain_runner(self, runner_id: str, reason: str | None = None) -> Runner:
        """Give the runner no new run until `undrain_runner`; return it. A repeat keeps time and reason of the first.

        After the answer no claim for it commits; its runs go on.

        Args:
            runner_id: Id of a registered runner.
            reason: Text for people, at most 200 characters.

        Raises:
            Refused: 404 for an unknown runner, 403 unless the caller is an admin.
        """
        path, body = f"/runners/{quote(runner_id, safe='')}/drain", {"reason": reason}
        return cast("Runner", await self._call("POST", path, body=body, expects=("runner_id",)))

    async def undrain_runner(self, runner_id: str) -> Runner:
        """Undo the drain of the runner; return it. Raises `Refused` 404 for an unknown one."""
        path = f"/runners/{quote(runner_id, safe='')}/drain"
        return cast("Runner", await self._call("DELETE", path, expects=("runner_id",)))

    async def search_runs(self, /, **filters: Any) -> RunSummaryPage:
        """Return one page of summaries of the runs that satisfy all filters.

        `searched_until` says that the search stopped at its bound; the next page goes on from there.

        Args:
            **filters: Query parameters of `GET /runs`; a list for one that may be repeated, a datetime with an offset
                for a time. `order="ended"` gives the last ended ones first.

        Raises:
            Refused: 422 for filters that are unknown or contradict each other.

        Examples:
            >>> page = await coordinator.search_runs(status=["failed", "stopped"], ended_after=yesterday, order="ended")
        """
        query = {name: _text(value) for name, value in filters.items()} | {"fields": "summary"}
        return cast("RunSummaryPage", await self._call("GET", "/runs", query=query, expects=("runs",)))

    async def failures(self, /, **filters: Any) -> Failures:
        """Group the newest failed runs, 2,000 at most, by their error without its numbers, ids and paths.

        Args:
            **filters: Filters of `search_runs`, such as `agent_name`, `label`, `ended_after` and `error_contains`.

        Raises:
            Refused: 422 for filters that are unknown or contradict each other.
        """
        query = {name: _text(value) for name, value in filters.items()}
        return cast("Failures", await self._call("GET", "/runs/failures", query=query, expects=("groups",)))

    async def run_timeline(self, run_id: str) -> RunTimeline:
        """Return the attempts of the run with their steps. Raises `Refused` 404 for an unknown run."""
        path = f"/runs/{quote(run_id, safe='')}/timeline"
        return cast("RunTimeline", await self._call("GET", path, expects=("attempts",)))

    async def session_tree(self, session_id: str, *, depth: int = 5, limit: int = 500) -> SessionTree:
        """Return the session and those under it, level by level. Raises `Refused` 404 for an unknown session."""
        path = f"/sessions/{quote(session_id, safe='')}/tree"
        query = {"depth": depth, "limit": limit}
        return cast("SessionTree", await self._call("GET", path, query=query, expects=("nodes",)))

    async def run_counts(
        self, *, since: datetime | None = None, agent_name: str | None = None, owner: str | None = None
    ) -> RunCounts:
        """Return the numbers of unfinished runs, and of those that ended since then (default: a day ago)."""
        query = {"since": _text(since), "agent_name": agent_name, "owner": owner}
        return cast("RunCounts", await self._call("GET", "/runs/counts", query=query, expects=("now",)))

    async def queues(self) -> Queues:
        """Return the unfinished runs by their demands, with the runners that match and the rate of claims."""
        return cast("Queues", await self._call("GET", "/queues", expects=("queues",)))

    async def series(
        self,
        metric: str,
        *,
        by: str | None = None,
        step: int = 60,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Series:
        """Return curves of `submitted`, `ended`, `wait` or `duration`; at most 1,500 periods of `step` seconds.

        Args:
            metric: What to draw.
            by: `status` (of `ended` only), `profile` or `agent`: a curve for each.
            step: 60, 300, 3600 or 86400.
            since: Begin; default: a day, or for steps from an hour on 30 days, before the end.
            until: End; default: now.
        """
        query = {"metric": metric, "by": by, "step": step, "since": _text(since), "until": _text(until)}
        return cast("Series", await self._call("GET", "/stats/series", query=query, expects=("series",)))

    async def keys(self) -> KeyList:
        """Return all API keys without their secrets; for admins."""
        return cast("KeyList", await self._call("GET", "/keys", expects=("keys",)))

    async def audit(
        self,
        *,
        by: str | None = None,
        act: str | None = None,
        target: str | None = None,
        since: str | None = None,
        until: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> AuditPage:
        """Return one page of acts of administrators, newest first; for admins.

        ``since`` and ``until`` are ISO 8601 times with their offset.
        """
        query = {
            "by": by,
            "act": act,
            "target": target,
            "since": since,
            "until": until,
            "limit": limit,
            "cursor": cursor,
        }
        return cast("AuditPage", await self._call("GET", "/audit", query=query, expects=("entries",)))

    async def system(self) -> System:
        """Return processes, duties, outages, positions of the feed, versions and settings; for admins."""
        return cast("System", await self._call("GET", "/system", expects=("versions",)))


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else value
