"""Commit in groups: items that arrive during one transaction share the next (ARCHITECTURE, Verbs)."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from app.writes.attempts import TIMEOUTS, Attempts, PlainVerb, Unavailable, Verb, line_of, name_of
from models.core.errors import CoordinatorError, NotFound, Unstorable
from models.core.plain import NOT_PLAIN, NotPlain
from runtime import logs, metrics
from runtime.postgres import is_item_fault, sqlstate
from runtime.tracing.requests import end_statement

Item = TypeVar("Item")
Result = TypeVar("Result")

# Linger twice as long as the last flush took, within these bounds: a slow machine gets fewer, larger flushes.
SHORTEST_LINGER_SECONDS = 0.001
LONGEST_LINGER_SECONDS = 0.04
MOST_WAITING_BYTES = 256 * 1024**2
FOREIGN_KEY_VIOLATION = "23503"

log = logs.log(__name__)


def no_linger() -> float:
    return 0.0


@dataclass(slots=True, eq=False)
class _Pending(Generic[Item, Result]):
    item: Item
    size: int
    answer: asyncio.Future[Result | CoordinatorError | Unavailable]
    request: object | None = None
    asked_by: logs.Request | None = field(default_factory=logs.request.get)


class GroupCommit(Generic[Item, Result]):
    """Queue of one verb's writes: at most one flush is in flight; a single item is written at once.

    An item whose caller was cancelled still commits. ``before`` is called with the items of each flush when it
    begins, ``refused`` with each item that was, and ``after`` with the items and results of each commit, when their
    answers are set: there they are counted, and wake-ups are sent. ``linger`` returns the seconds by which the next
    flush is delayed to carry more items; None: flush immediately (bulk queues). ``single_statement``: the verb changes
    everything in one statement.

    ``plain``: one statement in front of the verb, executed with each batch in autocommit. It answers the items of the
    plain case and changes nothing for those it answers NOT_PLAIN, which the verb applies afterwards in one
    transaction. So it may reorder items of a batch: it has to leave to the verb each item that touches the same rows as
    another one. An item whose first commit was not heard of may be not plain when it is repeated; the verb answers it
    then. When the statement fails by an item's fault, or a lock or time limit, the verb gets the whole batch, bisected
    at once.
    """

    def __init__(
        self,
        attempts: Attempts,
        verb: Verb[Item, Result],
        *,
        plain: PlainVerb[Item, Result] | None = None,
        after: Callable[[Sequence[Item], Sequence[Result | CoordinatorError]], None] = lambda _, __: None,
        linger: Callable[[], float] | None = no_linger,
        single_statement: bool = False,
        max_items: int = 256,
        max_bytes: int = 4 * 1024**2,
    ) -> None:
        self._attempts = attempts
        self._write = attempts.write_single_statement if single_statement else attempts.write
        self._verb = verb
        self._plain = plain
        self._name = name_of(verb)
        self.before: Callable[[Sequence[Item]], None] = lambda _: None
        self.refused: Callable[[Item, CoordinatorError], None] | None = None
        self._after = after
        self._linger = linger
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._waiting: deque[_Pending[Item, Result]] = deque()
        self._waiting_bytes = 0
        self._flusher: asyncio.Task[None] | None = None
        # Bisections in progress, each with the requests whose later items wait for it.
        self._bisecting: dict[asyncio.Task[None], set[object]] = {}

    @property
    def name(self) -> str:
        return self._name

    def __len__(self) -> int:
        return len(self._waiting)

    async def one(self, item: Item, size: int = 0) -> Result | CoordinatorError:
        """Return the item's result after its commit. Raises Unavailable when Postgres could not take it."""
        outcome = await self.submit(item, size)
        if isinstance(outcome, Unavailable):
            raise outcome
        return outcome

    def submit(
        self, item: Item, size: int = 0, request: object | None = None
    ) -> asyncio.Future[Result | CoordinatorError | Unavailable]:
        """Return the future of the item's result, or of Unavailable. A future costs less than the task that awaits
        ``one``.
        """
        answer: asyncio.Future[Result | CoordinatorError | Unavailable] = asyncio.get_running_loop().create_future()
        if self._waiting_bytes + size > MOST_WAITING_BYTES:
            answer.set_result(Unavailable())
            return answer
        self._waiting.append(_Pending(item, size, answer, request))
        self._waiting_bytes += size
        self._start_flusher()
        return answer

    async def many(self, items: Iterable[tuple[Item, int]]) -> list[Result | CoordinatorError | Unavailable]:
        """Return the results by ordinal of items given with their sizes in bytes. They may be spread over several
        transactions, which commit in the order of the items.
        """
        request = object()
        return [await answer for answer in [self.submit(item, size, request) for item, size in items]]

    async def close(self) -> None:
        while self._flusher is not None or self._bisecting:
            await asyncio.wait({*self._bisecting, *([self._flusher] if self._flusher else [])})

    def _start_flusher(self) -> None:
        if self._flusher is None and self._waiting:
            self._flusher = asyncio.create_task(self._flush_all())

    async def _flush_all(self) -> None:
        pause = 0.0
        try:
            while self._waiting:
                pause = 0.0 if self._linger is None else max(self._linger(), pause)
                if pause > 0 and len(self._waiting) < self._max_items:
                    await asyncio.sleep(pause)
                pending = self._take()
                if not pending:
                    # The end of the bisection restarts the queue; items that arrive meanwhile do start a flush.
                    break
                begun = time.perf_counter()
                await self._flush(pending)
                # Clients answered by one flush tend to send their next requests together.
                pause = _linger_seconds(time.perf_counter() - begun) if len(pending) > 1 else 0.0
        finally:
            self._flusher = None

    def _take(self) -> list[_Pending[Item, Result]]:
        """Return the next batch; empty while every waiting item belongs to a request in bisection."""
        pending: list[_Pending[Item, Result]] = []
        passed: list[_Pending[Item, Result]] = []
        size = 0
        bisected = set[object]().union(*self._bisecting.values())
        while self._waiting and len(pending) < self._max_items:
            entry = self._waiting[0]
            if entry.request in bisected:
                passed.append(self._waiting.popleft())
            elif not pending or size + entry.size <= self._max_bytes:
                pending.append(self._waiting.popleft())
                size += entry.size
            else:
                break
        self._waiting.extendleft(reversed(passed))
        self._waiting_bytes -= size
        return pending

    async def _flush(self, pending: list[_Pending[Item, Result]]) -> None:
        """Commit the batch; if one item is to blame, find it by bisection without holding up the queue.

        Later items of the same requests wait until then: the items of one request commit in their order.
        """
        _log_for(pending)
        try:
            self.before([entry.item for entry in pending])
        except Exception:
            log.exception("callback before a flush failed", work=self._name)
        rest = await self._commit_plain(self._plain, pending) if self._plain is not None else pending
        if rest is not None and (not rest or await self._commit(rest)):
            return
        guilty = pending if rest is None else rest
        task = asyncio.create_task(self._bisect(guilty))
        self._bisecting[task] = _requests(guilty)
        task.add_done_callback(self._bisected)

    def _bisected(self, task: asyncio.Task[None]) -> None:
        del self._bisecting[task]
        self._start_flusher()

    async def _commit_plain(
        self, plain: PlainVerb[Item, Result], pending: list[_Pending[Item, Result]]
    ) -> list[_Pending[Item, Result]] | None:
        """Commit the plain items of the batch and set their results; return the others, for the verb.

        None: one of several items is to blame or blocked, and nothing was committed.
        """

        def write(items: Sequence[Item]) -> Awaitable[Sequence[Result | CoordinatorError | NotPlain]]:
            return self._attempts.write_single_statement(plain, items)

        results = await self._attempt(write, name_of(plain), pending)
        if isinstance(results, Exception):
            # Leave a faulty item to the verb; one that is blocked has waited for the lock already.
            if len(pending) > 1:
                return None
            if sqlstate(results) not in TIMEOUTS:
                return pending
            self._settle(pending, [_fault_of_one(results)])
            return []
        return [entry for entry, result in zip(pending, results, strict=False) if result is NOT_PLAIN]

    async def _commit(self, pending: list[_Pending[Item, Result]]) -> bool:
        """Commit the batch and set its results; return False when one of several items is to blame and nothing was
        committed.
        """

        def write(items: Sequence[Item]) -> Awaitable[Sequence[Result | CoordinatorError]]:
            return self._write(self._verb, items)

        results = await self._attempt(write, self._name, pending)
        if not isinstance(results, Exception):
            return True
        if len(pending) > 1:
            return False
        log.warning("item failed alone", work=self._name, error=line_of(results))
        self._settle(pending, [_fault_of_one(results)])
        return True

    async def _attempt(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Result | CoordinatorError | NotPlain]]],
        name: str,
        pending: list[_Pending[Item, Result]],
    ) -> Sequence[Result | CoordinatorError | NotPlain] | Exception:
        """Commit the batch, set the results, and return them, empty if no item has one; return the fault of an item,
        by which nothing was committed.
        """
        _log_for(pending)
        begun = time.perf_counter()
        try:
            results = await write([entry.item for entry in pending])
            self._require_one_result_each(pending, results)
        except Unavailable as away:
            self._settle(pending, [away] * len(pending))
        except Exception as fault:  # noqa: BLE001 -- whatever it is, the callers must be answered
            if is_item_fault(fault):
                if len(pending) > 1:
                    metrics.BATCH_TROUBLES.labels(name, "bisected").inc()
                return fault
            _fail(pending, fault)
        except BaseException:
            self._settle(pending, [Unavailable()] * len(pending))
            raise
        else:
            self._finish(name, pending, results, time.perf_counter() - begun)
            return results
        return []

    def _finish(
        self,
        name: str,
        pending: list[_Pending[Item, Result]],
        results: Sequence[Result | CoordinatorError | NotPlain],
        seconds: float,
    ) -> None:
        done = [
            (entry, result) for entry, result in zip(pending, results, strict=True) if not isinstance(result, NotPlain)
        ]
        if not done:
            return
        answers = [result for _, result in done]
        self._settle([entry for entry, _ in done], answers)
        try:
            if self.refused is not None:
                self._report_refusals(self.refused, done)
            self._after([entry.item for entry, _ in done], answers)
        except Exception:
            log.exception("callback after a commit failed", work=name)
        metrics.BATCH_ITEMS.labels(name).observe(len(done))
        metrics.BATCH_SECONDS.labels(name).observe(seconds)
        traces = [entry.asked_by.trace for entry, _ in done if entry.asked_by is not None and entry.asked_by.trace]
        if traces:
            end_statement(name, traces, len(done), seconds)

    @staticmethod
    def _report_refusals(
        refused: Callable[[Item, CoordinatorError], None],
        done: Sequence[tuple[_Pending[Item, Result], Result | CoordinatorError]],
    ) -> None:
        for entry, result in done:
            if isinstance(result, CoordinatorError):
                _log_for([entry])
                refused(entry.item, result)
        _log_for([entry for entry, _ in done])

    async def _bisect(self, pending: list[_Pending[Item, Result]]) -> None:
        """Commit both halves. An item blocked by a lock delays, in the other half, its own request's items only."""
        middle = len(pending) // 2
        first, second = pending[:middle], pending[middle:]
        if await self._commit(first):
            await self._commit_or_bisect(second)
            return
        requests = _requests(first)
        free = [entry for entry in second if entry.request not in requests]
        await asyncio.gather(self._bisect(first), self._commit_or_bisect(free))
        await self._commit_or_bisect([entry for entry in second if entry.request in requests])

    async def _commit_or_bisect(self, pending: list[_Pending[Item, Result]]) -> None:
        if pending and not await self._commit(pending):
            await self._bisect(pending)

    def _require_one_result_each(self, pending: Sequence[Any], results: Sequence[Any]) -> None:
        # Results given to the wrong callers would be worse than none; the items are safe to repeat.
        if len(pending) != len(results):
            raise RuntimeError(f"{self._name} gave {len(results)} results for {len(pending)} items")

    @staticmethod
    def _settle(
        pending: Sequence[_Pending[Item, Result]], results: Sequence[Result | CoordinatorError | Unavailable]
    ) -> None:
        for entry, result in zip(pending, results, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(result)


def _log_for(pending: Sequence[_Pending[Any, Any]]) -> None:
    """Have lines of this task name the request whose item is written; none while there are several items."""
    logs.request.set(pending[0].asked_by if len(pending) == 1 else None)


def _requests(pending: Iterable[_Pending[Any, Any]]) -> set[object]:
    return {entry.request for entry in pending} - {None}


def _linger_seconds(took: float) -> float:
    return min(max(2 * took, SHORTEST_LINGER_SECONDS), LONGEST_LINGER_SECONDS)


def _fail(pending: Sequence[_Pending[Any, Any]], fault: Exception) -> None:
    log.error("verb failed", exc_info=fault)
    for entry in pending:
        if not entry.answer.done():
            entry.answer.set_exception(fault)
            # Mark it as retrieved: the caller may be gone, and the log has it.
            entry.answer.exception()


def _fault_of_one(fault: Exception) -> CoordinatorError | Unavailable:
    match sqlstate(fault):
        case state if state == FOREIGN_KEY_VIOLATION:
            # The row was deleted between the verb's read and its insert.
            return NotFound("session", "")
        case state if state in TIMEOUTS:
            return Unavailable()
        case _:
            return Unstorable("The database refuses a value of this request")
