"""How a web process takes its leave: told before uvicorn tells anybody (ARCHITECTURE, Living and dying)."""

import asyncio
import random
import time
from collections.abc import Callable


class Drain:
    """``draining`` once the process was told to end. ``seconds`` is how long it goes on serving after that.

    ``handed_over``: another process accepts at this address by now, so whoever asks for it is to stay.
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
        """Whether the process was told to end."""
        return self._since is not None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the loop that serves; ``start`` may come from a signal handler or another thread."""
        self._loop = loop
        if self._since is not None:
            loop.call_soon_threadsafe(self._begin)

    def on_start(self, listener: Callable[[], None]) -> None:
        """Call this in the event loop when draining begins."""
        self._listeners.append(listener)

    def start(self, seconds: float | None = None, *, handed_over: bool = False) -> None:
        """Begin to drain, once; ``seconds`` overrides how long (0: what is parked gives up now)."""
        if self._since is not None:
            return
        if seconds is not None:
            self.seconds = seconds
        self.handed_over = handed_over
        self._since = time.monotonic()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin)

    def give_up_in(self) -> float:
        """Seconds from now until something parked should give up: spread over the second half of the drain."""
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
