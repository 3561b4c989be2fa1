"""Check the HTTP answer of every error of models/."""

import app.http.problems
from app.http.problems import problem_of
from app.writes.attempts import Unavailable
from models.core import errors
from models.core.errors import CoordinatorError


def test_every_error_class_has_row() -> None:
    assert set(CoordinatorError.__subclasses__()) == set(app.http.problems._TABLE)


def test_postgres_away_is_503_with_retry_after() -> None:
    problem = problem_of(Unavailable())
    assert problem.status == 503
    assert problem.headers == {"Retry-After": "1"}


def test_error_answers_with_texts_of_the_protocol() -> None:
    assert problem_of(errors.NotFound("run", "x")) == (404, "Run not found", None)
    assert problem_of(errors.NotFound("parent session", "x")) == (404, "Parent session 'x' not found", None)
    assert problem_of(errors.SessionExists("x")) == (409, "Session 'x' already exists", None)
    assert problem_of(errors.RunnerNotRegistered("x")) == (401, "Runner not registered", None)
    assert problem_of(errors.StopSessionFirst("x")) == (409, "Stop session first", None)
    assert problem_of(errors.StaleClaim("run", "running")).detail["error"] == "stale_claim"
