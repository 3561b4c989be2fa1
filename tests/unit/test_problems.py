"""Every error of the truth has its answer."""

import app.http.problems
from app.http.problems import problem_of
from app.writes.attempts import Unavailable
from models.core import errors
from models.core.errors import CoordinatorError


def test_every_error_class_has_a_row() -> None:
    """An error without a row would be answered 500."""
    kinds = {one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, CoordinatorError)}
    assert kinds - {CoordinatorError} == set(app.http.problems._TABLE)


def test_postgres_away_is_503_with_retry_after() -> None:
    """Clients are told when to come back."""
    problem = problem_of(Unavailable())
    assert problem.status == 503
    assert problem.headers == {"Retry-After": "1"}


def test_an_error_answers_with_the_words_clients_know() -> None:
    """Fixed texts of PROTOCOL."""
    assert problem_of(errors.NotFound("run", "x")) == (404, "Run not found", None)
    assert problem_of(errors.NotFound("parent session", "x")) == (404, "Parent session 'x' not found", None)
    assert problem_of(errors.SessionExists("x")) == (409, "Session 'x' already exists", None)
    assert problem_of(errors.RunnerNotRegistered("x")) == (401, "Runner not registered", None)
    assert problem_of(errors.StopSessionFirst("x")) == (409, "Stop session first", None)
    assert problem_of(errors.StaleClaim("run", "running")).detail["error"] == "stale_claim"
