"""Check random orders of a poll's events against a small model of the database: it ends with at most one answer, and
every run assigned to it is sent with that answer or released.
"""

from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from app.polls.poll import Poll, PollAction, PollEvent, PollState
from models.claims.claim import Ask
from models.claims.delivery import Claim
from models.claims.polls import PollAnswer
from models.core.errors import CoordinatorError, RunnerNotRegistered

CALLS = {PollAction.ANSWER, PollAction.CLAIM, PollAction.CONFIRM, PollAction.GIVE_UP}
ENDS = {PollAction.SEND, PollAction.SEND_EMPTY, PollAction.REFUSE, PollAction.DISCONNECT}
ROW_LOST, REFUSED, STOP = "its row is lost", "its runner is not registered", "a stop is due"
FINDS = st.sampled_from(["", "", "", ROW_LOST, REFUSED, STOP])
SELDOM = st.sampled_from([False] * 5 + [True])


class PollLife(RuleBasedStateMachine):
    """Poll and its handler, the re-check, dispatch, messages, and the database's rows for the poll."""

    def __init__(self) -> None:
        super().__init__()
        self.poll = Poll(Ask("poll_1", "lnch_1", 1, "web-1"), 0.0, cast("Any", None))
        self.row = False
        self.number = 0
        self.stop_due = True
        self.claimed: list[str] = []
        self.messages: list[str] = []
        self.confirming: list[Claim] = []
        self.call: PollAction | None = None
        self.rechecking = False
        # Result of the call or re-check in progress, once it is committed; None: it failed.
        self.committed: list[PollAnswer | CoordinatorError | None] = []
        self.ends: list[PollAction] = []
        self.sent: PollAnswer | None = None
        self.found: list[PollAnswer] = []
        self.handler_acts()

    def in_progress(self) -> bool:
        return self.call is not None or self.rechecking

    @precondition(lambda self: self.call is None and not self.ends)
    @rule()
    def handler_acts(self) -> None:
        """Let the handler run as far as it gets without an event."""
        while self.call is None and not self.ends:
            action = self.poll.take_action()
            if action in CALLS:
                assert not self.rechecking, "two calls at a time"
                self.call = action
                self.confirming = self.poll.take_assigned() if action is PollAction.CONFIRM else []
            elif action in ENDS:
                self.end(action)
            elif action is PollAction.WAIT:
                return

    def end(self, action: PollAction) -> None:
        self.ends.append(action)
        if action is PollAction.SEND:
            self.sent = self.poll.answer

    @precondition(lambda self: self.in_progress() and not self.committed)
    @rule(run_is_ready=st.booleans(), finds=FINDS, handler_is_slow=SELDOM)
    def call_succeeds(self, *, run_is_ready: bool, finds: str, handler_is_slow: bool) -> None:
        self.end_call(self.effect(run_is_ready=run_is_ready, finds=finds))
        if not handler_is_slow:
            self.handler_acts()

    @precondition(lambda self: self.in_progress() and not self.committed)
    @rule(run_is_ready=st.booleans())
    def call_commits(self, *, run_is_ready: bool) -> None:
        self.committed.append(self.effect(run_is_ready=run_is_ready, finds=""))

    @precondition(lambda self: self.in_progress())
    @rule(handler_is_slow=SELDOM)
    def call_fails(self, *, handler_is_slow: bool) -> None:
        """Lose the call, or the answer of one that is committed."""
        self.end_call(None)
        if not handler_is_slow:
            self.handler_acts()

    @precondition(lambda self: self.committed)
    @rule()
    def call_returns(self) -> None:
        self.end_call(self.committed[0])

    def effect(self, *, run_is_ready: bool, finds: str) -> PollAnswer | CoordinatorError:
        if finds == ROW_LOST:
            # Crash restart of Postgres: the table is unlogged.
            self.row = False
        if self.call is PollAction.CONFIRM:
            return PollAnswer(runs=runs([claim.run_id for claim in self.confirming if claim.run_id in self.claimed]))
        if self.call is PollAction.GIVE_UP:
            self.row = False
            return PollAnswer(runs=runs(self.claimed))
        if finds == REFUSED and not self.claimed:
            self.row = False
            return RunnerNotRegistered("lnch_1")
        if self.stop_due and finds == STOP:
            # A stop goes first: what was assigned is released.
            self.row = self.stop_due = False
            self.claimed.clear()
            return PollAnswer(stop_sessions=["ses_1"])
        if run_is_ready and not self.claimed and (self.row or self.call is PollAction.ANSWER):
            self.claim()
        self.row = not self.claimed
        return PollAnswer(runs=runs(self.claimed), parked=self.row)

    def claim(self) -> str:
        self.number += 1
        self.claimed.append(f"run_{self.number}")
        return self.claimed[-1]

    def end_call(self, result: PollAnswer | CoordinatorError | None) -> None:
        self.call, self.rechecking = None, False
        self.committed.clear()
        if isinstance(result, PollAnswer) and not result.empty:
            self.found.append(result)
        self.poll.note(result)

    @precondition(lambda self: self.poll.state is PollState.WAITING)
    @rule()
    def recheck_begins(self) -> None:
        assert not self.in_progress(), "two calls at a time"
        self.rechecking = True
        self.poll.handle(PollEvent.RECHECK)

    @precondition(lambda self: self.poll.state is PollState.WAITING)
    @rule(handler_is_slow=SELDOM)
    def run_is_submitted(self, *, handler_is_slow: bool) -> None:
        assert not self.in_progress(), "two calls at a time"
        self.poll.handle(PollEvent.WAKE)
        if not handler_is_slow:
            self.handler_acts()

    @precondition(lambda self: self.row)
    @rule()
    def run_is_assigned(self) -> None:
        self.row = False
        self.messages.append(self.claim())

    @precondition(lambda self: self.messages and not self.ends)
    @rule(handler_is_slow=SELDOM)
    def message_arrives(self, *, handler_is_slow: bool) -> None:
        self.poll.assign(Claim(self.messages.pop(), "token"))
        if not handler_is_slow:
            self.handler_acts()

    @precondition(lambda self: self.poll.state in {PollState.WAITING, PollState.RECHECKED})
    @rule(happens=SELDOM)
    def time_is_up(self, *, happens: bool) -> None:
        if happens:
            self.poll.handle(PollEvent.TIME_UP)
            self.handler_acts()

    @precondition(lambda self: not self.ends and (self.call is not None or self.poll.state is PollState.OVERDUE))
    @rule(happens=SELDOM)
    def call_comes_too_late(self, *, happens: bool) -> None:
        if happens:
            self.poll.handle(PollEvent.LATE)
            self.end(self.poll.take_action())

    @precondition(lambda self: not self.ends)
    @rule(happens=SELDOM)
    def client_disconnects(self, *, happens: bool) -> None:
        if happens:
            self.poll.handle(PollEvent.GONE)
            self.end(self.poll.take_action())

    @precondition(lambda self: self.ends)
    @rule()
    def nothing_happens(self) -> None:
        """Allow a step after the end."""

    @invariant()
    def at_most_one_end(self) -> None:
        assert len(self.ends) <= 1
        assert all(action in ENDS for action in self.ends)

    def teardown(self) -> None:
        """Let the poll end and its clean-up work: no assigned run is left to a poll that is over."""
        if not self.ends and self.poll.state in {PollState.WAITING, PollState.RECHECKED}:
            self.poll.handle(PollEvent.TIME_UP)
        while self.in_progress() or not self.ends:
            if self.in_progress():
                result = self.committed[0] if self.committed else self.effect(run_is_ready=False, finds="")
                self.end_call(result)
            if not self.ends:
                self.handler_acts()
            if not self.ends and self.poll.state is PollState.WAITING and not self.in_progress():
                self.poll.handle(PollEvent.TIME_UP)
        abandoned = self.poll.state is PollState.ABANDONED
        assert all(answer is (self.poll.answer if abandoned else self.sent) for answer in self.found), "not sent"
        # The clean-up gives up the poll once more and releases what is claimed for it.
        assert abandoned or set(self.claimed) <= set(ids(self.sent)), "lost"


def runs(run_ids: list[str]) -> Any:
    return list(run_ids)


def ids(answer: PollAnswer | None) -> list[str]:
    return cast("list[str]", list(answer.runs)) if answer is not None else []


@pytest.mark.timeout(120)
def test_any_order_of_events_ends_a_poll_once_and_loses_no_assignment() -> None:
    run_state_machine_as_test(PollLife, settings=settings(max_examples=300, stateful_step_count=30, deadline=None))
