"""Apply every step to a database and to a small model of it, and compare the two."""

from collections.abc import Callable
from typing import Any, TypeVar

from models.callbacks.resume_parents import deliver_results
from models.claims.claim import Ask
from models.claims.delivery import Claim
from models.claims.polls import PollAnswer, answer_polls, claim_parked
from models.core.callers import ADMIN
from models.core.errors import InvalidTransition, RunnerNotRegistered, StaleClaim
from models.core.ids import new_id
from models.core.statuses import Outcome
from models.runners.heartbeat import Touch, touch_runners
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.register import Registered, register_runners
from models.runners.registration import Registration
from models.runs.report import Reported, report_runs
from models.runs.reports import Report
from models.runs.stop import Stopped, StopRun, stop_runs
from models.runs.submission import NewRun, Submitted
from models.schema.tables import metadata
from tests.properties import lifecycle_invariants
from tests.properties.lifecycle_model import Model, Run, Runner, Session
from tests.support import clocks, db_verbs
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.dispatch_pass import dispatch_waiting

T = TypeVar("T")
KEPT = {"demand_profiles", "feed_head"}
ANSWERS: dict[str, type] = {
    "moved": Reported,
    "same": Reported,
    "stale": StaleClaim,
    "invalid": InvalidTransition,
    "unregistered": RunnerNotRegistered,
}


def some(pool: list[T], which: int) -> T:
    return pool[which % len(pool)]


class ModelHarness:
    """Database, model, and what is under way between processes: parked polls, messages of workers, repeatable
    submissions.
    """

    db: DbVerbs
    model: Model

    def begin(self) -> None:
        """Empty the database and the model."""
        tables = [table.name for table in metadata.sorted_tables if table.name not in KEPT]
        self.db.rows(f"TRUNCATE {', '.join(tables)}")
        self.model = Model()
        self.memory = lifecycle_invariants.Memory()
        self.parked: list[tuple[Ask, Runner]] = []
        self.messages: list[tuple[Ask, Claim]] = []
        self.submitted: list[tuple[NewRun, Submitted]] = []

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
        """Record the request of a runner, as the web does for every one."""
        self.db.do(touch_runners, [Touch(runner.runner_id)])

    def tick(self) -> None:
        """Run a pass of expiry, as if workers and web had been up all the time."""
        self.db.rows("DELETE FROM duties")
        self.db.rows("UPDATE runners SET last_seen = clock_timestamp() WHERE last_seen > now() - interval '55 s'")
        clocks.tick(self.db)

    def check(self) -> None:
        lifecycle_invariants.check(self.db, self.model, self.memory)

    def submit_plainly(self, which: int, parent: Session | None = None) -> Run:
        values: dict[str, Any] = {"max_attempts": 2, "run_timeout_seconds": 60}
        if parent is not None:
            values |= {"parent_session_id": parent.session_id, "execution_mode": "async_callback"}
        item = start_submission(**values)
        (answer,) = self.db.submit(item, max_depth=100)
        assert isinstance(answer, Submitted)
        self.submitted.append((item, answer))
        return self.model.submit(answer.session_id, answer.run_id, max_attempts=2, parent=parent)

    def stop(self, run: Run) -> None:
        (answer,) = self.db.do(stop_runs, [StopRun(ADMIN, run.run_id)])
        assert isinstance(answer, Stopped)
        assert answer.status == self.model.stop_run(run)

    def deliver(self) -> None:
        """Run a pass over the parents: it resumes exactly those that are due."""
        due = {session.session_id for session in self.sessions if session.due}
        delivered = self.db.do(deliver_results)
        assert delivered.runs.keys() == due
        for session_id, run_id in delivered.runs.items():
            self.model.resume_parent(self.model.sessions[session_id], run_id)

    def register(self, tags: set[str], capacity: int | None) -> None:
        made = self.db.runner(tags=sorted(tags), capacity=capacity)
        runner = Runner(made.runner_id, made.registration, frozenset(tags), capacity)
        self.model.runners[runner.runner_id] = runner

    def poll(self, which: int, wanted: int) -> None:
        self.poll_of(some([runner for runner in self.runners if not runner.told], which), wanted)

    def poll_of(self, runner: Runner, wanted: int) -> None:
        """Send a first answer, and the second claim if the poll parks."""
        self.touched(runner)
        ask = Ask(new_id("poll_"), runner.runner_id, wanted, "web-1")
        if self.answered(ask, runner, answer_polls):
            return
        assert not self.answered(ask, runner, claim_parked)
        self.parked.append((ask, runner))

    def superseded(self, runner: Runner) -> set[str]:
        """Return sessions whose former process, at this runner, is told to end; the model does not keep them."""
        query = "SELECT session_id FROM stop_commands WHERE superseded AND runner_id = :runner"
        return {row.session_id for row in self.db.rows(query, runner=runner.runner_id)}

    def answered(self, ask: Ask, runner: Runner, verb: Callable[..., Any]) -> bool:
        """Compare an answer with the model; return whether the poll is over."""
        mine = [run for run in self.model.runs.values() if self.assigned(run, ask)]
        open_runs = self.model.open_runs(runner)[: max(0, min(ask.wanted, self.model.free_capacity(runner)))]
        if verb is not answer_polls and ask.poll_id not in self.db.waiting():
            # Its row went with an assignment that was released: it is restored first.
            open_runs = []
        stops = {s.session_id for s in self.sessions if s.stop is not None and s.stop[0] is runner}
        stops |= self.superseded(runner)
        (answer,) = self.db.poll(verb, ask)
        if runner.left or (runner.told and not mine):
            assert answer == RunnerNotRegistered(runner.runner_id)
            return True
        assert isinstance(answer, PollAnswer)
        if answer.stop_sessions or answer.deregistered:
            assert set(answer.stop_sessions) <= stops
            for run in mine:
                # Assigned to this poll, which has to tell something else first.
                self.model.release(run)
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

    def assigned(self, run: Run, ask: Ask) -> bool:
        return run.status == "claimed" and any(
            assignment.claim_token == run.token and poll is ask for poll, assignment in self.messages
        )

    def over(self, ask: Ask) -> None:
        self.parked = [(other, runner) for other, runner in self.parked if other is not ask]

    def leaving(self, runner: Runner) -> bool:
        where = "runner_id = :r AND leave_requested_at IS NOT NULL"
        return bool(self.db.count("runners", where, r=runner.runner_id))

    def next_step(self, which: int, *, idle: bool) -> None:
        """Take the next regular step of some run."""
        pool = [run for run in self.runs if run.ready or run.status in {"claimed", "running"}]
        if not pool:
            self.submit_plainly(which)
            return None
        run = some(pool, which)
        if run.ready:
            takers = [runner for runner in self.runners if run.open_to(runner) and not runner.told]
            return self.poll_of(some(takers, which), 1) if takers else None
        outcome = "started" if run.status == "claimed" else "completed"
        return self.say(run, run.runner, outcome, run.token, idle=idle)

    def say(self, run: Run, runner: Runner | None, outcome: str, token: str | None, *, idle: bool) -> None:
        assert runner is not None
        self.touched(runner)
        before = self.db.run(run.run_id)
        left_behind = "idle" if idle else "finished"
        item = Report(run.run_id, runner.runner_id, Outcome(outcome), token, session_status=left_behind)
        (result,) = self.db.do(report_runs, [item])
        expected = self.model.report(run, runner, outcome, token, idle=idle)
        assert isinstance(result, ANSWERS[expected]), (result, expected)
        if isinstance(result, Reported):
            assert result.changed == (expected == "moved")
        if expected != "moved":
            # Closing a stop may make the session's next run ready, but never changes this one.
            assert self.db.run(run.run_id).status == before.status

    def leave(self, runner: Runner) -> None:
        self.db.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=True)])
        self.gone(runner)

    def ask_to_leave(self, runner: Runner) -> None:
        """Make its next poll its last; take what it still holds after a while."""
        self.db.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=False)])
        for _ in range(4):
            if runner.told:
                break
            self._tell_leave(runner)
        clocks.pass_time(self.db, "runners", "leave_told_at", 200, "runner_id = :r", r=runner.runner_id)
        self.tick()
        self.gone(runner)

    def _tell_leave(self, runner: Runner) -> None:
        (answer,) = self.db.do(answer_polls, [Ask(new_id("poll_"), runner.runner_id, 1, "web-1")])
        assert isinstance(answer, PollAnswer)
        assert answer.deregistered or answer.stop_sessions
        runner.told = answer.deregistered

    def gone(self, runner: Runner) -> None:
        self.model.lose(runner)
        runner.left = True

    def lose_runner(self, runner: Runner, *, back: bool) -> None:
        """Let it fall silent and lose its runs; it may return as another process."""
        clocks.fall_silent(self.db, db_verbs.Runner(runner.runner_id, runner.registration), 200)
        self.tick()
        self.model.lose(runner)
        if back:
            self._come_back(runner)
        else:
            self.touched(runner)

    def _come_back(self, runner: Runner) -> None:
        row = self.db.rows("SELECT * FROM runners WHERE runner_id = :r", r=runner.runner_id)[0]
        item = Registration(
            row.hostname,
            row.project_dir,
            row.executor_profile,
            tuple(row.tags),
            executor_type=row.executor_type,
            capacity=row.capacity,
        )
        (result,) = self.db.do(register_runners, [item])
        assert isinstance(result, Registered)
        assert result.runner_id == runner.runner_id
        runner.registration = self.db.one("SELECT registration FROM runners WHERE runner_id = :r", r=runner.runner_id)
        runner.sends_tokens = False
        self.parked = [(ask, other) for ask, other in self.parked if other is not runner]

    def dispatch(self) -> None:
        """Check that each assignment is allowed, and that no poll with claimable runs is left out."""
        self.db.rows("UPDATE waiting_polls SET seen_at = clock_timestamp()")
        polls = {ask.poll_id: (ask, runner) for ask, runner in self.parked}
        done = self.db.do(dispatch_waiting)
        for assignment in [assignment for batch in done.by_instance.values() for assignment in batch]:
            ask, runner = polls[assignment.poll_id]
            run = self.model.runs[assignment.run_id]
            assert run.open_to(runner)
            self.model.claim(run, runner, assignment.claim_token, delivered=False)
            self.messages.append((ask, Claim(assignment.run_id, assignment.claim_token)))
        waiting = self.db.waiting()
        for ask, runner in self.parked:
            if (
                ask.poll_id in waiting
                and ask.wanted
                and self.model.free_capacity(runner) > 0
                and not self.leaving(runner)
            ):
                assert self.model.open_runs(runner) == []
