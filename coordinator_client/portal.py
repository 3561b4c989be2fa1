import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar
from weakref import WeakSet

from coordinator_client.on_loop import TaskCancelled, TaskOnLoop

# Seconds in which an interrupted call, or a closed portal's thread, ends.
END_SECONDS = 5.0

R = TypeVar("R")


class Portal:
    """Event loop in a daemon thread of its own, begun by the first call, for coroutines that other threads wait for.

    In a process made by a fork the thread does not exist: the first call there begins a new one.

    Args:
        closing: Called in the loop before it ends.
    """

    def __init__(self, closing: Callable[[], Awaitable[None]] | None = None) -> None:
        self._closing = closing
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False
        _portals.add(self)

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Return what the coroutine returns; an interrupt (Ctrl-C) cancels it.

        Raises:
            RuntimeError: The portal is closed, or this is its own thread.
        """
        task = self.start(coroutine)
        try:
            return task.outcome.result()
        except TaskCancelled:
            raise RuntimeError("the client was closed during the call") from None
        except BaseException:
            if not task.outcome.done():
                task.cancel()
                _await_end(task.outcome)
            raise

    def start(self, coroutine: Coroutine[Any, Any, R]) -> TaskOnLoop[R]:
        """Start the coroutine and return at once."""
        try:
            with self._lock:
                # Within the lock: a closed loop would never start it.
                return TaskOnLoop(self._begun(), coroutine)
        except BaseException:
            coroutine.close()
            raise

    def close(self) -> None:
        """Cancel running calls, call `closing` and end the thread; repeating it is harmless."""
        with self._lock:
            self._is_closed = True
            thread, loop, stop = self._thread, self._loop, self._stop
            self._thread = self._loop = self._stop = None
            if thread is None or loop is None or stop is None:
                return
            loop.call_soon_threadsafe(stop.set)
        if thread is not threading.current_thread():
            thread.join(END_SECONDS)

    def forget_thread(self) -> None:
        """Forget the thread, its loop and its locks, which a forked process does not have."""
        self._lock = threading.Lock()
        # Kept: a loop that is freed would take its descriptors off the parent's selector.
        _left_by_fork.append(self._loop)
        self._thread = self._loop = self._stop = None

    def _begun(self) -> asyncio.AbstractEventLoop:
        if self._is_closed:
            raise RuntimeError("the client is closed")
        if self._loop is None:
            begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
            thread = threading.Thread(target=_run, args=(begun, self._closing), name="coordinator-client", daemon=True)
            thread.start()
            self._loop, self._stop = begun.result()
            self._thread = thread
        if self._thread is threading.current_thread():
            raise RuntimeError("called from the client's own event loop, which would wait for itself")
        return self._loop


def _run(
    begun: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]", closing: Callable[[], Awaitable[None]] | None
) -> None:
    main = _main(begun, closing)
    try:
        asyncio.run(main)
    except BaseException as error:
        main.close()
        if begun.done():
            raise
        # No loop could be made, such as for want of descriptors.
        begun.set_exception(error)


async def _main(
    begun: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]", closing: Callable[[], Awaitable[None]] | None
) -> None:
    """Run the loop until it is told to stop. Refers to no portal, so that one that is dropped can be freed."""
    stop = asyncio.Event()
    begun.set_result((asyncio.get_running_loop(), stop))
    await stop.wait()
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    if closing is not None:
        await closing()


def _await_end(outcome: "Future[Any]") -> None:
    ended = threading.Event()
    outcome.add_done_callback(lambda _: ended.set())
    ended.wait(END_SECONDS)


_portals: "WeakSet[Portal]" = WeakSet()
_left_by_fork: list[Any] = []


def _after_fork() -> None:
    for portal in list(_portals):
        portal.forget_thread()


os.register_at_fork(after_in_child=_after_fork)
