"""Client for programs without an event loop.

>>> with SyncCoordinatorClient("http://127.0.0.1:8765") as coordinator:
...     submitted = coordinator.submit(RunRequest(parameters={"prompt": "hello"}))
...     print(coordinator.wait(submitted["run_id"]).text)
"""

import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from weakref import finalize

from coordinator_client.client import CoordinatorClient
from coordinator_client.portal import Portal

P = ParamSpec("P")
R = TypeVar("R")


class _Connection:
    """The asynchronous client of this process; a forked process gets one of its own."""

    def __init__(self, make: Callable[[], CoordinatorClient]) -> None:
        self._make = make
        self._client = make()
        self._pid = os.getpid()

    @property
    def client(self) -> CoordinatorClient:
        if self._pid != os.getpid():
            self._client, self._pid = self._make(), os.getpid()
        return self._client

    async def close(self) -> None:
        await self.client.aclose()


def _synchronous(
    method: Callable[Concatenate[CoordinatorClient, P], Coroutine[Any, Any, R]],
) -> "Callable[Concatenate[SyncCoordinatorClient, P], R]":
    @wraps(method)
    def call(self: "SyncCoordinatorClient", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._portal.run(method(self._connection.client, *args, **kwargs))

    return call


def _iterated(
    method: Callable[Concatenate[CoordinatorClient, P], AsyncGenerator[R, None]],
) -> "Callable[Concatenate[SyncCoordinatorClient, P], Generator[R, None, None]]":
    @wraps(method)
    def iterate(self: "SyncCoordinatorClient", /, *args: P.args, **kwargs: P.kwargs) -> Generator[R, None, None]:
        items = method(self._connection.client, *args, **kwargs)
        try:
            while item := self._portal.run(_next(items)):
                yield item[0]
        finally:
            # A closed client has closed the stream.
            with suppress(RuntimeError):
                self._portal.run(_close(items))

    return iterate


async def _next(items: AsyncGenerator[R, None]) -> tuple[R] | None:
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return None


async def _close(items: AsyncGenerator[R, None]) -> None:
    await items.aclose()


class SyncCoordinatorClient:
    """Client of one coordinator, for any number of threads: each call blocks its thread until the answer is there.

    It has the calls of `CoordinatorClient` with the same arguments, results and errors, and runs that client in a
    background thread. It may be used where an event loop runs already, as in notebooks. Ctrl-C cancels the call. A
    forked process gets connections of its own with its first call. Close the client, or use it in a `with` block;
    otherwise it is closed with the program. See `CoordinatorClient` for the arguments.

    Raises:
        ValueError: As for `CoordinatorClient`.
        RuntimeError: The client is closed (any call).
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
        self._connection = _Connection(
            partial(
                CoordinatorClient,
                urls,
                token=token,
                ca_file=ca_file,
                patience_seconds=patience_seconds,
                answer_seconds=answer_seconds,
                traceparent=traceparent,
            )
        )
        self._portal = Portal(closing=self._connection.close)
        self._finalizer = finalize(self, self._portal.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the background thread; calls under way raise `RuntimeError`."""
        self._finalizer()

    @property
    def url(self) -> str:
        """Address that the next call tries first."""
        return self._connection.client.url

    @property
    def answers(self) -> int:
        """Number of calls that a coordinator has answered, errors included."""
        return self._connection.client.answers

    submit = _synchronous(CoordinatorClient.submit)
    submit_batch = _synchronous(CoordinatorClient.submit_batch)
    wait = _synchronous(CoordinatorClient.wait)
    follow = _iterated(CoordinatorClient.follow)

    run = _synchronous(CoordinatorClient.run)
    wait_for_run = _synchronous(CoordinatorClient.wait_for_run)
    runs = _synchronous(CoordinatorClient.runs)
    run_result = _synchronous(CoordinatorClient.run_result)
    stop_run = _synchronous(CoordinatorClient.stop_run)

    sessions = _synchronous(CoordinatorClient.sessions)
    session = _synchronous(CoordinatorClient.session)
    session_status = _synchronous(CoordinatorClient.session_status)
    session_result = _synchronous(CoordinatorClient.session_result)
    session_events = _synchronous(CoordinatorClient.session_events)
    stop_session = _synchronous(CoordinatorClient.stop_session)
    delete_session = _synchronous(CoordinatorClient.delete_session)

    feed = _iterated(CoordinatorClient.feed)
    health = _synchronous(CoordinatorClient.health)

    replay = _synchronous(CoordinatorClient.replay)
    preview_bulk = _synchronous(CoordinatorClient.preview_bulk)
    start_bulk = _synchronous(CoordinatorClient.start_bulk)
    bulk = _synchronous(CoordinatorClient.bulk)
    bulks = _synchronous(CoordinatorClient.bulks)
    stop_bulk = _synchronous(CoordinatorClient.stop_bulk)

    hold_run = _synchronous(CoordinatorClient.hold_run)
    release_run = _synchronous(CoordinatorClient.release_run)
    holds = _synchronous(CoordinatorClient.holds)
    set_hold = _synchronous(CoordinatorClient.set_hold)
    remove_hold = _synchronous(CoordinatorClient.remove_hold)
    put_schedule = _synchronous(CoordinatorClient.put_schedule)
    schedule = _synchronous(CoordinatorClient.schedule)
    schedules = _synchronous(CoordinatorClient.schedules)
    delete_schedule = _synchronous(CoordinatorClient.delete_schedule)
    fires = _synchronous(CoordinatorClient.fires)
    next_times = _synchronous(CoordinatorClient.next_times)
    preview_schedule = _synchronous(CoordinatorClient.preview_schedule)
    pause_schedule = _synchronous(CoordinatorClient.pause_schedule)
    resume_schedule = _synchronous(CoordinatorClient.resume_schedule)
    change_schedules = _synchronous(CoordinatorClient.change_schedules)
    trigger_schedule = _synchronous(CoordinatorClient.trigger_schedule)
    backfill_schedule = _synchronous(CoordinatorClient.backfill_schedule)

    me = _synchronous(CoordinatorClient.me)
    explain_run = _synchronous(CoordinatorClient.explain_run)
    explain_runner = _synchronous(CoordinatorClient.explain_runner)
    drain_runner = _synchronous(CoordinatorClient.drain_runner)
    undrain_runner = _synchronous(CoordinatorClient.undrain_runner)
    search_runs = _synchronous(CoordinatorClient.search_runs)
    failures = _synchronous(CoordinatorClient.failures)
    run_timeline = _synchronous(CoordinatorClient.run_timeline)
    session_tree = _synchronous(CoordinatorClient.session_tree)
    run_counts = _synchronous(CoordinatorClient.run_counts)
    queues = _synchronous(CoordinatorClient.queues)
    series = _synchronous(CoordinatorClient.series)
    keys = _synchronous(CoordinatorClient.keys)
    audit = _synchronous(CoordinatorClient.audit)
    system = _synchronous(CoordinatorClient.system)

    agents = _synchronous(CoordinatorClient.agents)
    agent = _synchronous(CoordinatorClient.agent)
    set_agent_status = _synchronous(CoordinatorClient.set_agent_status)
    entries = _synchronous(CoordinatorClient.entries)
    entry = _synchronous(CoordinatorClient.entry)
    put_entry = _synchronous(CoordinatorClient.put_entry)
    delete_entry = _synchronous(CoordinatorClient.delete_entry)

    put_webhook = _synchronous(CoordinatorClient.put_webhook)
    webhooks = _synchronous(CoordinatorClient.webhooks)
    webhook = _synchronous(CoordinatorClient.webhook)
    delete_webhook = _synchronous(CoordinatorClient.delete_webhook)
    rotate_webhook_secret = _synchronous(CoordinatorClient.rotate_webhook_secret)
    test_webhook = _synchronous(CoordinatorClient.test_webhook)
    webhook_deliveries = _synchronous(CoordinatorClient.webhook_deliveries)
    replay_webhook_delivery = _synchronous(CoordinatorClient.replay_webhook_delivery)

    runners = _synchronous(CoordinatorClient.runners)
    register = _synchronous(CoordinatorClient.register)
    poll = _synchronous(CoordinatorClient.poll)
    report = _synchronous(CoordinatorClient.report)
    heartbeat = _synchronous(CoordinatorClient.heartbeat)
    report_session_status = _synchronous(CoordinatorClient.report_session_status)
    deregister = _synchronous(CoordinatorClient.deregister)
    bind = _synchronous(CoordinatorClient.bind)
    append_events = _synchronous(CoordinatorClient.append_events)
