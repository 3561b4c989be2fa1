"""Apply random steps to runs and sessions, and compare the database with a small model after each."""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine

from models.claims.delivery import confirm_deliveries, release_claims
from models.claims.matching import Demands
from models.claims.polls import give_up_polls, recheck_polls
from models.core.callers import ADMIN
from models.core.errors import StopSessionFirst
from models.runs.delete import Deleted, DeleteSession, delete_sessions
from models.runs.stop import Stopped, StopSession, stop_sessions
from models.runs.submission import Submitted
from models.state.runs import Run as RunRow
from tests.properties.lifecycle_harness import ModelHarness, some
from tests.properties.lifecycle_model import ENDED, IN_HAND
from tests.support import clocks
from tests.support.db_verbs import DbVerbs, resume_submission, start_submission
from tests.support.matching import no_match_due

WHICH = st.integers(0, 10_000)
CAPACITY = st.sampled_from([None, 1, 2])
TAGS = st.sets(st.sampled_from(["a", "b"]))
SELDOM = st.integers(0, 4).map(lambda number: number == 3)
SHORT = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    # Shrinking against a database exceeds the time limit of a test: read the whole story, or add Phase.shrink and wait.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Lifecycle(RuleBasedStateMachine, ModelHarness):
    """State machine whose rules are the possible steps; each compares the answer with the model."""

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    @initialize(tags=TAGS, capacity=CAPACITY)
    def two_runners(self, tags: set[str], capacity: int | None) -> None:
        """Register one runner that may take every run, and one that Hypothesis chooses."""
        self.register({"a", "b"}, None)
        self.register(tags, capacity)

    @rule(
        which=WHICH,
        resume=st.booleans(),
        priority=st.integers(-1, 1),
        tags=TAGS,
        delayed=SELDOM,
        attempts=st.integers(1, 2),
        key=st.sampled_from([None, None, "k1", "k2"]),
        child=st.booleans(),
    )
    def submit(
        self,
        which: int,
        resume: bool,  # noqa: FBT001 - drawn by Hypothesis
        priority: int,
        tags: set[str],
        delayed: bool,  # noqa: FBT001 - drawn by Hypothesis
        attempts: int,
        key: str | None,
        child: bool,  # noqa: FBT001 - drawn by Hypothesis
    ) -> None:
        values: dict[str, Any] = {
            "priority": priority,
            "additional_demands": Demands(tags=tuple(tags)),
            "max_attempts": attempts,
            "run_timeout_seconds": 60,
            "idempotency_key": key,
            "body_hash": "same",
        }
        if delayed:
            values["delay_seconds"] = 3600.0
        resume = resume and bool(self.sessions)
        parent = some(self.sessions, which) if child and self.sessions and not resume else None
        if parent is not None:
            values |= {"parent_session_id": parent.session_id, "execution_mode": "async_callback"}
        item = (
            resume_submission(some(self.sessions, which).session_id, **values) if resume else start_submission(**values)
        )
        first = next((answer for had, answer in self.submitted if key and had.idempotency_key == key), None)
        (answer,) = self.db.submit(item, max_depth=100)
        assert isinstance(answer, Submitted)
        if first is not None:
            assert (answer.run_id, answer.replayed) == (first.run_id, True)
            return
        assert (answer.run_id, answer.replayed) == (item.run_id, False)
        self.submitted.append((item, answer))
        self.model.submit(
            answer.session_id,
            item.run_id,
            priority=priority,
            tags=frozenset(tags),
            delayed=delayed,
            max_attempts=attempts,
            parent=parent,
        )

    @precondition(lambda self: any(session.waiting for session in self.sessions))
    @rule()
    def parents_hear(self) -> None:
        self.deliver()

    @precondition(lambda self: any(session.free for session in self.sessions))
    @rule(which=WHICH, called_off=st.booleans())
    def child_is_cancelled(self, which: int, called_off: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        """Tell its parent; the parent's resulting run may be cancelled then."""
        parent = some([session for session in self.sessions if session.free], which)
        self.stop(self.submit_plainly(which, parent))
        self.deliver()
        if called_off:
            self.stop(parent.runs[-1])

    child_is_cancelled_again = child_is_cancelled

    @precondition(lambda self: any(answer.run_id in self.model.runs for _, answer in self.submitted))
    @rule(which=WHICH)
    def submit_again_after_a_lost_answer(self, which: int) -> None:
        there = [pair for pair in self.submitted if pair[1].run_id in self.model.runs]
        item, answer = some(there, which)
        assert self.db.submit(item) == [answer]

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH)
    def stop_session(self, which: int) -> None:
        session = some(self.sessions, which)
        (answer,) = self.db.do(stop_sessions, [StopSession(ADMIN, session.session_id)])
        assert isinstance(answer, Stopped)
        assert answer.status == self.model.stop_session(session)

    @precondition(lambda self: self.runs)
    @rule(which=WHICH)
    def stop_run(self, which: int) -> None:
        self.stop(some(self.runs, which))

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH, busy=SELDOM)
    def delete(self, which: int, busy: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        pool = [session for session in self.sessions if busy or not session.unfinished]
        if not pool:
            return
        session = some(pool, which)
        (answer,) = self.db.do(delete_sessions, [DeleteSession(ADMIN, session.session_id)])
        if self.model.can_delete(session):
            assert isinstance(answer, Deleted)
            assert answer.runs_count == len(session.runs)
            self.model.delete(session)
        else:
            assert answer == StopSessionFirst(session.session_id)

    @precondition(lambda self: len(self.runners) < 2)
    @rule(tags=TAGS, capacity=CAPACITY)
    def another_runner(self, tags: set[str], capacity: int | None) -> None:
        self.register(tags, capacity)

    @precondition(lambda self: any(not runner.told for runner in self.runners))
    @rule(which=WHICH, wanted=st.integers(0, 2))
    def poll_is_sent(self, which: int, wanted: int) -> None:
        self.poll(which, wanted)

    @precondition(lambda self: self.parked)
    @rule(which=WHICH)
    def recheck(self, which: int) -> None:
        ask, runner = some(self.parked, which)
        if self.answered(ask, runner, recheck_polls):
            self.over(ask)

    @precondition(lambda self: any(not runner.told for runner in self.runners))
    @rule(which=WHICH, wanted=st.integers(1, 2))
    def work_comes_to_a_parked_poll(self, which: int, wanted: int) -> None:
        self.poll(which, wanted)
        self.submit_plainly(which)
        if self.parked:
            self.dispatch()

    @precondition(lambda self: self.parked)
    @rule()
    def worker_dispatches(self) -> None:
        self.dispatch()

    @precondition(lambda self: self.messages)
    @rule(which=WHICH, client_is_there=st.booleans())
    def message_arrives(self, which: int, client_is_there: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        """Deliver it late or not: only confirmed claims are delivered, others released."""
        ask, claim = some(self.messages, which)
        self.messages.remove((ask, claim))
        run = self.model.runs.get(claim.run_id)
        current = run is not None and run.token == claim.claim_token and run.status == "claimed"
        if client_is_there:
            (result,) = self.db.do(confirm_deliveries, [claim])
            assert isinstance(result, RunRow) == current
            if run is not None and current:
                run.delivered = True
                self.over(ask)
            return
        assert self.db.do(release_claims, [claim]) == [current]
        if run is not None and current:
            run.back()

    @precondition(lambda self: self.parked)
    @rule(which=WHICH)
    def give_up(self, which: int) -> None:
        ask, _ = some(self.parked, which)
        mine = {run.run_id for run in self.runs if self.assigned(run, ask)}
        (found,) = self.db.do(give_up_polls, [ask.poll_id])
        assert {run.run_id for run in found} == mine
        for run_id in mine:
            self.model.runs[run_id].delivered = True
        self.over(ask)

    @rule(which=WHICH, idle=st.booleans(), steps=st.integers(1, 4))
    def next_step_happens(self, which: int, idle: bool, steps: int) -> None:  # noqa: FBT001 - drawn by Hypothesis
        for place in range(steps):
            self.next_step(which + place, idle=idle)
            self.check()

    life_goes_on_and_on = next_step_happens

    @precondition(lambda self: self.runs and self.model.runners)
    @rule(
        which=WHICH,
        foreign=SELDOM,
        token=st.sampled_from(["own", "own", "none", "stale"]),
        outcome=st.sampled_from(["started", "started", "completed", "failed", "stopped"]),
        idle=st.booleans(),
    )
    def report(self, which: int, foreign: bool, token: str, outcome: str, idle: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        run = some(self.runs_in(*IN_HAND) or self.runs, which) if which % 4 else some(self.runs, which)
        holder = None if foreign else run.runner
        sent = {"own": run.token, "none": None, "stale": "another"}[token]
        self.say(run, holder or some(list(self.model.runners.values()), which), outcome, sent, idle=idle)

    @precondition(lambda self: self.runners)
    @rule(which=WHICH, how=st.sampled_from(["leaves", "is asked to leave", "is lost", "is replaced"]))
    def runner_ends(self, which: int, how: str) -> None:
        runner = some(self.runners, which)
        if how == "leaves":
            self.leave(runner)
        elif how == "is asked to leave":
            self.ask_to_leave(runner)
        else:
            self.lose_runner(runner, back=how == "is replaced")

    @precondition(lambda self: self.runs_in("claimed"))
    @rule(which=WHICH)
    def claim_comes_to_nothing(self, which: int) -> None:
        run = some(self.runs_in("claimed"), which)
        clocks.due(self.db, run.run_id, "claim_deadline_at")
        self.tick()
        self.model.release(run)

    @precondition(lambda self: self.runs_in("running"))
    @rule(which=WHICH)
    def run_takes_too_long(self, which: int) -> None:
        run = some(self.runs_in("running"), which)
        clocks.due(self.db, run.run_id, "run_deadline_at")
        self.tick()
        self.model.time_out(run)

    @precondition(lambda self: any(session.stop for session in self.sessions))
    @rule(which=WHICH)
    def stop_takes_too_long(self, which: int) -> None:
        session = some([session for session in self.sessions if session.stop], which)
        active = session.active
        clocks.pass_time(self.db, "stop_commands", "deadline_at", 999, "session_id = :s", s=session.session_id)
        if active is not None:
            clocks.due(self.db, active.run_id, "run_deadline_at")
        self.tick()
        if active is not None:
            self.model.give_up_stop(active)
        else:
            session.live = session.stop = None
            session.outcome = "stopped"

    @precondition(lambda self: any(run.ready for run in self.runs))
    @rule(which=WHICH)
    def no_runner_matches(self, which: int) -> None:
        run = some([run for run in self.runs if run.ready], which)
        self.tick()
        no_match_due(self.db, run.run_id)
        self.tick()
        if any(run.open_to(runner) and not self.leaving(runner) for runner in self.runners):
            clocks.pass_time(self.db, "runs", "match_deadline_at", -9999, "run_id = :r", r=run.run_id)
        else:
            run.session.cancel([run], "failed")

    @precondition(lambda self: any(run.delayed and run.status not in ENDED for run in self.runs))
    @rule(which=WHICH)
    def delay_ends(self, which: int) -> None:
        run = some([run for run in self.runs if run.delayed and run.status not in ENDED], which)
        clocks.due(self.db, run.run_id, "not_before")
        self.tick()
        run.delayed = False

    @invariant()
    def all_is_well(self) -> None:
        self.check()

    @invariant()
    def every_end_of_a_child_waits_or_is_carried(self) -> None:
        """Check the ends of children whose parents exist."""
        rows = self.db.rows("SELECT child_run_id, parent_session_id, delivered_in FROM child_results")
        expected = {
            (result.child.run_id, session.session_id, result.carrier.run_id if result.carrier else None)
            for session in self.sessions
            for result in session.owed
        }
        assert {(row.child_run_id, row.parent_session_id, row.delivered_in) for row in rows} == expected


@pytest.mark.timeout(300)
def test_any_order_of_steps_keeps_the_rules_of_the_protocol(engine: Engine) -> None:
    """Check single owners, lasting ends, tokens that never return, readiness, statuses, and events for every change."""

    class Here(Lifecycle):
        pass

    Here.db = DbVerbs(engine)
    run_state_machine_as_test(Here, settings=SHORT)
