"""Hold the polls of this process until each ends, with at most one answer (ARCHITECTURE, A poll)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from app.http.bodies import Gone
from app.http.problems import VerbRefused
from app.lifecycle.drain import Drain
from app.lifecycle.hangup import Client
from app.polls.clean_up import CleanUps
from app.polls.heartbeats import RunnerSubject
from app.polls.poll import BEFORE_OR_AFTER_WAITING, Poll, PollAction, PollEvent, PollState, result_of
from app.polls.recheck import Recheck
from app.polls.woken import WokenPolls
from app.writes.attempts import Unavailable
from app.writes.poll_queues import PollVerbs
from models.claims.claim import Ask
from models.claims.delivery import Claim
from models.claims.polls import PollAnswer
from models.claims.script_syncs import SentScripts
from models.core.errors import CoordinatorError
from models.core.ids import new_id
from models.state.runs import Run
from runtime.loops import wait_for_first

# Past its deadline a poll waits this much longer for a call in progress, then ends without it.
CALL_GRACE_SECONDS: Final = 2.0


class Polls:
    def __init__(
        self,
        verbs: PollVerbs,
        drain: Drain,
        instance: str,
        recheck_seconds: float,
        wake_dispatch: Callable[[], None],
        *,
        max_per_runner: int = 5,
    ) -> None:
        self._verbs = verbs
        self._drain = drain
        self._instance = instance
        self._polls: dict[str, Poll] = {}
        self._max_per_runner = max_per_runner
        # Polls of one runner in the order of their arrival.
        self._of_runner: dict[RunnerSubject, dict[str, Poll]] = {}
        self._by_runner: dict[str, dict[str, Poll]] = {}
        self.recheck = Recheck(verbs, self._polls, recheck_seconds)
        self.woken = WokenPolls(self._polls, wake_dispatch)
        self.clean_ups = CleanUps(verbs, drain)
        drain.on_start(self._spread_ends)

    async def hold(
        self, runner_id: str, wanted: int, seconds: float, client: Client, subject: str | None = None
    ) -> PollAnswer | None:
        """Return runs or orders for the runner as soon as there are any; None when the time is up (204).

        ``subject`` is the caller's, None for an admin. Raises VerbRefused when Postgres says that the runner is not
        registered, Gone when the client disconnected; never because Postgres or Redis is away. The caller must send the
        answer without giving way to other tasks before.
        """
        ends_at = asyncio.get_running_loop().time() + min(seconds, self._drain.give_up_in())
        poll = Poll(Ask(new_id("poll_"), runner_id, wanted, self._instance, subject), ends_at, client)
        self._admit(poll)
        client.gone.add_done_callback(lambda _: poll.woken.set())
        try:
            return await self._drive(poll)
        except BaseException:
            poll.handle(PollEvent.GONE)
            raise
        finally:
            self._dismiss(poll)
            if poll.state is PollState.ABANDONED:
                self.clean_ups.start(poll)

    async def confirm_scripts(self, sent: SentScripts) -> None:
        """Record that the answer with these scripts was written; without this they are sent again after 10 s."""
        await self._verbs.confirm_scripts.submit(sent)

    def __len__(self) -> int:
        return len(self._polls)

    def any_parked(self) -> bool:
        """Return whether a poll here may have looked for runs before now and not look again by itself.

        One in its first call either finds a run or is parked and then claims once more.
        """
        return any(poll.state not in BEFORE_OR_AFTER_WAITING for poll in self._polls.values())

    def runners(self) -> Iterable[RunnerSubject]:
        return {(poll.ask.runner_id, poll.ask.subject) for poll in self._polls.values()}

    def deliver(self, assignments: Iterable[Mapping[str, str]]) -> None:
        for assignment in assignments:
            poll = self._polls.get(assignment["poll_id"])
            if poll is not None:
                poll.assign(Claim(assignment["run_id"], assignment["claim_token"]))

    def look_again(self, runner_ids: Iterable[str]) -> None:
        """Re-check the polls of these runners now: a commit may have left something for them.

        Postgres says what: the message may be old.
        """
        for runner_id in runner_ids:
            self.recheck.name(self._by_runner.get(runner_id, {}))

    async def _drive(self, poll: Poll) -> PollAnswer | None:
        verbs = self._verbs
        while True:
            if poll.client.has_gone():
                poll.handle(PollEvent.GONE)
            match poll.take_action():
                case PollAction.ANSWER:
                    await self._call(poll, verbs.answer.submit(poll.ask))
                case PollAction.CLAIM:
                    await self._claim(poll)
                case PollAction.CONFIRM:
                    await self._call(poll, self._confirm(poll.take_assigned()))
                case PollAction.GIVE_UP:
                    await self._call(poll, self._give_up(poll.ask.poll_id))
                case PollAction.REPARK:
                    self.recheck.nudge()
                case PollAction.SEND:
                    return poll.answer
                case PollAction.SEND_EMPTY:
                    return None
                case PollAction.REFUSE if poll.error is not None:
                    raise VerbRefused(poll.error)
                case PollAction.DISCONNECT:
                    raise Gone
                case _:
                    await self._wait(poll)

    async def _claim(self, poll: Poll) -> None:
        if poll.state is not PollState.WOKEN:
            await self._call(poll, self._verbs.claim_parked.submit(poll.ask))
            return
        await self._call(poll, self._verbs.claim_woken.submit(poll.ask))
        self.woken.settle(poll)

    async def _call(self, poll: Poll, call: Awaitable[PollAnswer | CoordinatorError | Unavailable]) -> None:
        """Make one call to the database; do not wait for its end when the client has gone, or it comes too late."""
        poll.call = result = asyncio.ensure_future(call)
        patience = max(0.0, poll.ends_at - asyncio.get_running_loop().time()) + CALL_GRACE_SECONDS
        await wait_for_first((result, poll.client.gone), patience)
        if not result.done():
            poll.handle(PollEvent.GONE if poll.client.gone.done() else PollEvent.LATE)
            return
        poll.call = None
        poll.note(result_of(result))

    async def _wait(self, poll: Poll) -> None:
        overdue = poll.state is PollState.OVERDUE
        end = poll.ends_at + (CALL_GRACE_SECONDS if overdue else 0.0)
        if asyncio.get_running_loop().time() >= end:
            poll.handle(PollEvent.LATE if overdue else PollEvent.TIME_UP)
            return
        poll.woken.clear()
        self.recheck.waits(poll)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await poll.woken.wait()

    async def _confirm(self, claims: Sequence[Claim]) -> PollAnswer:
        outcomes = await self._verbs.confirm.many((claim, 0) for claim in claims)
        return PollAnswer(runs=[run for run in outcomes if isinstance(run, Run)])

    async def _give_up(self, poll_id: str) -> PollAnswer | CoordinatorError:
        """Delete the waiting row; if an assignment already did, deliver its runs, late as it is."""
        runs = await self._verbs.give_up.one(poll_id)
        return runs if isinstance(runs, CoordinatorError) else PollAnswer(runs=runs)

    def _admit(self, poll: Poll) -> None:
        """Hold the poll; with too many of one runner, end the oldest, since a refusal may end the runner."""
        self._polls[poll.ask.poll_id] = poll
        siblings = self._of_runner.setdefault((poll.ask.runner_id, poll.ask.subject), {})
        siblings[poll.ask.poll_id] = poll
        self._by_runner.setdefault(poll.ask.runner_id, {})[poll.ask.poll_id] = poll
        if len(siblings) > self._max_per_runner:
            oldest = siblings.pop(next(iter(siblings)))
            oldest.end_by(asyncio.get_running_loop().time())

    def _dismiss(self, poll: Poll) -> None:
        del self._polls[poll.ask.poll_id]
        self.woken.settle(poll)
        self.recheck.forget(poll)
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

    def _spread_ends(self) -> None:
        now = asyncio.get_running_loop().time()
        for poll in self._polls.values():
            poll.end_by(now + self._drain.give_up_in())
