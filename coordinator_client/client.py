"""Typed calls of the coordinator's HTTP API.

>>> async with CoordinatorClient("http://127.0.0.1:8765") as coordinator:
...     submitted = await coordinator.submit(RunRequest(parameters={"prompt": "hello"}))
...     done = await coordinator.wait(submitted["run_id"])
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote
from uuid import uuid4

from coordinator_client.backoff import Backoff
from coordinator_client.bulk_calls import BulkCalls
from coordinator_client.errors import CallFailed
from coordinator_client.feed import Feed, FeedItem, OnConnection
from coordinator_client.following import follow_events
from coordinator_client.hold_calls import HoldCalls
from coordinator_client.operator_calls import OperatorCalls
from coordinator_client.operator_types import Readiness
from coordinator_client.outcomes import CompletedRun, wait_for_completion
from coordinator_client.registry_calls import RegistryCalls
from coordinator_client.requests import RunRequest
from coordinator_client.runner_calls import RunnerCalls
from coordinator_client.schedule_calls import ScheduleCalls
from coordinator_client.session_calls import SessionCalls
from coordinator_client.trace_context import checked_traceparent, inherited_traceparent
from coordinator_client.transport import Transport
from coordinator_client.types import (
    TERMINAL_STATUSES,
    BatchItem,
    Result,
    Run,
    Runner,
    RunPage,
    Stopped,
    Submitted,
)
from coordinator_client.webhook_calls import WebhookCalls

# Upper bound of `wait` in one request (PROTOCOL, Runs).
LONGEST_RUN_WAIT = 60.0
LARGEST_PAGE = 1000


class CoordinatorClient(
    SessionCalls, RunnerCalls, OperatorCalls, BulkCalls, RegistryCalls, HoldCalls, ScheduleCalls, WebhookCalls
):
    """Client of one coordinator at one or several addresses: an async context manager, for use in one event loop.

    A call goes to the address that answered last, and to the others in turn when that one fails. While every address
    refuses the connection, times out, answers 429 or 5xx, or another server answers in its place (a proxy's 404 or
    login page), the call is repeated with growing pauses for `patience_seconds`; then it raises `Unreachable` or
    `Refused`. Every other error response of a coordinator raises `Refused` at once. Repeating is harmless: submissions
    carry an idempotency key, events an event key, and all other calls state a target state instead of a change.

    Args:
        urls: One address or several, such as `http://127.0.0.1:8765`; all must lead to the same coordinator.
        token: Bearer token; needed while authentication is on.
        ca_file: PEM file of the authorities to trust for https; default: those of SSL_CERT_FILE, else certifi's.
        patience_seconds: Time for which a failing call is repeated; 0: one try at each address.
        answer_seconds: Time that each address has for its response, besides the time that the request asks it to wait.
        traceparent: W3C trace context that submitted runs continue; default: the environment's `TRACEPARENT`, which a
            runner sets for a job. One that is malformed is not sent.

    Raises:
        ValueError: An address is no http(s) URL, `ca_file` cannot be read, or a proxy variable is invalid.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        token: str | None = None,
        ca_file: str = "",
        patience_seconds: float = 10.0,
        answer_seconds: float = 40.0,
        traceparent: str | None = None,
    ) -> None:
        self._transport = Transport([urls] if isinstance(urls, str) else urls, token=token, ca_file=ca_file)
        self._patience = patience_seconds
        self._answer_seconds = answer_seconds
        trace = inherited_traceparent() if traceparent is None else checked_traceparent(traceparent)
        self._trace_headers = {} if trace is None else {"traceparent": trace}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; leaving the `async with` block does it too."""
        await self._transport.close()

    @property
    def url(self) -> str:
        """Address that the next call tries first."""
        return self._transport.url

    @property
    def answers(self) -> int:
        """Number of calls that a coordinator has answered, errors included."""
        return self._transport.answers

    async def submit(self, request: RunRequest, *, idempotency_key: str | None = None) -> Submitted:
        """Submit a run.

        Calls with the same idempotency key and body create one run within 24 hours, and repeats return the first
        response.

        Args:
            request: The run.
            idempotency_key: Up to 255 characters; default: a new one for each call.

        Raises:
            Refused: 400 for invalid parameters, and for a parent that is a descendant, of another owner or too deep;
                404 for an unknown session or parent; 409 for a session that exists, and for a key that was used with
                another body; 422 for an invalid field.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex, **self._trace_headers}
        return cast(
            "Submitted", await self._call("POST", "/runs", body=request.body(), headers=headers, expects=("run_id",))
        )

    async def submit_batch(
        self, requests: Sequence[RunRequest], *, idempotency_keys: Sequence[str] | None = None
    ) -> list[BatchItem]:
        """Submit up to 1,000 runs; return one item for each, in the same order.

        An invalid item fails alone: its `code` is 4xx and its `detail` says why. `idempotency_keys` holds one key for
        each request; default: new keys.
        """
        keys = idempotency_keys or [uuid4().hex for _ in requests]
        runs = [{**request.body(), "idempotency_key": key} for request, key in zip(requests, keys, strict=True)]
        answer = await self._call(
            "POST", "/runs/batch", body={"runs": runs}, headers=self._trace_headers, expects=("results",)
        )
        return cast("list[BatchItem]", answer["results"])

    async def run(self, run_id: str, *, wait: float | None = None) -> Run:
        """Return the run.

        Args:
            run_id: The run.
            wait: Seconds, at most 60, for which the coordinator waits for its end before it responds.

        Raises:
            Refused: 404 for an unknown run.
        """
        seconds = self._answer_seconds + (wait or 0)
        path = f"/runs/{_quoted(run_id)}"
        answer = await self._call("GET", path, query={"wait": wait}, seconds=seconds, expects=("run_id",))
        return cast("Run", answer)

    async def wait_for_run(self, run_id: str, *, seconds: float | None = None) -> Run:
        """Return the run once it is `completed`, `failed` or `stopped`.

        Args:
            run_id: The run.
            seconds: Longest wait; then the run is returned as it is. None: no limit.

        Raises:
            Refused: 404 for an unknown run.
        """
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
        """Return one page of runs, newest first.

        Filters combine; `labels` must all be equal. Pass `next_cursor` of the page as `cursor` to get the next page.
        """
        query = {
            "status": status,
            "session_id": session_id,
            "runner_id": runner_id,
            "agent_name": agent_name,
            "label": [f"{key}={value}" for key, value in (labels or {}).items()] or None,
            "limit": limit,
            "cursor": cursor,
            "cursor_in_body": 1,
        }
        return cast("RunPage", await self._call("GET", "/runs", query=query, expects=("runs",)))

    async def run_result(self, run_id: str) -> Result:
        """Return the newest result of the run.

        Raises:
            Refused: 400 unless the run is completed, 404 when no result of it is kept.
        """
        return cast("Result", await self._call("GET", f"/runs/{_quoted(run_id)}/result", expects=("result_text",)))

    async def stop_run(self, run_id: str) -> Stopped:
        """Stop the run, and its session if this run is the session's active one; return the status it led to.

        Raises:
            Refused: 404 for an unknown run.
        """
        return cast("Stopped", await self._call("POST", f"/runs/{_quoted(run_id)}/stop", expects=("session_id",)))

    async def wait(self, run_id: str, *, seconds: float | None = None) -> CompletedRun:
        """Return the run with its result once it is completed. Goes on while no coordinator answers.

        Args:
            run_id: The run.
            seconds: Longest wait; None: no limit.

        Raises:
            RunFailed: The run failed; the exception has its error.
            RunStopped: The run was stopped.
            WaitTimeout: The run had not ended after `seconds`.
            Refused: 404 for an unknown run.
        """
        return await wait_for_completion(self, run_id, seconds)

    def follow(
        self, run_id: str | None = None, *, session_id: str | None = None, after: str | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Iterate over the events of a run, or of a session, from its first one until its end.

        Events are those of `session_events`, without `id`; each comes once, in the order of the feed, over restarts of
        the coordinator. A session ends when none of its runs is unfinished.

        Args:
            run_id: The run; or
            session_id: The session.
            after: `feed_cursor` of an event: begin behind it.

        Raises:
            Refused: 404 for an unknown run or session.
            HistoryLost: Events behind the position are no longer kept, or the position is none.

        Examples:
            >>> async for event in coordinator.follow(run_id):
            ...     print(event["event_type"], text_of(event))
        """
        return follow_events(self, run_id, session_id, after)

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
        """Iterate over events from now on, or after a cursor, without an end. Close the iterator when done.

        Each item comes once, in the same order for every reader. A connection that breaks, is silent for 40 s or is
        ended by the coordinator is replaced at the next address, and reading goes on behind the last item. A cursor
        that cannot be resumed gives a `reset` and an `init` item instead of a gap.

        Args:
            session_id: Only events of this session.
            run_id: Only events of this run.
            created_by: Only events of this owner's sessions, while authentication is on.
            types: Names of the events to get, such as `run_updated`, which comes only when named; empty: all others.
            after: `id` of an item, or `feed_cursor` of a list.
            init: Begin with an `init` item, which holds all sessions as they are.
            patience_seconds: Longest time without a stream from any address; None: try for ever.
            on_connection: Called with an address and the reason for which it gave no stream, or None when it gave one.

        Raises:
            Refused: An error response that will not pass, such as 401 or 403.
            Unreachable: No address gave a stream for `patience_seconds`.
            ValueError: `after` is no cursor.

        Examples:
            >>> async with aclosing(coordinator.feed(types=["run_updated"])) as items:
            ...     async for item in items:
            ...         print(item.id, item.data["run"]["status"])
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

    async def runners(self) -> list[Runner]:
        """Return all registered runners, each once. Reads pages of 1,000 until they end or a cursor repeats."""
        found: dict[str, Runner] = {}
        cursor: str | None = None
        used: set[str | None] = set()
        while cursor not in used:
            used.add(cursor)
            query = {"limit": LARGEST_PAGE, "cursor": cursor}
            page = await self._call("GET", "/runners", query=query, expects=("runners",))
            found.update((runner["runner_id"], runner) for runner in page["runners"])
            cursor = page.get("next_cursor")
        return list(found.values())

    async def health(self) -> Readiness:
        """Return the readiness of the coordinator. Raises `Refused` 503 while it starts or drains."""
        return cast("Readiness", await self._call("GET", "/health/ready", expects=("status",)))

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
        """Call with growing pauses until `patience_seconds` are over or the failure cannot pass."""
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
            except CallFailed as error:
                pause = backoff.pause(error.retry_after)
                if not error.is_transient or monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)


def _quoted(name: str) -> str:
    return quote(name, safe="")
