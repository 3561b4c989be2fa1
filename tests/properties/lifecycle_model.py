"""Small model of PROTOCOL's rules for runs and sessions, in plain objects, to compare the database with."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

IN_HAND = {"claimed", "running", "stopping"}
ENDED = {"completed", "failed", "stopped"}
MOST_FAILED_DELIVERIES = 10
_moments = count(1)


@dataclass(eq=False)
class Runner:
    """``left``: the runner has gone. ``told``: its next poll is its last."""

    runner_id: str
    registration: int
    tags: frozenset[str]
    capacity: int | None
    sends_tokens: bool = False
    told: bool = False
    left: bool = False


@dataclass(eq=False)
class Run:
    """``token`` and ``runner`` stay with a run that ended at a runner; ``recalled`` is an end report that was taken for
    the end of a time limit: its runner, token and outcome. ``parent`` is told of its end. ``home``: the runner that it
    demands, since its session's process waited there.
    """

    run_id: str
    session: "Session"
    priority: int = 0
    tags: frozenset[str] = frozenset()
    delayed: bool = False
    max_attempts: int = 1
    status: str = "pending"
    runner: Runner | None = None
    token: str | None = None
    delivered: bool = False
    started: bool = False
    attempt: int = 0
    failed_deliveries: int = 0
    excluded: set[int] = field(default_factory=set)
    cause: str | None = None
    ended_by_us: bool = False
    recalled: tuple[Runner, str | None, str] | None = None
    parent: "Session | None" = None
    home: str | None = None
    began: int = 0

    @property
    def ready(self) -> bool:
        """Return whether it is its session's first unfinished run, due, and without an open stop."""
        first = self.session.unfinished[0] if self.status == "pending" else None
        return first is self and not self.delayed and self.session.stop is None

    def open_to(self, runner: Runner) -> bool:
        there = self.home in {None, runner.runner_id}
        return self.ready and there and self.tags <= runner.tags and runner.registration not in self.excluded

    def back(self, *, bar: bool = False) -> None:
        """Return to pending as if it had never been claimed."""
        if bar and self.runner is not None:
            self.excluded.add(self.runner.registration)
        self.status, self.runner, self.token, self.cause = "pending", None, None, None
        self.delivered = self.started = False

    def end(self, status: str, *, by_us: bool = False) -> None:
        self.status, self.ended_by_us = status, by_us
        if self.parent is not None:
            self.parent.owed.append(Result(self))
        for result in self.session.owed:
            if result.carrier is self and not self.started:
                result.carrier, result.returned = None, next(_moments)

    def requeue_or_fail(self) -> None:
        """Requeue or fail it by its attempts, after the loss of its runner or the end of its time."""
        holder = self.runner
        if self.attempt < self.max_attempts:
            self.back(bar=holder is not None and not holder.sends_tokens)
        else:
            self.end("failed", by_us=True)
            self.session.outcome = "failed"
        self.session.live = None


@dataclass(eq=False)
class Result:
    """Result of a child: the run that carries it, and when a run that never began returned it."""

    child: Run
    carrier: Run | None = None
    returned: int = 0


@dataclass(eq=False)
class Session:
    """``live`` is the runner of its process; ``stop`` an open stop: the runner told, and the run; ``owed`` all results
    of its children.
    """

    session_id: str
    runs: list[Run] = field(default_factory=list)
    live: Runner | None = None
    outcome: str | None = None
    stop: tuple[Runner, Run | None] | None = None
    owed: list[Result] = field(default_factory=list)

    @property
    def waiting(self) -> list[Result]:
        return [result for result in self.owed if result.carrier is None]

    @property
    def free(self) -> bool:
        return self.status in {"idle", "finished"}

    @property
    def due(self) -> bool:
        """Return whether waiting results can be delivered; returned ones only after a later start."""
        last = max((run.began for run in self.runs if run.started), default=0)
        return self.free and any(not result.returned or last > result.returned for result in self.waiting)

    @property
    def unfinished(self) -> list[Run]:
        return [run for run in self.runs if run.status not in ENDED]

    @property
    def active(self) -> Run | None:
        return next((run for run in self.runs if run.status in IN_HAND), None)

    @property
    def status(self) -> str:
        active = self.active
        if active is not None and active.status == "running":
            return "running"
        if self.stop is not None or (active is not None and active.status == "stopping"):
            return "stopping"
        if self.unfinished:
            return "pending"
        if self.live is not None:
            return "idle"
        return "finished" if self.outcome == "idle" else self.outcome or "stopped"

    def cancel(self, runs: Iterable[Run], outcome: str) -> None:
        """End runs without a process; a live process returns to idle."""
        for run in runs:
            run.end("stopped" if outcome == "stopped" else "failed", by_us=True)
            if self.live is None:
                self.outcome = outcome


class Model:
    """All runs and sessions. Each method is one step, and returns the caller's answer."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.runs: dict[str, Run] = {}
        self.runners: dict[str, Runner] = {}

    def submit(self, session_id: str, run_id: str, **values: object) -> Run:
        session = self.sessions.setdefault(session_id, Session(session_id))
        home = session.live.runner_id if session.live is not None and session.status in {"idle", "pending"} else None
        run = Run(run_id, session, home=home, **values)  # type: ignore[arg-type] # the caller's own fields
        session.runs.append(run)
        self.runs[run_id] = run
        return run

    # Claims

    def free_capacity(self, runner: Runner) -> int:
        held = sum(run.runner is runner and run.status in IN_HAND for run in self.runs.values())
        return 1_000 if runner.capacity is None else runner.capacity - held

    def open_runs(self, runner: Runner) -> list[Run]:
        """Return the runs that the runner may have, in the order in which it gets them."""
        mine = [run for run in self.runs.values() if run.open_to(runner)]
        return sorted(mine, key=lambda run: (-run.priority, run.run_id))

    def claim(self, run: Run, runner: Runner, token: str, *, delivered: bool) -> None:
        run.status, run.runner, run.token, run.delivered = "claimed", runner, token, delivered

    def release(self, run: Run, *, gone: bool = False) -> None:
        """End a claim that led to no start: its time passed, or its runner is gone."""
        holder, session = run.runner, run.session
        if run.delivered:
            run.failed_deliveries += 1
        if gone and session.live is holder:
            session.live = None
        if run.failed_deliveries >= MOST_FAILED_DELIVERIES and run.delivered:
            session.cancel([run], "failed")
        else:
            run.back(bar=run.delivered and holder is not None and not holder.sends_tokens)

    # Reports

    def report(self, run: Run, runner: Runner, outcome: str, token: str | None, *, idle: bool) -> str:
        """Return ``moved``, ``same``, ``stale`` or ``invalid``."""
        if runner.left:
            return "unregistered"
        answer, timed_out = self._judge(run, runner, outcome, token)
        self._close_stop(run, runner, outcome, idle=idle, moves=answer == "moved")
        if answer == "moved":
            if token is not None and timed_out:
                runner.sends_tokens = True
            self._move(run, outcome, idle=idle, timed_out=timed_out)
        runner.sends_tokens = runner.sends_tokens or token is not None
        return answer

    def _judge(self, run: Run, runner: Runner, outcome: str, token: str | None) -> tuple[str, bool]:
        undelivered = run.status == "claimed" and not run.delivered and token is None
        if run.runner is not runner or token not in {None, run.token} or undelivered:
            if run.recalled is None or run.recalled[0] is not runner or token not in {None, run.recalled[1]}:
                return "stale", False
            return _same(outcome, run.recalled[2]), False
        if run.status == "claimed" or (run.status == "running" and outcome != "started"):
            return "moved", False
        if run.status == "running" or (run.status == "stopping" and outcome == "started"):
            return "same", False
        if run.status == "stopping":
            return "moved", run.cause == "timeout"
        if run.ended_by_us:
            return ("invalid" if outcome == "started" else "same"), False
        recalled = run.recalled is not None and run.recalled[1] == run.token
        return _same(outcome, run.recalled[2] if recalled and run.recalled else run.status), False

    def _move(self, run: Run, outcome: str, *, idle: bool, timed_out: bool) -> None:
        session, holder = run.session, run.runner
        if timed_out:
            assert holder is not None
            run.recalled = (holder, run.token, outcome)
            run.requeue_or_fail()
            run.ended_by_us = False
            return
        if not run.started:
            run.started, run.attempt, run.failed_deliveries, run.began = True, run.attempt + 1, 0, next(_moments)
        if outcome == "started":
            run.status, session.live = "running", holder
            return
        run.end(outcome)
        lives = outcome == "completed" and idle
        session.live = holder if lives else None
        session.outcome = "idle" if lives else "finished" if outcome == "completed" else outcome

    def _close_stop(self, run: Run, runner: Runner, outcome: str, *, idle: bool, moves: bool) -> None:
        """Close the stop on any end that its runner reports, unless its process lives on after it."""
        session = run.session
        if outcome == "started" or session.stop is None or session.stop[0] is not runner:
            return
        if session.stop[1] not in {None, run} or (outcome == "completed" and idle and run.cause != "timeout"):
            return
        session.stop = None
        if not moves and session.active is None and session.live is runner:
            session.live, session.outcome = None, "stopped"

    # Stops and ends

    def stop_session(self, session: Session) -> str:
        active = session.active
        delivered = active if active is not None and (active.delivered or active.status != "claimed") else None
        waiting = [run for run in session.unfinished if run is not delivered]
        session.cancel(waiting, "stopped")
        if delivered is not None:
            assert delivered.runner is not None
            delivered.status, delivered.cause = "stopping", "stop"
            session.stop = session.stop or (delivered.runner, delivered)
            return "stopping"
        if session.live is not None:
            session.stop = session.stop or (session.live, None)
            return "stopping"
        return "stopped" if waiting else session.status

    def stop_run(self, run: Run) -> str:
        if run.status in ENDED:
            return run.status
        if run.status == "pending" or (run.status == "claimed" and not run.delivered):
            run.session.cancel([run], "stopped")
            return "stopped"
        return self.stop_session(run.session)

    def time_out(self, run: Run) -> None:
        assert run.runner is not None
        run.status, run.cause = "stopping", "timeout"
        run.session.stop = run.session.stop or (run.runner, run)

    def give_up_stop(self, run: Run) -> None:
        session = run.session
        session.stop = None
        if run.cause == "timeout":
            run.requeue_or_fail()
        else:
            run.end("stopped", by_us=True)
            session.live, session.outcome = None, "stopped"

    def can_delete(self, session: Session) -> bool:
        return session.status not in {"running", "idle", "stopping"} and not session.live and not session.active

    def resume_parent(self, session: Session, run_id: str) -> None:
        """Carry all waiting results in one run, and make it the session's last one."""
        above = session.runs[-1].parent
        there = above is not None and above.session_id in self.sessions
        waiting = session.waiting
        carrier = self.submit(session.session_id, run_id, parent=above if there else None)
        for result in waiting:
            result.carrier = carrier

    def delete(self, session: Session) -> None:
        for run in session.unfinished:
            run.end("stopped", by_us=True)
        for run in session.runs:
            del self.runs[run.run_id]
        del self.sessions[session.session_id]

    def lose(self, runner: Runner) -> None:
        """End its process: lost, left, or replaced."""
        for run in [run for run in self.runs.values() if run.runner is runner and run.status in IN_HAND]:
            run.session.stop = None
            if run.status == "claimed":
                self.release(run, gone=True)
            elif run.status == "running":
                run.requeue_or_fail()
            else:
                self.give_up_stop(run)
        for session in self.sessions.values():
            if session.live is runner and session.active is None:
                session.outcome = "stopped" if session.stop is not None else "finished"
                session.live = session.stop = None


def _same(outcome: str, ended: str) -> str:
    return "same" if outcome in {"started", ended} else "invalid"
