"""Wake parked polls of this process for runs that were just submitted: each claims for itself, without a worker."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from app.polls.poll import Poll, PollEvent, PollState
from models.claims.matching import Demands
from runtime import metrics

# Look for a poll among so many of this process, those first that were here first.
MOST_LOOKED_AT: Final = 200
# Wake a poll for no further run so long after one for which it got nothing: its runner may have no capacity left.
PASSED_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class SubmittedRun:
    run_id: str
    demands: Demands


class WokenPolls:
    """Polls that claim for submitted runs, each of which answers for one run until its claim has ended.

    A woken poll takes the run that comes first in the order of claims, which may be another. A run that no poll
    answers for any more is left over: ``leave_to_dispatch`` has the dispatch actor look for it.
    """

    def __init__(self, polls: Mapping[str, Poll], leave_to_dispatch: Callable[[], None]) -> None:
        self._polls = polls
        self._leave_to_dispatch = leave_to_dispatch
        self._claimants: dict[str, Poll] = {}

    def wake(self, runs: Iterable[SubmittedRun]) -> list[SubmittedRun]:
        """Wake a waiting poll for each run; return the runs that none of the polls looked at may take."""
        now = asyncio.get_running_loop().time()
        polls = [poll for poll in islice(self._polls.values(), MOST_LOOKED_AT) if _can_wake(poll, now)]
        left: list[SubmittedRun] = []
        unsatisfied: set[Demands] = set()
        for run in runs:
            poll = None if run.demands in unsatisfied else _first(polls, run.demands)
            if poll is None:
                unsatisfied.add(run.demands)
                left.append(run)
            else:
                self._wake(poll, run)
        return left

    def wake_named(self, poll_id: str, run: SubmittedRun) -> bool:
        """Wake the poll that another process chose; if it has ended or is busy, another one. False: there is none."""
        poll = self._polls.get(poll_id)
        if poll is None or not _can_wake(poll, asyncio.get_running_loop().time()) or not _may_take(poll, run.demands):
            return not self.wake([run])
        self._wake(poll, run)
        return True

    def may_wake(self, demands: Demands) -> bool:
        now = asyncio.get_running_loop().time()
        return any(_can_wake(poll, now) and _may_take(poll, demands) for poll in self._looked_at())

    def settle(self, poll: Poll) -> None:
        """Note that the poll's claim, or the poll, has ended.

        If it took the run of another poll, the other one answers for its run.
        """
        own, poll.claims_for = poll.claims_for, None
        if own is not None:
            self._claimants.pop(own, None)
        taken = [] if poll.answer is None else [run.run_id for run in poll.answer.runs]
        left = None if own in taken else own
        for run_id in taken:
            other = self._claimants.pop(run_id, None)
            if other is not None:
                other.claims_for, left = left, None
                if other.claims_for is not None:
                    self._claimants[other.claims_for] = other
        if left is not None:
            self._leave(poll)

    def _leave(self, poll: Poll) -> None:
        poll.passed_until = asyncio.get_running_loop().time() + PASSED_SECONDS
        metrics.SUBMISSION_WAKEUPS.labels("in vain").inc()
        self._leave_to_dispatch()

    def _looked_at(self) -> Iterable[Poll]:
        return islice(self._polls.values(), MOST_LOOKED_AT)

    def _wake(self, poll: Poll, run: SubmittedRun) -> None:
        poll.claims_for = run.run_id
        self._claimants[run.run_id] = poll
        poll.handle(PollEvent.WAKE)
        metrics.SUBMISSION_WAKEUPS.labels("woken").inc()


def _can_wake(poll: Poll, now: float) -> bool:
    return poll.state is PollState.WAITING and poll.passed_until <= now and not poll.client.has_gone()


def _may_take(poll: Poll, demands: Demands) -> bool:
    ask = poll.ask
    return ask.wanted > 0 and not ask.draining and ask.offer is not None and ask.offer.satisfies(demands)


def _first(polls: Sequence[Poll], demands: Demands) -> Poll | None:
    return next((poll for poll in polls if poll.state is PollState.WAITING and _may_take(poll, demands)), None)
