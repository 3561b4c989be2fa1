"""Check when a loop calls its step, and how it treats failures."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import structlog

from runtime.loops import jittered, run_forever


class Steps:
    """Step that counts its calls; it fails with the errors given, one after the other, and then succeeds."""

    def __init__(self, *errors: Exception | None, woken: asyncio.Event | None = None) -> None:
        self.count = 0
        self._errors = list(errors)
        self._woken = woken

    async def __call__(self) -> None:
        self.count += 1
        if self._errors and (error := self._errors.pop(0)) is not None:
            raise error
        if self._woken is not None:
            self._woken.clear()


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- the condition is a count of calls
            await asyncio.sleep(0.001)


async def during(loop: Awaitable[None], condition: Callable[[], bool]) -> None:
    task = asyncio.ensure_future(loop)
    try:
        await soon(condition)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_timed_step_comes_at_once_and_again_after_each_interval() -> None:
    steps = Steps()
    await during(run_forever(steps, failure="x", every=lambda: 0.001), lambda: steps.count >= 3)


async def test_event_driven_step_waits_for_its_event() -> None:
    woken = asyncio.Event()
    steps = Steps(woken=woken)
    task = asyncio.ensure_future(run_forever(steps, failure="x", woken=woken))
    await asyncio.sleep(0.01)
    assert steps.count == 0
    for number in (1, 2):
        woken.set()
        await soon(lambda number=number: steps.count == number)
    task.cancel()


async def test_event_ends_interval_early() -> None:
    woken = asyncio.Event()
    steps = Steps(woken=woken)
    task = asyncio.ensure_future(run_forever(steps, failure="x", every=lambda: 3600.0, woken=woken))
    await soon(lambda: steps.count == 1)
    woken.set()
    await soon(lambda: steps.count == 2)
    task.cancel()


async def test_streak_of_one_error_is_logged_once() -> None:
    """Log again after a success, and for another type of error."""
    steps = Steps(OSError("a"), OSError("b"), KeyError("c"), None, KeyError("d"))
    with structlog.testing.capture_logs() as logged:
        await during(run_forever(steps, failure="step failed", every=lambda: 0.0), lambda: steps.count >= 6)
    assert [str(entry["exc_info"]) for entry in logged] == ["a", "'c'", "'d'"]
    assert {entry["event"] for entry in logged} == {"step failed"}


async def test_expected_errors_are_one_line_and_silent_ones_none() -> None:
    steps = Steps(OSError("away\n[SQL: SELECT 'secret']"), TimeoutError("reported elsewhere"), ValueError("odd"))
    loop = run_forever(steps, failure="step failed", every=lambda: 0.0, expected=(OSError,), silent=(TimeoutError,))
    with structlog.testing.capture_logs() as logged:
        await during(loop, lambda: steps.count >= 4)
    assert logged[0] == {"event": "step failed", "error": "away", "log_level": "warning"}
    assert [entry["log_level"] for entry in logged[1:]] == ["error"]


@pytest.mark.parametrize("error", [OSError(), ValueError()])
async def test_failure_is_followed_by_pause_even_if_woken(error: Exception) -> None:
    """Ask a server that is away no more often because wake-ups go on arriving."""
    woken = asyncio.Event()
    woken.set()
    steps = Steps(error, woken=woken)
    began = asyncio.get_running_loop().time()
    await during(
        run_forever(steps, failure="x", woken=woken, pause_after_failure=0.05, silent=(OSError,)),
        lambda: steps.count >= 2,
    )
    assert asyncio.get_running_loop().time() - began >= 0.05


def test_jitter_takes_up_to_a_tenth() -> None:
    assert all(1.8 <= jittered(2.0) <= 2.0 for _ in range(100))
