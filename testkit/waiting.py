"""Wait for a condition, with a deadline: the only way in which tests wait."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


def eventually(condition: Callable[[], T], deadline: float = 30, *, every: float = 0, what: str = "") -> T:
    """Return the first true value of `condition`, polled repeatedly; raise AssertionError after `deadline` seconds.

    Poll `every` so many seconds; 0: every 10 ms at first, and the more seldom the longer it takes, up to 100 ms.
    """
    begin = time.monotonic()
    while not (value := condition()):
        now = time.monotonic()
        if now > begin + deadline:
            raise AssertionError(_missed(what, deadline, value))
        time.sleep(every or pause_after(now - begin))
    return value


async def eventually_async(
    condition: Callable[[], Awaitable[T]], deadline: float = 30, *, every: float = 0, what: str = ""
) -> T:
    """Do the same for a condition that is awaited."""
    begin = time.monotonic()
    while not (value := await condition()):
        now = time.monotonic()
        if now > begin + deadline:
            raise AssertionError(_missed(what, deadline, value))
        await anyio.sleep(every or pause_after(now - begin))
    return value


def pause_after(waited: float) -> float:
    """Return the seconds to the next look after so many: a look costs CPU that the awaited processes need."""
    return min(0.1, max(0.01, waited / 20))


def _missed(what: str, deadline: float, value: object) -> str:
    return f"{what or 'the condition'} did not come true within {deadline:g} s (last: {value!r})"
