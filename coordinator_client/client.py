"""The coordinator's HTTP API as typed calls: what the runner, the command line and your own code share.

>>> async with CoordinatorClient("http://127.0.0.1:8765") as coordinator:
...     submitted = await coordinator.submit(RunRequest(parameters={"prompt": "hello"}))
...     run = await coordinator.wait_for_run(submitted["run_id"])
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote
from uuid import uuid4

from coordinator_client.backoff import Backoff
from coordinator_client.errors import Refused, Unreachable
from coordinator_client.feed import Feed, OnConnection
from coordinator_client.runner_calls import RunnerCalls
from coordinator_client.transport import Transport
from coordinator_client.types import (
    TERMINAL_STATUSES,
    BatchItem,
    Event,
    FeedItem,
    Result,
    Run,
    RunnerInfo,
    RunPage,
    RunRequest,
    Session,
    SessionPage,
    Stopped,
    Submitted,
)

# The longest a single wait for a run's end may take (PROTOCOL, Submission).
LONGEST_RUN_WAIT = 60.0
LARGEST_PAGE = 1000


class CoordinatorClient(RunnerCalls):
    """Calls to one coordinator at one or several addresses; use it as an async context manager, from one event loop.

    A call goes to the address that worked last and to the others when that one fails. While all refuse, time out or
    answer 429 or 503, or something else answers in their place (a proxy's 404 or login page), it is tried again for
    `patience_seconds`, and raises Unreachable or Refused after that; every other error answer of a coordinator raises
    Refused at once. Repeating is harmless: submissions carry an idempotency key, events an event key, and the rest says
    what shall be, not what to add.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        token: str | None = None,
        ca_file: str = "",
        patience_seconds: float = 10.0,
        answer_seconds: float = 40.0,
    ) -> None:
        self._transport = Transport([urls] if isinstance(urls, str) else urls, token=token, ca_file=ca_file)
        self._patience = patience_seconds
        self._answer_seconds = answer_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.close()

    @property
    def url(self) -> str:
        """The address that is used first at the moment."""
        return self._transport.url

    @property
    def answers(self) -> int:
        """How many calls a coordinator has answered, errors included."""
        return self._transport.answers

    async def submit(self, request: RunRequest, *, idempotency_key: str | None = None) -> Submitted:
        """A new run. It is submitted once however often this call is repeated with the same key (default: a new one).

        Raises Refused: 400 parameters, 404 session or parent, 409 session exists or key used for another body, 422.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        return cast(
            "Submitted", await self._call("POST", "/runs", body=request.body(), headers=headers, expects=("run_id",))
        )

    async def submit_batch(
        self, requests: Sequence[RunRequest], *, idempotency_keys: Sequence[str] | None = None
    ) -> list[BatchItem]:
        """Up to 1000 new runs, one answer each in the same order; one bad item never fails the others."""
        keys = idempotency_keys or [uuid4().hex for _ in requests]
        runs = [{**request.body(), "idempotency_key": key} for request, key in zip(requests, keys, strict=True)]
        answer = await self._call("POST", "/runs/batch", body={"runs": runs}, expects=("results",))
        return cast("list[BatchItem]", answer["results"])

    async def run(self, run_id: str, *, wait: float | None = None) -> Run:
        """The run; with `wait` (seconds, at most 60) as soon as it is terminal or the time is up."""
        seconds = self._answer_seconds + (wait or 0)
        path = f"/runs/{_quoted(run_id)}"
        answer = await self._call("GET", path, query={"wait": wait}, seconds=seconds, expects=("run_id",))
        return cast("Run", answer)

    async def wait_for_run(self, run_id: str, *, seconds: float | None = None) -> Run:
        """The run once it is completed, failed or stopped, or as it is when `seconds` are over (None: no limit)."""
        deadline = None if seconds is None else monotonic() + seconds
        while True:
            left = LONGEST_RUN_WAIT if deadline is None else deadline - monotonic()
            run = await self.run(run_id, wait=max(0.0, min(left, LONGEST_RUN_WAIT / 2)))
            if run["status"] in TERMINAL_STATUSES or left <= 0:
                return run

    async def runs(
        self,
        *,
        status: str | None = None,
        session_id: str | None = None,
        runner_id: str | None = None,
        agent_name: str | None = None,
        labels: dict[str, str] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> RunPage:
        """Runs, newest first; hand `next_cursor` back as `cursor` for those after them."""
        query = {
            "status": status,
            "session_id": session_id,
            "runner_id": runner_id,
            "agent_name": agent_name,
            "label": [f"{key}={value}" for key, value in (labels or {}).items()] or None,
            "limit": limit,
            "cursor": cursor,
        }
        return cast("RunPage", await self._call("GET", "/runs", query=query, expects=("runs",)))

    async def run_result(self, run_id: str) -> Result:
        """The run's newest result. Raises Refused: 400 unless it is completed, 404 when no result of it is kept."""
        return cast("Result", await self._call("GET", f"/runs/{_quoted(run_id)}/result", expects=("result_text",)))

    async def stop_run(self, run_id: str) -> Stopped:
        """Stop the run, and its session with it when it is the session's active one; the status it led to."""
        return cast("Stopped", await self._call("POST", f"/runs/{_quoted(run_id)}/stop", expects=("session_id",)))

    async def sessions(
        self,
        *,
        status: str | None = None,
        parent_session_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> SessionPage:
        """Sessions, newest first; hand `next_cursor` back as `cursor` for those after them."""
        query = {"status": status, "parent_session_id": parent_session_id, "limit": limit, "cursor": cursor}
        return cast("SessionPage", await self._call("GET", "/sessions", query=query, expects=("sessions",)))

    async def session(self, session_id: str) -> Session:
        """The session."""
        return cast("Session", (await self._call("GET", _session(session_id), expects=("session",)))["session"])

    async def session_status(self, session_id: str) -> str:
        """The session's status, `not_existent` for an unknown one."""
        answer = await self._call("GET", f"{_session(session_id)}/status", expects=("status",))
        return cast("str", answer["status"])

    async def session_result(self, session_id: str) -> Result:
        """The newest result of any run of the session. Raises Refused: 404 for none, 400 while it runs."""
        return cast("Result", await self._call("GET", f"{_session(session_id)}/result", expects=("result_text",)))

    async def session_events(
        self, session_id: str, *, run_id: str | None = None, after: str | None = None, limit: int | None = None
    ) -> list[Event]:
        """The session's events in the feed's order: those of the run `run_id`, those after the feed cursor `after`."""
        query = {"run_id": run_id, "after": after, "limit": limit}
        answer = await self._call("GET", f"{_session(session_id)}/events", query=query, expects=("events",))
        return cast("list[Event]", answer["events"])

    async def stop_session(self, session_id: str) -> Stopped:
        """Stop all runs of the session and its live process; the status it led to."""
        return cast("Stopped", await self._call("POST", f"{_session(session_id)}/stop", expects=("session_id",)))

    async def delete_session(self, session_id: str) -> dict[str, Any]:
        """Delete the session with its runs and events; what was deleted. Raises Refused 409 while it is active."""
        return cast("dict[str, Any]", await self._call("DELETE", _session(session_id), expects=("ok",)))

    def feed(
        self,
        *,
        session_id: str | None = None,
        run_id: str | None = None,
        created_by: str | None = None,
        types: Sequence[str] = (),
        after: str | None = None,
        init: bool = False,
        patience_seconds: float | None = None,
        on_connection: OnConnection | None = None,
    ) -> AsyncGenerator[FeedItem, None]:
        """What happens from now on, or after the cursor `after`, item by item without an end; close it when done.

        Each item comes once, in the same order for every reader. Connections that break, fall silent or are ended by
        the coordinator are replaced, at the next address each time, and the next one goes on behind the last item.
        `after` is an item's `id` or the `feed_cursor` of a list; one that the coordinator cannot go on from gives a
        `reset` and an `init`, never a silent gap. With `init` the first item is all sessions as they are. `types` are
        names of events, for instance `run_updated`, which comes only when named; none: all others.

        Raises Refused for an error answer that will not pass, and Unreachable when no address gives a stream for
        `patience_seconds` (None: it tries for ever). `on_connection` is called with an address and the reason why
        there is no connection to it, None when there is one.
        """
        query = {
            "session_id": session_id,
            "run_id": run_id,
            "created_by": created_by,
            "types": ",".join(types) or None,
            "include_init": "true" if init else "false",
        }
        feed = Feed(self._transport, query, after=after, patience_seconds=patience_seconds, on_connection=on_connection)
        return feed.items()

    async def runners(self) -> list[RunnerInfo]:
        """All registered runners, read page by page; one that registers again meanwhile is there once.

        A cursor that comes again ends the walk: the answers lead nowhere.
        """
        found: dict[str, RunnerInfo] = {}
        cursor: str | None = None
        used: set[str | None] = set()
        while cursor not in used:
            used.add(cursor)
            query = {"limit": LARGEST_PAGE, "cursor": cursor}
            page = await self._call("GET", "/runners", query=query, expects=("runners",))
            found.update((one["runner_id"], one) for one in page["runners"])
            cursor = page.get("next_cursor")
        return list(found.values())

    async def health(self) -> dict[str, Any]:
        """Whether the coordinator is ready; raises Refused 503 while it starts or drains."""
        return cast("dict[str, Any]", await self._call("GET", "/health/ready", expects=("status",)))

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
    ) -> Any:
        """One call, repeated with growing pauses as long as patience lasts and the failure may pass."""
        deadline = monotonic() + self._patience
        backoff = Backoff()
        while True:
            try:
                return await self._transport.call(
                    method,
                    path,
                    query=query,
                    body=body,
                    headers=headers,
                    seconds=seconds or self._answer_seconds,
                    expects=expects,
                )
            except Unreachable as unreachable:
                pause = max(backoff.pause(), unreachable.retry_after or 0.0)
                if unreachable.too_large or monotonic() + pause > deadline:
                    raise
            except Refused as refused:
                pause = max(backoff.pause(), refused.retry_after or 0.0)
                if not refused.passing or monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _session(session_id: str) -> str:
    return f"/sessions/{_quoted(session_id)}"
