"""Group commit: what arrives while one transaction is under way rides together in the next (ARCHITECTURE, Verbs)."""

import asyncio
import functools
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from models.errors import CoordinatorError, NotFound, Unstorable
from runtime import logs, metrics
from runtime.postgres import (
    LOCK_TIMEOUT,
    STATEMENT_TIMEOUT,
    autocommit_async,
    is_item_fault,
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
Verb: TypeAlias = Callable[[Connection, Sequence[Item]], Sequence[Result | CoordinatorError]]

# Twice as long as the last flush took, within these: a machine that is slow just now gets fewer, larger ones.
SHORTEST_GATHER_SECONDS = 0.001
LONGEST_GATHER_SECONDS = 0.04
# What takes longer than this is counted as held.
PROMPT_SECONDS = 1.0
FOREIGN_KEY_VIOLATION = "23503"
_TIMEOUTS = frozenset({LOCK_TIMEOUT, STATEMENT_TIMEOUT})
# Longer than any statement may take: only a frozen server or network is given up by it.
ATTEMPT_SECONDS = 12.0

log = logs.log(__name__)


class Unavailable(Exception):
    """Postgres could not take this now; nothing was acknowledged, and the same call may be repeated."""

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__("The database is not available")
        self.retry_after = retry_after


class Attempts:
    """Tries at Postgres over one pool of connections: bounded in time, repeated once, never left half done.

    ``on_contact`` hears after every try whether Postgres was there: readiness is made from it.
    """

    def __init__(self, engine: AsyncEngine, on_contact: Callable[[bool], None] = lambda _: None) -> None:
        self._engine = engine
        self._on_contact = on_contact
        self._left_behind: set[asyncio.Future[Any]] = set()

    async def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``work`` reads. Raises Unavailable when Postgres is away or too slow."""
        return await self._in_time(self._together, lambda connection: work(connection, *args, **kwargs), _name(work))

    async def autocommit(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``work`` does where each statement is a transaction of its own: one round trip each.

        Raises Unavailable when Postgres is away or too slow, or what it wants is locked for too long.
        """
        return await self._in_time(self._alone, lambda connection: work(connection, *args, **kwargs), _name(work))

    async def write(self, verb: Verb[Item, Result], items: Sequence[Item]) -> Sequence[Result | CoordinatorError]:
        """Results of a verb by ordinal, after its commit (promise 2).

        The items carry their ids, so the repeat after a COMMIT whose answer was lost changes nothing. Raises
        Unavailable, or the database's exception when one item is to blame.
        """
        return await self._twice(self._together, lambda connection: verb(connection, items), _name(verb))

    async def write_alone(self, verb: Verb[Item, Result], items: Sequence[Item]) -> Sequence[Result | CoordinatorError]:
        """The same for a verb that changes everything in one statement: it commits itself, in one round trip."""
        return await self._twice(self._alone, lambda connection: verb(connection, items), _name(verb))

    async def _in_time(self, attempt: Callable[[Work[T]], Awaitable[T]], work: Work[T], name: str) -> T:
        try:
            return await self._twice(attempt, work, name)
        except DBAPIError as fault:
            if sqlstate(fault) in _TIMEOUTS:
                raise Unavailable from fault
            raise

    async def _twice(self, attempt: Callable[[Work[T]], Awaitable[T]], work: Work[T], name: str) -> T:
        """A lost connection, deadlock or serialisation failure repeats the whole once."""
        try:
            return await self._bounded(attempt, work)
        except Exception as fault:
            if not _worth_another(fault):
                raise
            metrics.BATCH_TROUBLES.labels(name, "repeated").inc()
            log.info("repeated", work=name, error=_line(fault))
        await asyncio.sleep(random.uniform(0.01, 0.05))
        try:
            return await self._bounded(attempt, work)
        except Exception as fault:
            if not _worth_another(fault):
                raise
            metrics.BATCH_TROUBLES.labels(name, "unavailable").inc()
            log.warning("unavailable", work=name, error=_line(fault))
            raise Unavailable from fault

    async def _bounded(self, attempt: Callable[[Work[T]], Awaitable[T]], work: Work[T]) -> T:
        """One try. A frozen Postgres does not even let a statement be cancelled: the try is left behind then."""
        task = asyncio.ensure_future(attempt(work))
        try:
            done, _ = await asyncio.wait({task}, timeout=ATTEMPT_SECONDS)
        except asyncio.CancelledError:
            self._leave_behind(task)
            raise
        if not done:
            self._leave_behind(task)
            self._on_contact(False)  # noqa: FBT003 -- a callback takes its argument by position
            raise Unavailable
        fault = task.exception()
        self._on_contact(fault is None or not is_unavailable(fault))
        return task.result()

    async def _together(self, work: Work[T]) -> T:
        async with transaction_async(self._engine) as connection:
            return await connection.run_sync(work)

    async def _alone(self, work: Work[T]) -> T:
        async with autocommit_async(self._engine) as connection:
            return await connection.run_sync(work)

    def _leave_behind(self, task: asyncio.Future[Any]) -> None:
        self._left_behind.add(task)
        task.add_done_callback(self._forget)
        task.cancel()

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._left_behind.discard(task)
        if not task.cancelled():
            task.exception()


def at_once() -> float:
    """What is urgent gathers for no time of its own."""
    return 0.0


@dataclass(slots=True, eq=False)
class _Rider(Generic[Item, Result]):
    item: Item
    size: int
    answer: asyncio.Future[Result | CoordinatorError | Unavailable]


class GroupCommit(Generic[Item, Result]):
    """One verb's queue: at most one flush in flight, a lone item waits for nothing.

    An item whose caller was cancelled still commits. ``after`` is called with the results of each commit when their
    answers are on the way: bells are rung there. ``gather`` says how many seconds the next flush waits for company:
    for what is not urgent. None: its items come many at a time and wait for no others. ``alone``: the verb changes
    everything in one statement.
    """

    def __init__(
        self,
        attempts: Attempts,
        verb: Verb[Item, Result],
        *,
        after: Callable[[Sequence[Result | CoordinatorError]], None] = lambda _: None,
        gather: Callable[[], float] | None = at_once,
        alone: bool = False,
        max_items: int = 256,
        max_bytes: int = 4 * 1024**2,
        max_waiting_bytes: int = 256 * 1024**2,
    ) -> None:
        self._write = attempts.write_alone if alone else attempts.write
        self._verb = verb
        self._name = _name(verb)
        self._after = after
        self._gather = gather
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: deque[_Rider[Item, Result]] = deque()
        self._waiting_bytes = 0
        self._flusher: asyncio.Task[None] | None = None
        self._cutting: set[asyncio.Task[None]] = set()

    async def one(self, item: Item, size: int = 0) -> Result | CoordinatorError:
        """Return the item's result after its commit. Raises Unavailable when Postgres could not take it."""
        outcome = await self._board(item, size)
        if isinstance(outcome, Unavailable):
            raise outcome
        return outcome

    async def many(self, items: Iterable[tuple[Item, int]]) -> list[Result | CoordinatorError | Unavailable]:
        """Results of items given with their sizes in bytes, by ordinal; they may ride in several transactions."""
        return [await answer for answer in [self._board(item, size) for item, size in items]]

    def soon(self, item: Item) -> None:
        """Let the item ride without waiting for what becomes of it."""
        self._board(item, 0)

    async def close(self) -> None:
        """Wait until everything that was accepted is decided."""
        while self._flusher is not None or self._cutting:
            await asyncio.wait({*self._cutting, *([self._flusher] if self._flusher else [])})

    def _board(self, item: Item, size: int) -> asyncio.Future[Result | CoordinatorError | Unavailable]:
        answer: asyncio.Future[Result | CoordinatorError | Unavailable] = asyncio.get_running_loop().create_future()
        if self._waiting_bytes + size > self._max_waiting_bytes:
            answer.set_result(Unavailable())
            return answer
        self._waiting.append(_Rider(item, size, answer))
        self._waiting_bytes += size
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush_all())
        return answer

    async def _flush_all(self) -> None:
        pause = 0.0
        try:
            while self._waiting:
                pause = 0.0 if self._gather is None else max(self._gather(), pause)
                if pause > 0 and len(self._waiting) < self._max_items:
                    await asyncio.sleep(pause)
                riders = self._take()
                begun = time.perf_counter()
                await self._flush(riders)
                # Those just answered together are about to come back together.
                pause = _company(time.perf_counter() - begun) if len(riders) > 1 else 0.0
        finally:
            self._flusher = None

    def _take(self) -> list[_Rider[Item, Result]]:
        riders = [self._waiting.popleft()]
        size = riders[0].size
        while self._waiting and len(riders) < self._max_items and size + self._waiting[0].size <= self._max_bytes:
            riders.append(self._waiting.popleft())
            size += riders[-1].size
        self._waiting_bytes -= size
        return riders

    async def _flush(self, riders: list[_Rider[Item, Result]]) -> None:
        """Commit the riders' items together; if one of them is to blame, find it without holding up the queue."""
        begun = time.perf_counter()
        try:
            results = await self._write(self._verb, [rider.item for rider in riders])
            self._one_each(riders, results)
        except Unavailable as away:
            self._settle(riders, [away] * len(riders))
        except Exception as fault:  # noqa: BLE001 -- whatever it is, the riders must be told
            if not is_item_fault(fault):
                _fail(riders, fault)
            elif len(riders) == 1:
                log.warning("item failed alone", work=self._name, error=_line(fault))
                self._settle(riders, [_fault_of_one(fault)])
            else:
                metrics.BATCH_TROUBLES.labels(self._name, "bisected").inc()
                task = asyncio.create_task(self._cut(riders))
                self._cutting.add(task)
                task.add_done_callback(self._cutting.discard)
        except BaseException:
            self._settle(riders, [Unavailable()] * len(riders))
            raise
        else:
            self._settle(riders, results)
            try:
                self._after(results)
            except Exception:
                log.exception("after a commit", work=self._name)
            metrics.BATCH_ITEMS.labels(self._name).observe(len(riders))
            metrics.BATCH_SECONDS.labels(self._name).observe(time.perf_counter() - begun)

    async def _cut(self, riders: list[_Rider[Item, Result]]) -> None:
        middle = len(riders) // 2
        await self._flush(riders[:middle])
        await self._flush(riders[middle:])

    def _one_each(self, riders: Sequence[Any], results: Sequence[Any]) -> None:
        # Answers of other people's items would be worse than none; the items are safe to repeat.
        if len(riders) != len(results):
            raise RuntimeError(f"{self._name} gave {len(results)} results for {len(riders)} items")

    @staticmethod
    def _settle(
        riders: Sequence[_Rider[Item, Result]], results: Sequence[Result | CoordinatorError | Unavailable]
    ) -> None:
        for rider, result in zip(riders, results, strict=True):
            if not rider.answer.done():
                rider.answer.set_result(result)


def _company(took: float) -> float:
    return min(max(2 * took, SHORTEST_GATHER_SECONDS), LONGEST_GATHER_SECONDS)


async def held(call: Callable[[], Awaitable[Result]], seconds: float, give_up: asyncio.Event) -> Result:
    """Repeat ``call`` while Postgres is away, for a runner that sends each report once (promise 5).

    Raises Unavailable after ``seconds``, or soon after ``give_up`` is set (the process must end).
    """
    end = asyncio.get_running_loop().time() + seconds
    attempt = asyncio.ensure_future(call())
    try:
        await asyncio.wait({attempt}, timeout=min(PROMPT_SECONDS, seconds))
        if attempt.done() and not isinstance(attempt.exception(), Unavailable):
            return attempt.result()
        metrics.REPORTS_HELD.inc()
        try:
            return await _held_on(attempt, call, end, give_up)
        finally:
            metrics.REPORTS_HELD.dec()
    finally:
        attempt.cancel()


async def _held_on(
    attempt: asyncio.Future[Result], call: Callable[[], Awaitable[Result]], end: float, give_up: asyncio.Event
) -> Result:
    now = asyncio.get_running_loop().time
    ending = asyncio.ensure_future(give_up.wait())
    pause = 0.1
    try:
        while True:
            waited_for: set[asyncio.Future[Any]] = {attempt, ending}
            await asyncio.wait(waited_for, timeout=max(0.0, end - now()), return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                await asyncio.wait({attempt}, timeout=min(PROMPT_SECONDS, max(0.0, end - now())))
            if not attempt.done():
                raise Unavailable
            if not isinstance(attempt.exception(), Unavailable) or ending.done() or now() + pause >= end:
                return attempt.result()
            await asyncio.wait({ending}, timeout=pause * random.uniform(0.7, 1.3))
            pause = min(1.0, pause * 2)
            attempt = asyncio.ensure_future(call())
    finally:
        attempt.cancel()
        ending.cancel()


def _fail(riders: Sequence[_Rider[Any, Any]], fault: Exception) -> None:
    log.error("verb failed", exc_info=fault)
    for rider in riders:
        if not rider.answer.done():
            rider.answer.set_exception(fault)
            # The caller may be gone; the log has it.
            rider.answer.exception()


def _fault_of_one(fault: Exception) -> CoordinatorError | Unavailable:
    match sqlstate(fault):
        case state if state == FOREIGN_KEY_VIOLATION:
            # Its row was deleted between the verb's look and its insert.
            return NotFound("session", "")
        case state if state in _TIMEOUTS:
            return Unavailable()
        case _:
            return Unstorable("The database refuses a value of this request")


def _worth_another(fault: Exception) -> bool:
    # A full pool is our own crowd, not an outage, but it may have passed.
    return is_retryable(fault) or isinstance(fault, PoolTimeoutError)


def _name(work: Any) -> str:
    while isinstance(work, functools.partial):
        work = work.func
    return str(getattr(work, "__name__", "verb"))


def _line(fault: BaseException) -> str:
    """The first line of an error; the rest may quote what clients sent."""
    return (str(fault).splitlines() or [type(fault).__name__])[0][:300]
