"""Wait for a condition, with a deadline: the only way in which tests wait."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


def eventually(condition: Callable[[], T], deadline: float = 30, *, every: float = 0.01, what: str = "") -> T:
    """Return the first true value of `condition`, polled repeatedly; raise AssertionError after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(_missed(what, deadline, value))
        time.sleep(every)
    return value


async def eventually_async(
    condition: Callable[[], Awaitable[T]], deadline: float = 30, *, every: float = 0.01, what: str = ""
) -> T:
    """Do the same for a condition that is awaited."""
    end = time.monotonic() + deadline
    while not (value := await condition()):
        if time.monotonic() > end:
            raise AssertionError(_missed(what, deadline, value))
        await anyio.sleep(every)
    return value


def _missed(what: str, deadline: float, value: object) -> str:
    return f"{what or 'the condition'} did not come true within {deadline:g} s (last: {value!r})"
