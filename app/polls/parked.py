"""Hold the parked polls of this process: each ends with at most one answer (ARCHITECTURE, A poll).

A poll's handler makes one call to the database at a time; the re-check looks only at polls whose handler is idle. Runs
claimed for a poll that is over are released by the task that notices.
"""

import asyncio
import contextlib
import functools
import random
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from app.http.bodies import Gone
from app.http.problems import VerbRefused, accepted
from app.lifecycle.drain import Drain
from app.lifecycle.hangup import Client
from app.polls.heartbeats import RunnerSubject
from app.writes.attempts import Unavailable
from app.writes.poll_queues import PollVerbs
from app.writes.retries import retry_until
from models.claims.claim import Ask
from models.claims.delivery import Claim
from models.claims.poll_stops import Undelivered
from models.claims.polls import PollAnswer
from models.core.errors import CoordinatorError
from models.core.ids import new_id
from models.state.runs import Run
from runtime import logs, metrics

Result = TypeVar("Result")


# Past its deadline a poll waits this much longer for a call in progress, then ends without it.
LATE_SECONDS: Final = 2.0


CLEAN_UP_SECONDS: Final = 60.0


log = logs.log(__name__)


class _MustEnd(Exception):
    """The poll must end now although a call of it is in progress."""


@dataclass(slots=True, eq=False)
class Poll:
    """Held poll of a runner. ``ends_at`` is the event loop's time."""

    ask: Ask
    ends_at: float
    client: Client
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    inbox: list[Claim] = field(default_factory=list)
    found: PollAnswer | CoordinatorError | None = None
    under_way: asyncio.Future[Any] | None = None
    idle: bool = False
    rechecked: asyncio.Future[None] | None = None


class Polls:
    """Polls that this process holds, and their periodic re-check, which makes up for every lost message."""

    def __init__(
        self, verbs: PollVerbs, drain: Drain, instance: str, recheck_seconds: float, *, max_per_runner: int = 5
    ) -> None:
        self._verbs = verbs
        self._drain = drain
        self._instance = instance
        self._recheck_seconds = recheck_seconds
        self._held: dict[str, Poll] = {}
        self._max_per_runner = max_per_runner
        # Polls of one runner in the order of their arrival.
        self._of_runner: dict[RunnerSubject, dict[str, Poll]] = {}
        self._by_runner: dict[str, dict[str, Poll]] = {}
        # Polls named by a wake-up since they were last re-checked.
        self._due: dict[str, Poll] = {}
        self._all_due = False
        self._nudged = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        drain.on_start(self._spread_ends)

    async def hold(
        self, runner_id: str, wanted: int, seconds: float, client: Client, subject: str | None = None
    ) -> PollAnswer | None:
        """Return runs or orders for the runner as soon as there are any; None when the time is up (204).

        ``subject`` is the caller's, None for an admin. Raises VerbRefused when Postgres says that the runner is not
        registered, Gone when the client disconnected; never because Postgres or Redis is away. The caller must send the
        answer without giving way to other tasks before.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + min(seconds, self._drain.give_up_in())
        poll = Poll(Ask(new_id("poll_"), runner_id, wanted, self._instance, subject), ends_at, client)
        self._admit(poll)
        metrics.POLLS_PARKED.set(len(self._held))
        client.gone.add_done_callback(lambda _: poll.woken.set())
        answer: PollAnswer | None = None
        try:
            answer = await self._answer(poll)
            _raise_if_gone(poll)
        except _MustEnd:
            self._run_in_background(self._clean_up(poll))
        except VerbRefused:
            raise
        except BaseException:
            self._run_in_background(self._clean_up(poll, answer))
            raise
        finally:
            self._dismiss(poll)
            metrics.POLLS_PARKED.set(len(self._held))
        return answer

    @property
    def any_held(self) -> bool:
        """Return whether this process holds a poll, parked or not."""
        return bool(self._held)

    def runners(self) -> Iterable[RunnerSubject]:
        """Return the runners of all held polls, with their subjects."""
        return {(poll.ask.runner_id, poll.ask.subject) for poll in self._held.values()}

    def deliver(self, assignments: Iterable[Mapping[str, str]]) -> None:
        """Hand the assignments of one message to their polls; a poll that is over has deleted its row already."""
        for assignment in assignments:
            poll = self._held.get(assignment["poll_id"])
            if poll is not None:
                poll.inbox.append(Claim(assignment["run_id"], assignment["claim_token"]))
                poll.woken.set()

    def nudge(self) -> None:
        """Re-check all polls soon: messages may have been lost, or Postgres is back."""
        self._all_due = True
        self._nudged.set()

    def look_again(self, runner_ids: Iterable[str]) -> None:
        """Re-check the polls of these runners now: a commit may have left something for them.

        Postgres says what: the message may be old. A poll whose handler or re-check is busy, and may have looked before
        that commit, is re-checked once it is idle again.
        """
        for runner_id in runner_ids:
            self._due.update(self._by_runner.get(runner_id, {}))
        if self._due:
            self._nudged.set()

    async def recheck_forever(self) -> None:
        """Re-check all idle polls every ~2 s in one query, and in between those that were named."""
        now = asyncio.get_running_loop().time
        next_look = now() + self._pause()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_look):
                    await self._nudged.wait()
            self._nudged.clear()
            everything = self._all_due or now() >= next_look
            self._all_due = False
            try:
                await self._recheck(everything=everything)
            except Exception:
                log.exception("re-check failed")
            if everything:
                next_look = now() + self._pause()

    def _pause(self) -> float:
        return self._recheck_seconds * random.uniform(0.85, 1.0)

    async def close(self) -> None:
        """Wait up to 2 s for releases in progress."""
        if self._background:
            await asyncio.wait(self._background, timeout=2.0)

    def _admit(self, poll: Poll) -> None:
        """Hold the poll; with too many of one runner, end the oldest, since a refusal may end the runner."""
        self._held[poll.ask.poll_id] = poll
        siblings = self._of_runner.setdefault((poll.ask.runner_id, poll.ask.subject), {})
        siblings[poll.ask.poll_id] = poll
        self._by_runner.setdefault(poll.ask.runner_id, {})[poll.ask.poll_id] = poll
        if len(siblings) > self._max_per_runner:
            oldest = siblings.pop(next(iter(siblings)))
            oldest.ends_at = min(oldest.ends_at, asyncio.get_running_loop().time())
            oldest.woken.set()

    def _dismiss(self, poll: Poll) -> None:
        del self._held[poll.ask.poll_id]
        self._due.pop(poll.ask.poll_id, None)
        of_runner = self._by_runner[poll.ask.runner_id]
        del of_runner[poll.ask.poll_id]
        if not of_runner:
            del self._by_runner[poll.ask.runner_id]
        runner_subject = (poll.ask.runner_id, poll.ask.subject)
        siblings = self._of_runner.get(runner_subject)
        if siblings is not None:
            siblings.pop(poll.ask.poll_id, None)
            if not siblings:
                del self._of_runner[runner_subject]

    async def _answer(self, poll: Poll) -> PollAnswer | None:
        answer = await self._step(poll, self._verbs.answer.one(poll.ask))
        if answer is not None and answer.parked:
            answer = await self._step(poll, self._verbs.claim.one(poll.ask))
        while answer is None or answer.empty:
            if not await self._wait_for_news(poll):
                return await self._give_up(poll)
            if poll.found is not None:
                answer, poll.found = accepted(poll.found), None
            elif poll.inbox:
                answer = await self._confirm(poll)
        return answer

    async def _wait_for_news(self, poll: Poll) -> bool:
        """Wait for an assignment or a result of the re-check. False: the time is up. Raises Gone."""
        loop = asyncio.get_running_loop()
        while True:
            _raise_if_gone(poll)
            end = poll.ends_at if poll.rechecked is None else poll.ends_at + LATE_SECONDS
            if poll.rechecked is None and (poll.found is not None or poll.inbox):
                return True
            if loop.time() >= end:
                if poll.rechecked is not None:
                    raise _MustEnd
                return False
            poll.woken.clear()
            poll.idle = True
            if poll.ask.poll_id in self._due:
                self._nudged.set()
            try:
                async with asyncio.timeout_at(end):
                    await poll.woken.wait()
            except TimeoutError:
                pass
            finally:
                poll.idle = False

    async def _confirm(self, poll: Poll) -> PollAnswer | None:
        """Deliver only claims that the database still holds for this poll: the message may be old."""
        claims, poll.inbox = poll.inbox, []
        outcomes = await self._step(poll, self._verbs.confirm.many((claim, 0) for claim in claims))
        runs = [run for run in outcomes or () if isinstance(run, Run)]
        if not runs:
            # The waiting row was deleted by the assignment; the re-check inserts it again.
            self.nudge()
        return _answer_with(runs)

    async def _give_up(self, poll: Poll) -> PollAnswer | None:
        """Delete the waiting row; if an assignment already did, deliver its runs, late as it is."""
        runs = await self._step(poll, self._verbs.give_up.one(poll.ask.poll_id))
        if runs is None:
            # Postgres is away: runs claimed for this poll must not wait for a runner that polls no more.
            raise _MustEnd
        return _answer_with(runs)

    async def _step(self, poll: Poll, call: Awaitable[Result | CoordinatorError]) -> Result | None:
        """Make one call to the database; return None when it failed. Raises Gone or _MustEnd rather than wait on."""
        poll.under_way = asyncio.ensure_future(call)
        patience = max(0.0, poll.ends_at - asyncio.get_running_loop().time()) + LATE_SECONDS
        await asyncio.wait({poll.under_way, poll.client.gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not poll.under_way.done():
            raise Gone if poll.client.gone.done() else _MustEnd
        step, poll.under_way = poll.under_way, None
        if step.cancelled() or step.exception() is not None:
            # Postgres is away, or the verb failed and is in the log: the poll waits in any case (promise 5).
            return None
        result: Result | CoordinatorError = step.result()
        return accepted(result)

    async def _recheck(self, *, everything: bool) -> None:
        concerned = self._held if everything else self._due
        polls = [poll for poll in concerned.values() if poll.idle and poll.found is None and not poll.inbox]
        if not polls:
            return
        done = asyncio.get_running_loop().create_future()
        for poll in polls:
            poll.rechecked = done
            # A wake-up from here on may belong to a commit after this look.
            self._due.pop(poll.ask.poll_id, None)
        try:
            if everything:
                results = await self._verbs.recheck.many((poll.ask, 0) for poll in polls)
            else:
                results = await self._recheck_named(polls)
            for poll, result in zip(polls, results, strict=True):
                if isinstance(result, CoordinatorError) or (isinstance(result, PollAnswer) and not result.empty):
                    poll.found = result
        finally:
            for poll in polls:
                poll.rechecked = None
                over = poll.client.gone.done() or poll.ends_at <= done.get_loop().time()
                if poll.found is not None or poll.inbox or over:
                    poll.woken.set()
            done.set_result(None)

    async def _recheck_named(self, polls: Sequence[Poll]) -> list[PollAnswer | CoordinatorError | Unavailable]:
        """Look at named polls: first for stops, the usual reason, in one round trip; for the rest at everything."""
        asks = {poll.ask.poll_id: poll.ask for poll in polls}
        answers = dict(zip(asks, await self._verbs.tell.many((ask, 0) for ask in asks.values()), strict=True))
        rest = [poll_id for poll_id, answer in answers.items() if not isinstance(answer, PollAnswer) or answer.empty]
        if rest:
            answers.update(zip(rest, await self._verbs.claim.many((asks[poll_id], 0) for poll_id in rest), strict=True))
        return list(answers.values())

    async def _clean_up(self, poll: Poll, answer: PollAnswer | None = None) -> None:
        """Release the runs and take back the orders that an ended poll did not deliver, and delete its waiting row."""
        unheard = [answer] if answer is not None else []
        if poll.under_way is not None:
            await asyncio.wait({poll.under_way})
            unheard += _answers_in(poll.under_way)
        if poll.rechecked is not None:
            await asyncio.wait({poll.rechecked})
        if isinstance(poll.found, PollAnswer):
            unheard.append(poll.found)
        try:
            await self._release(run for undelivered in unheard for run in undelivered.runs)
            await self._untell(poll.ask.runner_id, unheard)
            late = await retry_until(
                lambda: self._verbs.give_up.one(poll.ask.poll_id), CLEAN_UP_SECONDS, self._drain.over
            )
            await self._release(accepted(late))
        except Unavailable:
            log.warning("clean-up of a poll failed, its rows expire", poll_id=poll.ask.poll_id)

    async def _release(self, runs: Iterable[Run]) -> None:
        for run in {run.run_id: run for run in runs}.values():
            claim = Claim(run.run_id, run.claim_token or "")
            await retry_until(functools.partial(self._verbs.release.one, claim), CLEAN_UP_SECONDS, self._drain.over)

    async def _untell(self, runner_id: str, unheard: Sequence[PollAnswer]) -> None:
        sessions = tuple(session_id for answer in unheard for session_id in answer.stop_sessions)
        item = Undelivered(runner_id, sessions, any(answer.deregistered for answer in unheard))
        if item.sessions or item.leave:
            await retry_until(lambda: self._verbs.untell.one(item), CLEAN_UP_SECONDS, self._drain.over)

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _spread_ends(self) -> None:
        now = asyncio.get_running_loop().time()
        for poll in self._held.values():
            poll.ends_at = min(poll.ends_at, now + self._drain.give_up_in())
            poll.woken.set()


def _raise_if_gone(poll: Poll) -> None:
    if poll.client.has_gone():
        raise Gone


def _answer_with(runs: list[Run]) -> PollAnswer | None:
    return PollAnswer(runs=runs) if runs else None


def _answers_in(step: asyncio.Future[Any]) -> list[PollAnswer]:
    """Return what a finished step found for the poll, whatever kind of step it was."""
    if step.cancelled() or step.exception() is not None:
        return []
    match step.result():
        case PollAnswer() as answer:
            return [answer]
        case list() as outcomes:
            return [PollAnswer(runs=[run for run in outcomes if isinstance(run, Run)])]
        case _:
            return []
