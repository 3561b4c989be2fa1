"""Any order of whatever may happen to runs and sessions, against the database and against a small model of it."""

from collections.abc import Callable
from typing import Any, TypeVar

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

from models.base import ADMIN, new_id
from models.claim import Ask
from models.delete import Deleted, DeleteSession, delete_sessions
from models.deliveries import Claim, confirm_deliveries, release_claims
from models.errors import InvalidTransition, RunnerNotRegistered, StaleClaim, StopSessionFirst
from models.polls import PollAnswer, answer_polls, claim_parked, dispatch_waiting, give_up_polls, recheck_polls
from models.profiles import Demands
from models.register import Registered, Registration, register_runners
from models.report import Report, Reported, report_runs
from models.runners import LeaveRunner, Touch, deregister_runners, touch_runners
from models.runs import Run as RunRow
from models.statuses import Outcome
from models.stop import Stopped, StopRun, StopSession, stop_runs, stop_sessions
from models.submit import NewRun, Submitted
from models.tables import metadata
from tests.support import clocks, invariants, truth
from tests.support.model import ENDED, IN_HAND, Model, Run, Runner, Session
from tests.support.truth import Truth, resuming, starting

T = TypeVar("T")
WHICH = st.integers(0, 10_000)
CAPACITY = st.sampled_from([None, 1, 2])
TAGS = st.sets(st.sampled_from(["a", "b"]))
SELDOM = st.integers(0, 4).map(lambda number: number == 3)
ANSWERS: dict[str, type] = {
    "moved": Reported,
    "same": Reported,
    "stale": StaleClaim,
    "invalid": InvalidTransition,
    "unregistered": RunnerNotRegistered,
}
KEPT = {"demand_profiles", "feed_head"}
SHORT = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    # shrinking against a database takes longer than a test may: read the whole story, or add Phase.shrink and wait
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def some(pool: list[T], which: int) -> T:
    return pool[which % len(pool)]


class Lifecycle(RuleBasedStateMachine):
    """The verbs as rules: each does something to both, and holds the answer against what the model says."""

    truth: Truth

    def __init__(self) -> None:
        super().__init__()
        tables = [table.name for table in metadata.sorted_tables if table.name not in KEPT]
        self.truth.rows(f"TRUNCATE {', '.join(tables)}")
        self.model = Model()
        self.memory = invariants.Memory()
        self.parked: list[tuple[Ask, Runner]] = []
        self.messages: list[tuple[Ask, Claim]] = []
        self.submitted: list[tuple[NewRun, Submitted]] = []

    @initialize(tags=TAGS, capacity=CAPACITY)
    def two_runners(self, tags: set[str], capacity: int | None) -> None:
        """One that may take everything, and one that Hypothesis chooses."""
        self.register({"a", "b"}, None)
        self.register(tags, capacity)

    # what there is

    @property
    def runners(self) -> list[Runner]:
        return [runner for runner in self.model.runners.values() if not runner.left]

    @property
    def runs(self) -> list[Run]:
        return list(self.model.runs.values())

    @property
    def sessions(self) -> list[Session]:
        return list(self.model.sessions.values())

    def runs_in(self, *statuses: str) -> list[Run]:
        return [run for run in self.runs if run.status in statuses]

    def touched(self, runner: Runner) -> None:
        """Every request of a runner is a sign of life, as the web notes it."""
        self.truth.do(touch_runners, [Touch(runner.runner_id)])

    def tick(self) -> None:
        """A pass of expiry, of workers and webs that were there all the time."""
        self.truth.rows("DELETE FROM duties")
        self.truth.rows("UPDATE runners SET last_seen = clock_timestamp() WHERE last_seen > now() - interval '55 s'")
        clocks.tick(self.truth)

    # clients

    @rule(
        which=WHICH,
        resume=st.booleans(),
        priority=st.integers(-1, 1),
        tags=TAGS,
        delayed=SELDOM,
        attempts=st.integers(1, 2),
        key=st.sampled_from([None, None, "k1", "k2"]),
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
        item = resuming(some(self.sessions, which).session_id, **values) if resume else starting(**values)
        first = next((answer for had, answer in self.submitted if key and had.idempotency_key == key), None)
        (answer,) = self.truth.submit(item)
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
        )

    def submit_plainly(self, which: int) -> None:
        (answer,) = self.truth.accept(item := starting(max_attempts=2, run_timeout_seconds=60))
        self.submitted.append((item, answer))
        self.model.submit(answer.session_id, answer.run_id, max_attempts=2)

    @precondition(lambda self: any(answer.run_id in self.model.runs for _, answer in self.submitted))
    @rule(which=WHICH)
    def submit_again_after_a_lost_answer(self, which: int) -> None:
        there = [pair for pair in self.submitted if pair[1].run_id in self.model.runs]
        item, answer = some(there, which)
        assert self.truth.submit(item) == [answer]

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH)
    def stop_session(self, which: int) -> None:
        session = some(self.sessions, which)
        (answer,) = self.truth.do(stop_sessions, [StopSession(ADMIN, session.session_id)])
        assert isinstance(answer, Stopped)
        assert answer.status == self.model.stop_session(session)

    @precondition(lambda self: self.runs)
    @rule(which=WHICH)
    def stop_run(self, which: int) -> None:
        run = some(self.runs, which)
        (answer,) = self.truth.do(stop_runs, [StopRun(ADMIN, run.run_id)])
        assert isinstance(answer, Stopped)
        assert answer.status == self.model.stop_run(run)

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH, busy=SELDOM)
    def delete(self, which: int, busy: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        pool = [session for session in self.sessions if busy or not session.unfinished]
        if not pool:
            return
        session = some(pool, which)
        (answer,) = self.truth.do(delete_sessions, [DeleteSession(ADMIN, session.session_id)])
        if self.model.can_delete(session):
            assert isinstance(answer, Deleted)
            assert answer.runs_count == len(session.runs)
            self.model.delete(session)
        else:
            assert answer == StopSessionFirst(session.session_id)

    # runners

    @precondition(lambda self: len(self.runners) < 2)
    @rule(tags=TAGS, capacity=CAPACITY)
    def another_runner(self, tags: set[str], capacity: int | None) -> None:
        self.register(tags, capacity)

    def register(self, tags: set[str], capacity: int | None) -> None:
        made = self.truth.runner(tags=sorted(tags), capacity=capacity)
        runner = Runner(made.runner_id, made.registration, frozenset(tags), capacity)
        self.model.runners[runner.runner_id] = runner

    @precondition(lambda self: any(not runner.told for runner in self.runners))
    @rule(which=WHICH, wanted=st.integers(0, 2))
    def a_poll(self, which: int, wanted: int) -> None:
        self.poll(which, wanted)

    def poll(self, which: int, wanted: int) -> None:
        self.poll_of(some([runner for runner in self.runners if not runner.told], which), wanted)

    def poll_of(self, runner: Runner, wanted: int) -> None:
        """First answer, and the second claim when it parks."""
        self.touched(runner)
        ask = Ask(new_id("poll_"), runner.runner_id, wanted, "web-1")
        if self._answered(ask, runner, answer_polls):
            return
        assert not self._answered(ask, runner, claim_parked)
        self.parked.append((ask, runner))

    @precondition(lambda self: self.parked)
    @rule(which=WHICH)
    def recheck(self, which: int) -> None:
        ask, runner = some(self.parked, which)
        if self._answered(ask, runner, recheck_polls):
            self._over(ask)

    def _answered(self, ask: Ask, runner: Runner, verb: Callable[..., Any]) -> bool:
        """Hold an answer against the model; whether the poll is over with it."""
        mine = [run for run in self.model.runs.values() if self._assigned(run, ask)]
        open_runs = self.model.open_runs(runner)[: max(0, min(ask.wanted, self.model.room(runner)))]
        if verb is not answer_polls and ask.poll_id not in self.truth.waiting():
            # its row went with an assignment that came to nothing: it is put back first
            open_runs = []
        stops = {s.session_id for s in self.sessions if s.stop is not None and s.stop[0] is runner}
        (answer,) = self.truth.do(verb, [ask])
        if runner.left or (runner.told and not mine):
            assert answer == RunnerNotRegistered(runner.runner_id)
            return True
        assert isinstance(answer, PollAnswer)
        if answer.stop_sessions or answer.deregistered:
            assert set(answer.stop_sessions) <= stops
            runner.told = runner.told or answer.deregistered
            return True
        found = sorted(answer.runs, key=lambda run: (-run.priority, run.run_id))
        if mine:
            assert {run.run_id for run in found} == {run.run_id for run in mine}
            for run in mine:
                run.delivered = True
            return True
        assert [run.run_id for run in found] == [run.run_id for run in open_runs]
        for row in found:
            self.model.claim(self.model.runs[row.run_id], runner, str(row.claim_token), delivered=True)
        return bool(found)

    def _assigned(self, run: Run, ask: Ask) -> bool:
        return run.status == "claimed" and any(
            letter.claim_token == run.token and poll is ask for poll, letter in self.messages
        )

    def _over(self, ask: Ask) -> None:
        self.parked = [(other, runner) for other, runner in self.parked if other is not ask]

    @precondition(lambda self: any(not runner.told for runner in self.runners))
    @rule(which=WHICH, wanted=st.integers(1, 2))
    def work_comes_to_a_parked_poll(self, which: int, wanted: int) -> None:
        self.poll(which, wanted)
        self.submit_plainly(which)
        if self.parked:
            self.dispatch()

    @precondition(lambda self: self.parked)
    @rule()
    def dispatch(self) -> None:
        """What it gives away may be taken, and nothing is kept from a poll that may have it."""
        self.truth.rows("UPDATE waiting_polls SET seen_at = clock_timestamp()")
        polls = {ask.poll_id: (ask, runner) for ask, runner in self.parked}
        done = self.truth.do(dispatch_waiting)
        for letter in [letter for some_ in done.by_instance.values() for letter in some_]:
            ask, runner = polls[letter.poll_id]
            run = self.model.runs[letter.run_id]
            assert run.open_to(runner)
            self.model.claim(run, runner, letter.claim_token, delivered=False)
            self.messages.append((ask, Claim(letter.run_id, letter.claim_token)))
        waiting = self.truth.waiting()
        for ask, runner in self.parked:
            if ask.poll_id in waiting and ask.wanted and self.model.room(runner) > 0 and not self._leaving(runner):
                assert self.model.open_runs(runner) == []

    def _leaving(self, runner: Runner) -> bool:
        where = "runner_id = :r AND leave_requested_at IS NOT NULL"
        return bool(self.truth.count("runners", where, r=runner.runner_id))

    @precondition(lambda self: self.messages)
    @rule(which=WHICH, client_is_there=st.booleans())
    def message_arrives(self, which: int, client_is_there: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        """It may be late: only what is confirmed is handed out; what nobody waits for is released."""
        ask, claim = some(self.messages, which)
        self.messages.remove((ask, claim))
        run = self.model.runs.get(claim.run_id)
        current = run is not None and run.token == claim.claim_token and run.status == "claimed"
        if client_is_there:
            (result,) = self.truth.do(confirm_deliveries, [claim])
            assert isinstance(result, RunRow) == current
            if run is not None and current:
                run.delivered = True
                self._over(ask)
            return
        assert self.truth.do(release_claims, [claim]) == [current]
        if run is not None and current:
            run.back()

    @precondition(lambda self: self.parked)
    @rule(which=WHICH)
    def give_up(self, which: int) -> None:
        ask, _ = some(self.parked, which)
        mine = {run.run_id for run in self.runs if self._assigned(run, ask)}
        (found,) = self.truth.do(give_up_polls, [ask.poll_id])
        assert {run.run_id for run in found} == mine
        for run_id in mine:
            self.model.runs[run_id].delivered = True
        self._over(ask)

    @rule(which=WHICH, idle=st.booleans(), steps=st.integers(1, 4))
    def life_goes_on(self, which: int, idle: bool, steps: int) -> None:  # noqa: FBT001 - drawn by Hypothesis
        for place in range(steps):
            self.next_step(which + place, idle=idle)
            self.all_is_well()

    life_goes_on_and_on = life_goes_on

    def next_step(self, which: int, *, idle: bool) -> None:
        """Whatever comes next for some run when nothing goes wrong."""
        pool = [run for run in self.runs if run.ready or run.status in {"claimed", "running"}]
        if not pool:
            return self.submit_plainly(which)
        run = some(pool, which)
        if run.ready:
            takers = [runner for runner in self.runners if run.open_to(runner) and not runner.told]
            return self.poll_of(some(takers, which), 1) if takers else None
        outcome = "started" if run.status == "claimed" else "completed"
        return self.say(run, run.runner, outcome, run.token, idle=idle)

    @precondition(lambda self: self.runs and self.model.runners)
    @rule(
        which=WHICH,
        stranger=SELDOM,
        token=st.sampled_from(["own", "own", "none", "stale"]),
        outcome=st.sampled_from(["started", "started", "completed", "failed", "stopped"]),
        idle=st.booleans(),
    )
    def report(self, which: int, stranger: bool, token: str, outcome: str, idle: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        run = some(self.runs_in(*IN_HAND) or self.runs, which) if which % 4 else some(self.runs, which)
        holder = None if stranger else run.runner
        sent = {"own": run.token, "none": None, "stale": "another"}[token]
        self.say(run, holder or some(list(self.model.runners.values()), which), outcome, sent, idle=idle)

    def say(self, run: Run, runner: Runner | None, outcome: str, token: str | None, *, idle: bool) -> None:
        assert runner is not None
        self.touched(runner)
        before = self.truth.run(run.run_id)
        left_behind = "idle" if idle else "finished"
        item = Report(run.run_id, runner.runner_id, Outcome(outcome), token, session_status=left_behind)
        (result,) = self.truth.do(report_runs, [item])
        expected = self.model.report(run, runner, outcome, token, idle=idle)
        assert isinstance(result, ANSWERS[expected]), (result, expected)
        if isinstance(result, Reported):
            assert result.changed == (expected == "moved")
        if expected != "moved":
            # a stop that it answers may make the session's next run ready, never this one different
            assert self.truth.run(run.run_id).status == before.status

    # ends of runners

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

    def leave(self, runner: Runner) -> None:
        self.truth.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=True)])
        self._gone(runner)

    def ask_to_leave(self, runner: Runner) -> None:
        """Its next poll is its last; what it still holds after a while is taken."""
        self.truth.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=False)])
        for _ in range(4):
            if runner.told:
                break
            self._tell_leave(runner)
        clocks.pass_time(self.truth, "runners", "leave_told_at", 200, "runner_id = :r", r=runner.runner_id)
        self.tick()
        self._gone(runner)

    def _tell_leave(self, runner: Runner) -> None:
        (answer,) = self.truth.do(answer_polls, [Ask(new_id("poll_"), runner.runner_id, 1, "web-1")])
        assert isinstance(answer, PollAnswer)
        assert answer.deregistered or answer.stop_sessions
        runner.told = answer.deregistered

    def _gone(self, runner: Runner) -> None:
        self.model.lose(runner)
        runner.left = True

    def lose_runner(self, runner: Runner, *, back: bool) -> None:
        """It falls silent, and what it held is taken; it may come back as another process."""
        clocks.fall_silent(self.truth, truth.Runner(runner.runner_id, runner.registration), 200)
        self.tick()
        self.model.lose(runner)
        if back:
            self._come_back(runner)
        else:
            self.touched(runner)

    def _come_back(self, runner: Runner) -> None:
        row = self.truth.rows("SELECT * FROM runners WHERE runner_id = :r", r=runner.runner_id)[0]
        item = Registration(
            row.hostname,
            row.project_dir,
            row.executor_profile,
            tuple(row.tags),
            executor_type=row.executor_type,
            capacity=row.capacity,
        )
        (result,) = self.truth.do(register_runners, [item])
        assert isinstance(result, Registered)
        assert result.runner_id == runner.runner_id
        runner.registration = self.truth.one(
            "SELECT registration FROM runners WHERE runner_id = :r", r=runner.runner_id
        )
        runner.sends_tokens = False
        self.parked = [(ask, other) for ask, other in self.parked if other is not runner]

    # time

    @precondition(lambda self: self.runs_in("claimed"))
    @rule(which=WHICH)
    def claim_comes_to_nothing(self, which: int) -> None:
        run = some(self.runs_in("claimed"), which)
        clocks.due(self.truth, run.run_id, "claim_deadline_at")
        self.tick()
        self.model.release(run)

    @precondition(lambda self: self.runs_in("running"))
    @rule(which=WHICH)
    def run_takes_too_long(self, which: int) -> None:
        run = some(self.runs_in("running"), which)
        clocks.due(self.truth, run.run_id, "run_deadline_at")
        self.tick()
        self.model.time_out(run)

    @precondition(lambda self: any(session.stop for session in self.sessions))
    @rule(which=WHICH)
    def stop_takes_too_long(self, which: int) -> None:
        session = some([session for session in self.sessions if session.stop], which)
        active = session.active
        clocks.pass_time(self.truth, "stop_commands", "deadline_at", 999, "session_id = :s", s=session.session_id)
        if active is not None:
            clocks.due(self.truth, active.run_id, "run_deadline_at")
        self.tick()
        if active is not None:
            self.model.give_up_stop(active)
        else:
            session.live = session.stop = None
            session.outcome = "stopped"

    @precondition(lambda self: any(run.ready for run in self.runs))
    @rule(which=WHICH)
    def nobody_matches(self, which: int) -> None:
        run = some([run for run in self.runs if run.ready], which)
        clocks.due(self.truth, run.run_id, "match_deadline_at")
        self.tick()
        run.session.cancel([run], "failed")

    @precondition(lambda self: any(run.delayed and run.status not in ENDED for run in self.runs))
    @rule(which=WHICH)
    def delay_ends(self, which: int) -> None:
        run = some([run for run in self.runs if run.delayed and run.status not in ENDED], which)
        clocks.due(self.truth, run.run_id, "not_before")
        self.tick()
        run.delayed = False

    @invariant()
    def all_is_well(self) -> None:
        invariants.check(self.truth, self.model, self.memory)


def test_whatever_happens_in_whatever_order_the_truth_is_what_the_protocol_says(engine: Engine) -> None:
    """At most one owner, ends that stay, tokens that never come back, readiness and statuses as written, all told."""

    class Here(Lifecycle):
        pass

    Here.truth = Truth(engine)
    run_state_machine_as_test(Here, settings=SHORT)
