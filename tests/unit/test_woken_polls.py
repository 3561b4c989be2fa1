"""Polls woken for submitted runs: which are chosen, and which run is left over when their claims have ended."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

from app.polls.poll import Poll, PollEvent, PollState
from app.polls.woken import SubmittedRun, WokenPolls
from models.claims.claim import Ask
from models.claims.matching import Demands, Offer
from models.claims.polls import PollAnswer


class Connection:
    def has_gone(self) -> bool:
        return False


class Held:
    """Waiting polls of one process, by number; ``left`` counts wake-ups of dispatch."""

    def __init__(self, *tags: str, wanted: int = 1, draining: bool = False) -> None:
        self.left = 0
        self.polls = [_waiting(number, tag, wanted, draining=draining) for number, tag in enumerate(tags)]
        self.woken = WokenPolls({poll.ask.poll_id: poll for poll in self.polls}, self._leave)

    def _leave(self) -> None:
        self.left += 1

    def wake(self, *runs: tuple[str, str]) -> list[str]:
        """Wake polls for runs, each given with the tag that it demands; return the runs left."""
        submitted = [SubmittedRun(run_id, Demands(tags=(tag,))) for run_id, tag in runs]
        return [run.run_id for run in self.woken.wake(submitted)]

    def claim(self, number: int, *run_ids: str) -> None:
        """End the claim of a poll, which got these runs."""
        poll = self.polls[number]
        poll.note(PollAnswer(runs=[cast("Any", _Run(run_id)) for run_id in run_ids], parked=not run_ids))
        self.woken.settle(poll)

    def states(self) -> list[PollState]:
        return [poll.state for poll in self.polls]


class _Run:
    def __init__(self, run_id: str) -> None:
        self.run_id = run_id


def _waiting(number: int, tag: str, wanted: int, *, draining: bool) -> Poll:
    offer = Offer(number, "host", "/p", "e", None, frozenset({tag}))
    ask = Ask(f"poll_{number}", f"lnch_{number}", wanted, "web-1", None, offer, draining=draining)
    poll = Poll(ask, 0.0, cast("Any", Connection()))
    poll.handle(PollEvent.NOTHING)
    return poll


async def test_each_run_wakes_one_poll_that_may_take_it() -> None:
    held = Held("a", "b", "a")
    assert held.wake(("run_1", "a"), ("run_2", "a"), ("run_3", "a"), ("run_4", "c")) == ["run_3", "run_4"]
    assert held.states() == [PollState.WOKEN, PollState.WAITING, PollState.WOKEN]


async def test_poll_that_wants_no_run_is_not_woken() -> None:
    assert Held("a", wanted=0).wake(("run_1", "a")) == ["run_1"]


async def test_poll_of_a_draining_runner_is_not_woken() -> None:
    held = Held("a", draining=True)
    assert held.wake(("run_1", "a")) == ["run_1"]
    run = SubmittedRun("run_1", Demands(tags=("a",)))
    assert not held.woken.may_wake(run.demands)
    assert not held.woken.wake_named("poll_0", run)
    held.polls[0].handle(PollEvent.RECHECK)
    held.polls[0].note(PollAnswer(parked=True, registered_at=datetime.now(UTC)))
    assert held.wake(("run_1", "a")) == []


async def test_named_poll_that_is_busy_is_replaced_by_another() -> None:
    held = Held("a", "a")
    run = SubmittedRun("run_1", Demands(tags=("a",)))
    assert held.woken.wake_named("poll_0", run)
    assert held.woken.wake_named("poll_0", SubmittedRun("run_2", run.demands))
    assert not held.woken.wake_named("poll_0", SubmittedRun("run_3", run.demands))
    assert held.states() == [PollState.WOKEN, PollState.WOKEN]


async def test_polls_that_take_each_others_runs_leave_none() -> None:
    held = Held("a", "a")
    held.wake(("run_1", "a"), ("run_2", "a"))
    held.claim(0, "run_2")
    held.claim(1, "run_1")
    assert held.left == 0


async def test_run_whose_poll_took_that_of_another_is_left_when_the_other_gets_nothing() -> None:
    held = Held("a", "a")
    held.wake(("run_1", "a"), ("run_2", "a"))
    held.claim(0, "run_2")
    assert held.left == 0
    held.claim(1)
    assert held.left == 1


async def test_poll_that_takes_two_runs_relieves_the_other() -> None:
    held = Held("a", "a", wanted=2)
    held.wake(("run_1", "a"), ("run_2", "a"))
    held.claim(0, "run_1", "run_2")
    held.claim(1)
    assert held.left == 0


async def test_poll_that_takes_an_older_run_leaves_its_own() -> None:
    """Nothing is known of the older run: dispatch may have looked for it before the submission."""
    held = Held("a")
    held.wake(("run_1", "a"))
    held.claim(0, "run_0")
    assert held.left == 1


async def test_run_taken_by_poll_that_was_not_woken_is_not_left() -> None:
    held = Held("a", "a")
    held.wake(("run_1", "a"))
    held.polls[1].state = PollState.CLAIMING
    held.claim(1, "run_1")
    held.claim(0)
    assert held.left == 0


async def test_poll_woken_in_vain_is_passed_for_a_while() -> None:
    held = Held("a")
    held.wake(("run_1", "a"))
    held.claim(0)
    assert held.left == 1
    assert held.wake(("run_2", "a")) == ["run_2"]
    held.polls[0].passed_until = asyncio.get_running_loop().time()
    assert held.wake(("run_3", "a")) == []


async def test_poll_that_ends_before_its_claim_leaves_its_run() -> None:
    held = Held("a")
    held.wake(("run_1", "a"))
    held.polls[0].handle(PollEvent.GONE)
    held.woken.settle(held.polls[0])
    assert held.left == 1
