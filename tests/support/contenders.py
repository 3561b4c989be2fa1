"""Run contenders for the same rows: all at once in threads, or step by step in every order."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import combinations
from threading import Barrier
from typing import Any, TypeVar

from sqlalchemy import Engine, text

from runtime.postgres import is_retryable
from testkit.waiting import eventually
from tests.support.db_verbs import backend

T = TypeVar("T")
BARRIER_SECONDS = 30


def run_in_threads(number: int, contend: Callable[[int], T]) -> list[T]:
    """Return the result of each of ``number`` threads by index; all start together. Raise the first failure."""
    barrier = Barrier(number)

    def begin(place: int) -> T:
        barrier.wait(BARRIER_SECONDS)
        return contend(place)

    with ThreadPoolExecutor(number) as threads:
        return [future.result() for future in [threads.submit(begin, place) for place in range(number)]]


def with_one_repeat(engine: Engine, verb: Callable[..., T], items: Sequence[Any]) -> T:
    """Run one transaction, repeated at most once, as the group commit does; raise what fails then."""
    try:
        with engine.begin() as connection:
            return verb(connection, items)
    except Exception as fault:
        if not is_retryable(fault):
            raise
    with engine.begin() as connection:
        return verb(connection, items)


class Stepper:
    """Contender whose steps the test orders: a thread with a connection, and a transaction until it commits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection = engine.connect()
        self._backend = 0
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[Any] = Future()
        self._last.set_result(None)

    def do(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Do one step in the open transaction; return once it is done or waits for another's lock."""
        return self._submit(self._step, verb, *args, **kwargs)

    def commit(self) -> None:
        self._submit(self._connection.commit)

    def rollback(self) -> None:
        self._submit(self._connection.rollback)

    @property
    def done(self) -> bool:
        """Return whether all its steps are done."""
        return self._last.done()

    @property
    def waits(self) -> bool:
        """Return whether it is waiting for a lock."""
        return is_waiting(self._engine, self._backend)

    def _submit(self, step: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        before, self._last = self._last, self._thread.submit(step, *args, **kwargs)
        if before.done():
            eventually(self._settled, what="a step that is done or waits")
        return self._last

    def _step(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        # Read it each time: behind a pooler the next transaction may have another backend.
        self._backend = backend(self._connection)
        return verb(self._connection, *args, **kwargs)

    def _settled(self) -> bool:
        wait([self._last], timeout=0.02)
        return self._last.done() or self.waits

    def close(self) -> None:
        try:
            self._last.result(BARRIER_SECONDS)
        finally:
            self._thread.shutdown()
            self._connection.close()


@contextmanager
def steppers(engine: Engine, number: int) -> Iterator[list[Stepper]]:
    """Open contenders with a transaction each; at the end all must have ended."""
    ours = [Stepper(engine) for _ in range(number)]
    try:
        yield ours
    finally:
        for one in ours:
            one.rollback()
        for one in ours:
            one.close()


def is_waiting(engine: Engine, pid: int) -> bool:
    """Return whether this backend is waiting for a lock."""
    with engine.connect() as connection:
        statement = text("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = :pid")
        return bool(connection.execute(statement, {"pid": pid}).scalar())


def interleavings(first: Sequence[T], second: Sequence[T]) -> Iterator[list[T]]:
    """Yield all orders of both sequences that keep the order of each."""
    length = len(first) + len(second)
    for places in combinations(range(length), len(first)):
        one, other = iter(first), iter(second)
        yield [next(one) if place in places else next(other) for place in range(length)]
