"""Verbs of models/ in the shape that tests need: each call commits one transaction, and makes its subject if none is
given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, text

from models.claims.claim import Ask
from models.claims.plain_polls import answer_plain_polls, claim_plain_parked, give_up_plain_polls
from models.claims.polls import Answer, PollAnswer, answer_polls, claim_parked, give_up_polls, recheck_polls
from models.core.callers import ADMIN, Caller
from models.core.errors import CoordinatorError
from models.core.ids import new_id, runner_identity
from models.core.plain import NOT_PLAIN, NotPlain
from models.core.statuses import RunType
from models.runs.submission import NewRun, Submitted
from models.runs.submit import submit_runs
from models.state.runs import Run
from testkit.recorded_events import RECORDED_EVENTS
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


_PLAIN: Mapping[Callable[..., Any], Callable[..., list[Any]]] = {
    answer_polls: answer_plain_polls,
    claim_parked: claim_plain_parked,
    give_up_polls: give_up_plain_polls,
}


@dataclass(frozen=True, slots=True)
class Runner:
    """A registered runner."""

    runner_id: str
    registration: int


class DbVerbs:
    """A database and the verbs on it; every call is committed when it returns."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # Have polls answered by the statement of the plain case first, as group commit does; count what it answers.
        self.fast_paths = False
        self.plain_answers = 0
        self._numbers = count(1)
        self._asks: dict[str, Ask] = {}

    def do(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run one verb in one transaction."""
        with self.engine.begin() as connection:
            return verb(connection, *args, **kwargs)

    def rows(self, statement: str, **values: Any) -> Sequence[Row[Any]]:
        """Return the rows of a query; an empty list for a statement without rows."""
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    def one(self, statement: str, **values: Any) -> Any:
        """Return the only value of the only row."""
        ((value,),) = self.rows(statement, **values)
        return value

    # Clients

    def submit(self, *items: NewRun, max_depth: int = 10, most_demands: int = 0) -> list[Submitted | CoordinatorError]:
        return self.do(submit_runs, items, max_depth=max_depth, most_demands=most_demands)

    def accept(self, *items: NewRun) -> list[Submitted]:
        """Submit valid runs."""
        return [accepted(result) for result in self.submit(*items)]

    def start(self, **values: Any) -> Submitted:
        """Start a session with one run."""
        return self.accept(start_submission(**values))[0]

    def resume(self, session_id: str, **values: Any) -> Submitted:
        return self.accept(resume_submission(session_id, **values))[0]

    # Runners

    def runner(self, **values: Any) -> Runner:
        """Register a new runner that satisfies the demands of a plain run."""
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

    def poll(self, verb: Callable[..., list[Answer]], *asks: Ask) -> list[Answer]:
        """Return the answers; repeated polls ask with what their last answers said of the registration."""
        answers = self._plain_first(verb, [self._asks.get(ask.poll_id, ask) for ask in asks])
        for ask, answer in zip(asks, answers, strict=True):
            if isinstance(answer, PollAnswer):
                self._asks[ask.poll_id] = answer.update(self._asks.get(ask.poll_id, ask))
        return answers

    def _plain_first(self, verb: Callable[..., list[T]], items: Sequence[Any]) -> list[T]:
        plain = _PLAIN.get(verb) if self.fast_paths else None
        if plain is None:
            return self.do(verb, items)
        answers = self.do(plain, items)
        left = [item for item, answer in zip(items, answers, strict=True) if answer is NOT_PLAIN]
        self.plain_answers += len(items) - len(left)
        others = iter(self.do(verb, left) if left else [])
        return [next(others) if answer is NOT_PLAIN else answer for answer in answers]

    def answer(self, *asks: Ask) -> list[PollAnswer]:
        """Return the first answers of polls of registered runners."""
        return [told(answer) for answer in self.poll(answer_polls, *asks)]

    def second(self, *asks: Ask) -> list[PollAnswer]:
        """Return the answers of the second claim, after parking."""
        return [told(answer) for answer in self.poll(claim_parked, *asks)]

    def recheck(self, *asks: Ask) -> list[PollAnswer]:
        return [told(answer) for answer in self.poll(recheck_polls, *asks)]

    def give_up(self, *asks: Ask) -> list[list[Run]]:
        return self._plain_first(give_up_polls, [ask.poll_id for ask in asks])

    def park(self, runner: Runner, *, wanted: int = 1, instance: str = "web-1") -> Ask:
        """Park a poll that found nothing, twice."""
        one = poll_request(runner, wanted=wanted, instance=instance)
        first, second = self.answer(one)[0], self.second(one)[0]
        assert (first.parked, second.parked) == (True, True)
        return self._asks[one.poll_id]

    def claim(self, runner: Runner, *, wanted: int = 1) -> list[Run]:
        """Return the runs that a poll of this runner is given at once."""
        return self.answer(poll_request(runner, wanted=wanted))[0].runs

    def dispatch(self, limit: int = 500) -> dict[str, list[str]]:
        """Return the runs that a pass of a worker assigned, by poll."""
        given: dict[str, list[str]] = {}
        for assignments in self.do(dispatch_waiting, limit).by_instance.values():
            for one in assignments:
                given.setdefault(one.poll_id, []).append(one.run_id)
        return given

    # Stored rows

    def run(self, run_id: str) -> Row[Any]:
        return self.rows("SELECT * FROM runs WHERE run_id = :run_id", run_id=run_id)[0]

    def session(self, session_id: str) -> Row[Any]:
        return self.rows("SELECT * FROM sessions WHERE session_id = :session_id", session_id=session_id)[0]

    def waiting(self) -> set[str]:
        """Return the ids of the polls to which dispatch may assign runs."""
        return {row.poll_id for row in self.rows("SELECT poll_id FROM waiting_polls")}

    def count(self, table: str, where: str = "true", **values: Any) -> int:
        return int(self.one(f"SELECT count(*) FROM {table} WHERE {where}", **values))

    def told_kinds(self, session_id: str) -> list[str]:
        """Return the kinds of the events of a session, in their order."""
        rows = self.rows(f"SELECT kind FROM {RECORDED_EVENTS} WHERE session_id = :s ORDER BY id", s=session_id)
        return [row.kind for row in rows]


def start_submission(session_id: str | None = None, *, caller: Caller = ADMIN, **values: Any) -> NewRun:
    """Build a submission that starts a session, with a new run id."""
    return NewRun(
        run_id=new_id("run_"),
        session_id=session_id,
        new_session_id=new_id("ses_"),
        caller=caller,
        type=RunType.START,
        parameters=values.pop("parameters", PARAMETERS),
        **values,
    )


def resume_submission(session_id: str, **values: Any) -> NewRun:
    """Build a submission that resumes a session, with a new run id."""
    return replace(start_submission(session_id, **values), type=RunType.RESUME)


def poll_request(runner: Runner, *, wanted: int = 1, instance: str = "web-1") -> Ask:
    """Build a poll with a new id."""
    return Ask(new_id("poll_"), runner.runner_id, wanted, instance)


def accepted(result: Submitted | CoordinatorError) -> Submitted:
    assert isinstance(result, Submitted), result
    return result


def told(answer: PollAnswer | CoordinatorError | NotPlain) -> PollAnswer:
    assert isinstance(answer, PollAnswer), answer
    return answer


def backend(connection: Connection) -> int:
    """Return the pid of this connection in pg_stat_activity and pg_locks."""
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
