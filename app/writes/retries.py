import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from app.writes.attempts import Unavailable
from runtime import metrics
from runtime.loops import wait_for_first

Result = TypeVar("Result")

# Count calls that take longer than this as held; wait no longer for an answer once the process must end.
SHORT_WAIT_SECONDS: Final = 1.0


async def retry_until(
    call: Callable[[], Awaitable[Result | Unavailable]], seconds: float, give_up: asyncio.Event
) -> Result:
    """Repeat ``call`` while it raises or returns Unavailable, for at most ``seconds`` (promise 5).

    Raises Unavailable after that, or soon after ``give_up`` is set (the process must end).
    """
    end = asyncio.get_running_loop().time() + seconds
    attempt = asyncio.ensure_future(call())
    try:
        await wait_for_first((attempt,), min(SHORT_WAIT_SECONDS, seconds))
        if attempt.done() and not _found_it_away(attempt):
            return _result_of(attempt)
        metrics.REPORTS_HELD.inc()
        try:
            return await _retry_on(attempt, call, end, give_up)
        finally:
            metrics.REPORTS_HELD.dec()
    finally:
        attempt.cancel()


async def _retry_on(
    attempt: asyncio.Future[Result | Unavailable],
    call: Callable[[], Awaitable[Result | Unavailable]],
    end: float,
    give_up: asyncio.Event,
) -> Result:
    now = asyncio.get_running_loop().time
    ending = asyncio.ensure_future(give_up.wait())
    pause = 0.1
    try:
        while True:
            waited_for: set[asyncio.Future[Any]] = {attempt, ending}
            await asyncio.wait(waited_for, timeout=max(0.0, end - now()), return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                await asyncio.wait({attempt}, timeout=min(SHORT_WAIT_SECONDS, max(0.0, end - now())))
            if not attempt.done():
                raise Unavailable
            if not _found_it_away(attempt) or ending.done() or now() + pause >= end:
                return _result_of(attempt)
            await asyncio.wait({ending}, timeout=pause * random.uniform(0.7, 1.3))
            pause = min(1.0, pause * 2)
            attempt = asyncio.ensure_future(call())
    finally:
        attempt.cancel()
        ending.cancel()


def _found_it_away(attempt: asyncio.Future[Result | Unavailable]) -> bool:
    return isinstance(attempt.exception() or attempt.result(), Unavailable)


def _result_of(attempt: asyncio.Future[Result | Unavailable]) -> Result:
    result = attempt.result()
    if isinstance(result, Unavailable):
        raise result
    return result
