"""Drain a web process: it serves on for some seconds while balancers notice (ARCHITECTURE, Draining)."""

import asyncio
import random
import time
from collections.abc import Callable


class Drain:
    """State of one drain: ``draining`` after the process was told to end, ``seconds`` for which it then serves on.

    ``handed_over``: a successor accepts at this address already, so that readiness checks should keep the address.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.handed_over = False
        self.began = asyncio.Event()
        self.over = asyncio.Event()
        self._since: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: list[Callable[[], None]] = []

    @property
    def draining(self) -> bool:
        return self._since is not None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the loop that serves; ``start`` may be called from a signal handler or another thread."""
        self._loop = loop
        if self._since is not None:
            loop.call_soon_threadsafe(self._begin)

    def on_start(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def start(self, seconds: float | None = None, *, handed_over: bool = False) -> None:
        """Begin to drain, once; ``seconds`` overrides the duration (0: parked polls end now)."""
        if self._since is not None:
            return
        if seconds is not None:
            self.seconds = seconds
        self.handed_over = handed_over
        self._since = time.monotonic()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin)

    def give_up_in(self) -> float:
        """Return the seconds after which a parked request should end: spread over the second half of the drain, ``inf``
        before it.
        """
        if self._since is None:
            return float("inf")
        moment = self._since + self.seconds * random.uniform(0.5, 0.95)
        return max(0.0, moment - time.monotonic())

    def _begin(self) -> None:
        if self.began.is_set():
            return
        self.began.set()
        asyncio.get_running_loop().call_later(self.seconds * 0.95, self.over.set)
        for listener in self._listeners:
            listener()
