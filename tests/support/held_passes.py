"""Hold back the answer of a web process's pass of numbering, so that the test decides what happens during it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.writes.attempts import Attempts
from models.feed.sequence import number_unless_busy
from tests.support.web import WebInThread


class HeldPass:
    """First pass after `hold`: `has_run` once the database has done it, over for the process after `release`."""

    def __init__(self, web: WebInThread, attempts: Attempts) -> None:
        self.has_run = threading.Event()
        self._web = web
        self._attempts = attempts
        self._over: asyncio.Event | None = None

    async def autocommit(self, work: Callable[..., Any], *args: Any) -> Any:
        result = await self._attempts.autocommit(work, *args)
        if work is number_unless_busy and not self.has_run.is_set():
            self._over = asyncio.Event()
            self.has_run.set()
            await self._over.wait()
        return result

    def release(self) -> None:
        assert self._over is not None
        self._web._loop.call_soon_threadsafe(self._over.set)


@contextmanager
def held_pass(web: WebInThread, patch: pytest.MonkeyPatch) -> Iterator[HeldPass]:
    numbering = web.app.state.web.numbering
    held = HeldPass(web, numbering._attempts)
    with patch.context() as within:
        within.setattr(numbering, "_attempts", held)
        yield held
