"""Several who want the same thing: all at once in threads, or step by step in every order there is."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import combinations
from threading import Barrier
from typing import Any, TypeVar

from sqlalchemy import Engine, text

from runtime.postgres import is_retryable
from tests.support.db_verbs import backend
from tests.support.waiting import eventually

T = TypeVar("T")
BARRIER_SECONDS = 30


def crowd(number: int, contend: Callable[[int], T]) -> list[T]:
    """What each of ``number`` threads returned, by its place; all start together. The first failure is raised."""
    barrier = Barrier(number)

    def begin(place: int) -> T:
        barrier.wait(BARRIER_SECONDS)
        return contend(place)

    with ThreadPoolExecutor(number) as threads:
        return [next_release.result() for next_release in [threads.submit(begin, place) for place in range(number)]]


def with_one_repeat(engine: Engine, verb: Callable[..., T], items: Sequence[Any]) -> T:
    """One transaction, repeated at most once, as the group commit does: what fails then reaches the caller."""
    try:
        with engine.begin() as connection:
            return verb(connection, items)
    except Exception as fault:
        if not is_retryable(fault):
            raise
    with engine.begin() as connection:
        return verb(connection, items)


class Stepper:
    """One contender who is told when to do what: a thread with a connection, and a transaction until it commits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection = engine.connect()
        self._backend = 0
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[Any] = Future()
        self._last.set_result(None)

    def do(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Do one thing in the open transaction; returns when it is done, or waits for a lock that another holds."""
        return self._submit(self._step, verb, *args, **kwargs)

    def commit(self) -> None:
        self._submit(self._connection.commit)

    def rollback(self) -> None:
        self._submit(self._connection.rollback)

    @property
    def done(self) -> bool:
        """Whether everything it was told to do is done."""
        return self._last.done()

    @property
    def waits(self) -> bool:
        """Whether it waits for a lock at this moment."""
        return is_waiting(self._engine, self._backend)

    def _submit(self, step: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        before, self._last = self._last, self._thread.submit(step, *args, **kwargs)
        if before.done():
            eventually(self._settled, what="a step that is done or waits")
        return self._last

    def _step(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        # Behind a pooler the next transaction may have another.
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
    """Contenders with a transaction each; at the end all must have come to an end."""
    ours = [Stepper(engine) for _ in range(number)]
    try:
        yield ours
    finally:
        for one in ours:
            one.rollback()
        for one in ours:
            one.close()


def is_waiting(engine: Engine, pid: int) -> bool:
    """Whether this backend waits for a lock at this moment."""
    with engine.connect() as connection:
        statement = text("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = :pid")
        return bool(connection.execute(statement, {"pid": pid}).scalar())


def interleavings(first: Sequence[T], second: Sequence[T]) -> Iterator[list[T]]:
    """All orders of both sequences that keep the order of each."""
    length = len(first) + len(second)
    for places in combinations(range(length), len(first)):
        one, other = iter(first), iter(second)
        yield [next(one) if place in places else next(other) for place in range(length)]
