import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

from runtime.logs import log

_JITTER: Final = 0.9

logger = log(__name__)


async def run_forever(
    step: Callable[[], Awaitable[Any]],
    *,
    failure: str,
    every: Callable[[], float] | None = None,
    woken: asyncio.Event | None = None,
    pause_after_failure: float = 0.0,
    expected: tuple[type[Exception], ...] = (),
    silent: tuple[type[Exception], ...] = (),
) -> NoReturn:
    """Call `step` until cancelled: at once and then after `every()` seconds, or earlier when `woken` is set; without
    `every` only when `woken` is set. `step` clears `woken`, before it reads what the waker wrote.

    A step that fails ends nothing. `failure` is logged once for each streak of one type of error: without a traceback
    for an `expected` error, not at all for a `silent` one, which is reported elsewhere. After any failure the loop
    sleeps for `pause_after_failure` seconds before it waits as usual.
    """
    last: type[Exception] | None = None
    if every is None and woken is not None:
        await woken.wait()
    while True:
        try:
            await step()
            last = None
        except silent:
            await asyncio.sleep(pause_after_failure)
        except Exception as error:  # noqa: BLE001 -- logged below, and the next step may succeed
            if type(error) is not last:
                _log(failure, error, is_expected=isinstance(error, expected))
            last = type(error)
            await asyncio.sleep(pause_after_failure)
        await _wait(None if every is None else every(), woken)


async def wait_for_first(futures: Sequence[asyncio.Future[Any]], seconds: float) -> None:
    """Return when one of the futures is done or the time is up: ``asyncio.wait`` at half its cost."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def release(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_later(seconds, release)
    for future in futures:
        future.add_done_callback(release)
    try:
        await waiter
    finally:
        timer.cancel()
        for future in futures:
            future.remove_done_callback(release)


def jittered(seconds: float) -> float:
    """Return a random 90 to 100 % of the seconds, so that processes started together do not stay in step."""
    return seconds * random.uniform(_JITTER, 1.0)


async def _wait(seconds: float | None, woken: asyncio.Event | None) -> None:
    if woken is None:
        await asyncio.sleep(seconds or 0.0)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await woken.wait()


def _log(failure: str, error: Exception, *, is_expected: bool) -> None:
    if is_expected:
        # The first line only: a statement and its values follow in errors of the database.
        logger.warning(failure, error=str(error).partition("\n")[0])
    else:
        logger.error(failure, exc_info=error)
