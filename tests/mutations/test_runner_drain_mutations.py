"""Break one of the places that keep runs from a draining runner, or that give it runs again after the drain."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from models.claims import dispatch, plain_polls, polls
from models.runners import register
from models.runners.drain import Drained
from runtime.settings import Settings
from tests.integration import test_runner_drains
from tests.integration.test_poll_wakeups import Pair, pair
from tests.races import test_runner_drain_races as races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices
from tests.support.runner_drains import our_engine

DRAINS = {"n.draining_since IS NULL": "true"}
CAPACITY = {"CASE WHEN n.draining_since IS NULL THEN n.capacity ELSE 0 END": "n.capacity"}


@pytest.fixture
def ours(settings: Settings) -> Iterator[Engine]:
    with our_engine(settings) as engine:
        yield engine


def _given(way: Callable[..., None]) -> Callable[[DbVerbs], None]:
    """Return the scenario of a way to runs, at a runner that a replica of the last release has registered anew."""
    return lambda db: races.test_draining_runner_is_given_no_run(db, way, "by the last release")


@pytest.mark.parametrize(
    ("module", "statement", "parts", "way"),
    [
        (plain_polls, "_ANSWER", DRAINS, races.first_plain_call),
        (plain_polls, "_CLAIM_PARKED", DRAINS, races.second_plain_call),
        (polls, "_LOOK", CAPACITY, races.first_call),
        (polls, "_LOOK", CAPACITY, races.second_call),
        (dispatch, "_RECENT", DRAINS, races.choice_elsewhere),
    ],
    ids=["first plain call", "second plain call", "first call", "second call", "choice elsewhere"],
)
def test_claim_that_ignores_a_drain_is_noticed(
    db: DbVerbs,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    statement: str,
    parts: dict[str, str],
    way: Callable[..., None],
) -> None:
    break_statement(monkeypatch, module, statement, parts)  # type: ignore[arg-type]  # a module, by the table above
    notices(_given(way), db)


def test_recheck_that_believes_its_poll_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll would be woken for runs all through the drain, or wait on after it."""
    break_statement(monkeypatch, polls, "_FIND_CHANGED", {"(n.draining_since IS NOT NULL) <> a.draining": "false"})
    notices(test_runner_drains.recheck_finds_the_end_of_a_drain, db)


def test_dispatch_that_believes_its_look_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    break_statement(monkeypatch, dispatch, "_LOCK_SOME", DRAINS)
    notices(races.test_dispatch_that_looked_before_a_drain_gives_its_runner_nothing, db)


@pytest.mark.parametrize("claim", ["first call", "first plain call"])
def test_answer_of_a_drain_that_waits_for_no_claim_is_noticed(
    db: DbVerbs, ours: Engine, monkeypatch: pytest.MonkeyPatch, claim: str
) -> None:
    monkeypatch.setattr(races, "open_transactions", lambda _: frozenset())
    with pytest.raises(AssertionError, match="does not wait"):
        races.test_answer_of_a_drain_waits_for_a_claim_that_had_begun(db, ours, claim)


def test_registration_that_undoes_a_drain_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    undone = {"counted_beat_at = NULL": "counted_beat_at = NULL, draining_since = NULL"}
    break_statement(monkeypatch, register, "_RENEW", undone)
    notices(test_runner_drains.test_drain_survives_every_registration_of_its_runner, db)


@pytest.fixture
def both(settings: Settings) -> Iterator[Pair]:
    with pair(settings) as both:
        yield both


def test_end_of_a_drain_that_wakes_no_poll_is_noticed(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The poll on another instance would wait for the re-check, or for dispatch by a worker."""
    monkeypatch.setattr("app.polls.wakeups.Drained", type("Another", (Drained,), {}))
    with pytest.raises(AssertionError, match="not told"):
        test_runner_drains.test_end_of_a_drain_reaches_a_poll_on_another_instance(both)
