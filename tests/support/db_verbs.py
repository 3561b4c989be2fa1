"""The verbs of the truth as a test speaks them: each call one committed transaction, its subject made if need be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, text

from models.claims.claim import Ask
from models.claims.polls import PollAnswer, answer_polls, claim_parked, give_up_polls, recheck_polls
from models.core.callers import ADMIN, Caller
from models.core.errors import CoordinatorError
from models.core.ids import new_id, runner_identity
from models.core.statuses import RunType
from models.runs.submit import NewRun, Submitted, submit_runs
from models.state.runs import Run
from tests.support.dispatch_pass import dispatch_waiting

T = TypeVar("T")
PARAMETERS = '{"prompt":"hello"}'

_REGISTER = text("""
    INSERT INTO runners (runner_id, hostname, project_dir, executor_profile, executor_type, tags,
                         require_matching_tags, capacity, told_interval)
    VALUES (:runner_id, :hostname, :project_dir, :executor_profile, :executor_type, CAST(:tags AS text[]),
            :require_matching_tags, :capacity, :told_interval)
    RETURNING registration
""")


@dataclass(frozen=True, slots=True)
class Runner:
    """A registered runner."""

    runner_id: str
    registration: int


class DbVerbs:
    """A database, and the verbs on it. Whatever is asked here is committed when it is answered."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._numbers = count(1)

    def do(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """One transaction with one verb in it."""
        with self.engine.begin() as connection:
            return verb(connection, *args, **kwargs)

    def rows(self, statement: str, **values: Any) -> Sequence[Row[Any]]:
        """The rows of a query, or none of a statement that returns none."""
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    def one(self, statement: str, **values: Any) -> Any:
        """The only value of the only row."""
        ((value,),) = self.rows(statement, **values)
        return value

    # clients

    def submit(self, *items: NewRun, max_depth: int = 10, most_demands: int = 0) -> list[Submitted | CoordinatorError]:
        return self.do(submit_runs, items, max_depth=max_depth, most_demands=most_demands)

    def accept(self, *items: NewRun) -> list[Submitted]:
        """Submit what nobody can object to."""
        return [accepted(result) for result in self.submit(*items)]

    def start(self, **values: Any) -> Submitted:
        """Start a session with one run."""
        return self.accept(starting(**values))[0]

    def resume(self, session_id: str, **values: Any) -> Submitted:
        return self.accept(resuming(session_id, **values))[0]

    # runners

    def runner(self, **values: Any) -> Runner:
        """Register a runner that satisfies the demands of a plain run; each call another one."""
        offer: dict[str, Any] = {
            "hostname": f"host-{next(self._numbers)}",
            "project_dir": "/project",
            "executor_profile": "profile",
            "executor_type": "autonomous",
            "tags": [],
            "require_matching_tags": False,
            "capacity": None,
            "told_interval": 60,
        } | values
        runner_id = runner_identity(offer["hostname"], offer["project_dir"], offer["executor_profile"], None)
        ((registration,),) = self.do(lambda conn: conn.execute(_REGISTER, {"runner_id": runner_id, **offer}).all())
        return Runner(runner_id, registration)

    def answer(self, *asks: Ask) -> list[PollAnswer]:
        """First answers of polls of runners that are registered."""
        return [told(answer) for answer in self.do(answer_polls, asks)]

    def second(self, *asks: Ask) -> list[PollAnswer]:
        """What follows a parking."""
        return [told(answer) for answer in self.do(claim_parked, asks)]

    def recheck(self, *asks: Ask) -> list[PollAnswer]:
        return [told(answer) for answer in self.do(recheck_polls, asks)]

    def give_up(self, *asks: Ask) -> list[list[Run]]:
        return self.do(give_up_polls, [ask.poll_id for ask in asks])

    def park(self, runner: Runner, *, wanted: int = 1, instance: str = "web-1") -> Ask:
        """A poll that found nothing, twice, and waits."""
        one = asking(runner, wanted=wanted, instance=instance)
        first, second = self.answer(one)[0], self.second(one)[0]
        assert (first.parked, second.parked) == (True, True)
        return one

    def claim(self, runner: Runner, *, wanted: int = 1) -> list[Run]:
        """What a poll of this runner is given at once."""
        return self.answer(asking(runner, wanted=wanted))[0].runs

    def dispatch(self, limit: int = 500) -> dict[str, list[str]]:
        """The runs that a pass of a worker gave out, by poll."""
        given: dict[str, list[str]] = {}
        for assignments in self.do(dispatch_waiting, limit).by_instance.values():
            for one in assignments:
                given.setdefault(one.poll_id, []).append(one.run_id)
        return given

    # what there is

    def run(self, run_id: str) -> Row[Any]:
        return self.rows("SELECT * FROM runs WHERE run_id = :run_id", run_id=run_id)[0]

    def session(self, session_id: str) -> Row[Any]:
        return self.rows("SELECT * FROM sessions WHERE session_id = :session_id", session_id=session_id)[0]

    def waiting(self) -> set[str]:
        """The poll ids that dispatch may give runs to."""
        return {row.poll_id for row in self.rows("SELECT poll_id FROM waiting_polls")}

    def count(self, table: str, where: str = "true", **values: Any) -> int:
        return int(self.one(f"SELECT count(*) FROM {table} WHERE {where}", **values))

    def told_kinds(self, session_id: str) -> list[str]:
        """The kinds of the events of a session, in their order."""
        rows = self.rows("SELECT kind FROM events WHERE session_id = :s ORDER BY id", s=session_id)
        return [row.kind for row in rows]


def starting(session_id: str | None = None, *, caller: Caller = ADMIN, **values: Any) -> NewRun:
    """A submission that starts a session, with a new run id."""
    return NewRun(
        run_id=new_id("run_"),
        session_id=session_id,
        new_session_id=new_id("ses_"),
        caller=caller,
        type=RunType.START,
        parameters=values.pop("parameters", PARAMETERS),
        **values,
    )


def resuming(session_id: str, **values: Any) -> NewRun:
    """A submission that resumes a session, with a new run id."""
    return replace(starting(session_id, **values), type=RunType.RESUME)


def asking(runner: Runner, *, wanted: int = 1, instance: str = "web-1") -> Ask:
    """A poll with a new id."""
    return Ask(new_id("poll_"), runner.runner_id, wanted, instance)


def accepted(result: Submitted | CoordinatorError) -> Submitted:
    assert isinstance(result, Submitted), result
    return result


def told(answer: PollAnswer | CoordinatorError) -> PollAnswer:
    assert isinstance(answer, PollAnswer), answer
    return answer


def backend(connection: Connection) -> int:
    """The pid by which pg_stat_activity and pg_locks know this connection."""
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
