import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from coordinator_client.backoff import Backoff
from coordinator_client.errors import CallFailed, Refused
from coordinator_client.types import TERMINAL_STATUSES, Result, Run

if TYPE_CHECKING:
    from coordinator_client.client import CoordinatorClient

# Longest time for which one request of `wait` is held.
HELD_SECONDS = 30.0
# Seconds that a call under way has beyond the time of `wait`.
SPARE_SECONDS = 2.0

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class CompletedRun:
    """Run that is completed, with its newest result; None when no result of it is kept."""

    run: Run
    result: Result | None

    @property
    def text(self) -> Any:
        """Text of the result; None without one."""
        return None if self.result is None else self.result["result_text"]

    @property
    def data(self) -> Any:
        """JSON value of the result; None without one."""
        return None if self.result is None else self.result["result_data"]


class RunNotCompleted(Exception):
    """Base class of the ends of a run other than `completed`.

    Attributes:
        run: The run.
        error: Reason; empty when there is none.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.error = run["error"] or ""
        super().__init__(f"{run['run_id']} {run['status']}{f': {self.error}' if self.error else ''}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run,)


class RunFailed(RunNotCompleted):
    """Raised when the run failed."""


class RunStopped(RunNotCompleted):
    """Raised when the run was stopped."""


class WaitTimeout(TimeoutError):
    """Raised when the run did not end in time; it goes on.

    Attributes:
        run_id: The run.
        seconds: Time that was waited.
    """

    def __init__(self, run_id: str, seconds: float) -> None:
        self.run_id = run_id
        self.seconds = seconds
        super().__init__(f"{run_id} has not ended within {seconds:g} s")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run_id, self.seconds)


async def wait_for_completion(client: "CoordinatorClient", run_id: str, seconds: float | None) -> CompletedRun:
    if seconds is None:
        return await _completion(client, run_id, None)
    try:
        # A client without an answer goes on for its own `patience_seconds`.
        async with asyncio.timeout(seconds + SPARE_SECONDS):
            return await _completion(client, run_id, seconds)
    except WaitTimeout:
        raise
    except TimeoutError:
        raise WaitTimeout(run_id, seconds) from None


async def _completion(client: "CoordinatorClient", run_id: str, seconds: float | None) -> CompletedRun:
    deadline = None if seconds is None else monotonic() + seconds
    while True:
        left = HELD_SECONDS if deadline is None else max(0.0, min(HELD_SECONDS, deadline - monotonic()))
        try:
            run = await insist(partial(client.run, run_id, wait=left), deadline)
        except CallFailed as error:
            if error.is_transient and seconds is not None:
                raise WaitTimeout(run_id, seconds) from error
            raise
        if run["status"] in TERMINAL_STATUSES:
            return await _outcome(client, run)
        if seconds is not None and left == 0:
            raise WaitTimeout(run_id, seconds)


async def insist(call: Callable[[], Awaitable[R]], deadline: float | None = None) -> R:
    """Repeat the call while it fails for a reason that may pass, until the deadline; return its answer."""
    backoff = Backoff()
    while True:
        try:
            return await call()
        except CallFailed as error:
            pause = backoff.pause(error.retry_after)
            if not error.is_transient or (deadline is not None and monotonic() + pause > deadline):
                raise
        await asyncio.sleep(pause)


async def _outcome(client: "CoordinatorClient", run: Run) -> CompletedRun:
    match run["status"]:
        case "failed":
            raise RunFailed(run)
        case "stopped":
            raise RunStopped(run)
    try:
        result = await insist(partial(client.run_result, run["run_id"]))
    except Refused as refused:
        if refused.status != 404:
            raise
        result = None
    return CompletedRun(run, result)
