"""Run work on Postgres over one connection pool, with time limits and one repeat (ARCHITECTURE, Verbs)."""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from models.core.errors import CoordinatorError
from models.core.plain import NotPlain
from models.schema.driver import ANSWERED
from runtime import logs, metrics
from runtime.loops import wait_for_first
from runtime.postgres import (
    LOCK_TIMEOUT,
    STATEMENT_TIMEOUT,
    autocommit_async,
    is_retryable,
    is_unavailable,
    sqlstate,
    transaction_async,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
T = TypeVar("T")
P = ParamSpec("P")
Work: TypeAlias = Callable[[Connection], T]
Attempt: TypeAlias = Callable[[Work[T]], Awaitable[T]]
Verb: TypeAlias = Callable[[Connection, Sequence[Item]], Sequence[Result | CoordinatorError]]
# Verb of the plain case (docs/architecture.md, Verbs): one statement that answers some items and leaves the others.
PlainVerb: TypeAlias = Callable[[Connection, Sequence[Item]], Sequence[Result | CoordinatorError | NotPlain]]

TIMEOUTS: Final = frozenset({LOCK_TIMEOUT, STATEMENT_TIMEOUT})
# Give up an attempt after this many times the longest silence, even if Postgres goes on answering; that is no outage.
LONGEST_ATTEMPT: Final = 5
# Wait this long once more, to read answers that arrived while this process itself was suspended.
SUSPENDED_SECONDS: Final = 0.5

log = logs.log(__name__)


class Unavailable(Exception):
    """Postgres could not do this now: nothing was acknowledged, and the same call may be repeated."""

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__("The database is not available")
        self.retry_after = retry_after


@dataclass(slots=True)
class _LastAnswer:
    at: float

    def note(self) -> None:
        self.at = _now()


class Attempts:
    """Attempts at Postgres over one connection pool: bounded in time, repeated once, never left half done.

    ``on_contact`` is called after every attempt with whether Postgres answered: readiness derives from it. ``silence``
    is longer than any statement may take (``runtime.postgres.longest_silence``): only a frozen server or network
    answers nothing for so many seconds. Postgres itself cancels a slow statement, which is no outage.
    """

    def __init__(
        self, engine: AsyncEngine, on_contact: Callable[[bool], None] = lambda _: None, *, silence: float = 12.0
    ) -> None:
        self._engine = engine
        self._on_contact = on_contact
        self._silence = silence
        self._abandoned: set[asyncio.Future[Any]] = set()
        event.listen(engine.sync_engine, "after_cursor_execute", _note_answer)

    async def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of ``work`` in one transaction. Raises Unavailable when Postgres is away or too slow."""
        return await self._in_time(
            self._in_transaction, lambda connection: work(connection, *args, **kwargs), name_of(work)
        )

    async def autocommit(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of ``work``, whose statements are transactions of their own: one round trip each.

        Raises Unavailable when Postgres is away or too slow, or a lock was not granted in time.
        """
        return await self._in_time(
            self._in_autocommit, lambda connection: work(connection, *args, **kwargs), name_of(work)
        )

    async def write(self, verb: Verb[Item, Result], items: Sequence[Item]) -> Sequence[Result | CoordinatorError]:
        """Return the results of a verb by ordinal, after its commit (promise 2).

        The items carry their ids, so the repeat after a COMMIT whose answer was lost changes nothing. Raises
        Unavailable, or the database's exception when one item is to blame.
        """
        return await self._with_repeat(self._in_transaction, lambda connection: verb(connection, items), name_of(verb))

    async def write_single_statement(
        self, verb: Callable[[Connection, Sequence[Item]], Sequence[T]], items: Sequence[Item]
    ) -> Sequence[T]:
        """Write like ``write``, by a verb that is one statement: it commits itself, in one round trip."""
        return await self._with_repeat(self._in_autocommit, lambda connection: verb(connection, items), name_of(verb))

    async def _in_time(self, attempt: Attempt[T], work: Work[T], name: str) -> T:
        try:
            return await self._with_repeat(attempt, work, name)
        except DBAPIError as fault:
            if sqlstate(fault) in TIMEOUTS:
                metrics.BATCH_TROUBLES.labels(name, "timed out").inc()
                log.warning("lock or statement timeout", work=name, error=line_of(fault))
                raise Unavailable from fault
            raise

    async def _with_repeat(self, attempt: Attempt[T], work: Work[T], name: str) -> T:
        try:
            return await self._bounded(attempt, work)
        except Exception as fault:
            if not _may_repeat(fault):
                raise
            metrics.BATCH_TROUBLES.labels(name, "repeated").inc()
            log.info("attempt repeated", work=name, error=line_of(fault))
        await asyncio.sleep(random.uniform(0.01, 0.05))
        try:
            return await self._bounded(attempt, work)
        except Exception as fault:
            if not _may_repeat(fault):
                raise
            metrics.BATCH_TROUBLES.labels(name, "unavailable").inc()
            log.warning("Postgres unavailable", work=name, error=line_of(fault))
            raise Unavailable from fault

    async def _bounded(self, attempt: Attempt[T], work: Work[T]) -> T:
        """Run one attempt with a time limit. A frozen Postgres cannot even cancel a statement: the task is abandoned
        then.
        """
        last_answer = _LastAnswer(_now())
        end = last_answer.at + LONGEST_ATTEMPT * self._silence
        task = asyncio.ensure_future(attempt(_noting_answers(work, last_answer)))
        left = 1.0
        try:
            while not task.done() and left > 0:
                left = min(last_answer.at + self._silence, end) - _now()
                await wait_for_first((task,), left if left > 0 else SUSPENDED_SECONDS)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not task.done():
            self._abandon(task)
            self._on_contact(_now() < last_answer.at + self._silence)
            raise Unavailable
        fault = task.exception()
        self._on_contact(fault is None or not is_unavailable(fault))
        return task.result()

    async def _in_transaction(self, work: Work[T]) -> T:
        async with transaction_async(self._engine) as connection:
            return await connection.run_sync(work)

    async def _in_autocommit(self, work: Work[T]) -> T:
        async with autocommit_async(self._engine) as connection:
            return await connection.run_sync(work)

    def _abandon(self, task: asyncio.Future[Any]) -> None:
        self._abandoned.add(task)
        task.add_done_callback(self._forget)
        task.cancel()

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()


def _noting_answers(work: Work[T], last_answer: _LastAnswer) -> Work[T]:
    def note_and_work(connection: Connection) -> T:
        last_answer.note()
        connection.info[ANSWERED] = last_answer.note
        return work(connection)

    return note_and_work


def _note_answer(connection: Connection, *_: object) -> None:
    answered = connection.info.get(ANSWERED)
    if answered is not None:
        answered()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _may_repeat(fault: Exception) -> bool:
    # A full pool is no outage: our own requests fill it, and the next attempt may find a free connection.
    return is_retryable(fault) or isinstance(fault, PoolTimeoutError)


def name_of(work: Any) -> str:
    while isinstance(work, functools.partial):
        work = work.func
    return str(getattr(work, "__name__", "verb"))


def line_of(fault: BaseException) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0][:300]
