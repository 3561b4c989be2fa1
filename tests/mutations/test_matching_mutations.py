"""Break the rule of runs without a matching runner on purpose: the scenarios that guard it must notice."""

import pytest
from sqlalchemy import Connection

from models.claims.fleet import Differences, Fleet
from models.expiry import match_deadlines
from tests.support import no_match_scenarios
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices

SCENARIOS = [
    no_match_scenarios.backlog_of_a_busy_runner,
    no_match_scenarios.runner_that_registers_at_the_last_moment,
    no_match_scenarios.last_matching_runner_is_lost,
    no_match_scenarios.excluded_runner_is_the_only_one,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)
def test_scenarios_hold_unbroken(db: DbVerbs, scenario: no_match_scenarios.Scenario) -> None:
    scenario(db)


def test_deadline_that_ignores_live_registrations_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail every ready run after its timeout, as earlier versions did."""
    monkeypatch.setattr(Fleet, "satisfies", lambda *_: False)
    monkeypatch.setattr(match_deadlines, "_store", lambda *_: None)
    notices(no_match_scenarios.backlog_of_a_busy_runner, db, "failed behind a busy runner")


def test_sweep_that_does_not_reread_registrations_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that registers during the sweep would lose its runs."""
    refresh, seen = Fleet.refresh, list[object]()

    def once_a_pass(fleet: Fleet, conn: Connection) -> Differences:
        if conn.get_transaction() in seen:
            return Differences([], [])
        seen.append(conn.get_transaction())
        return refresh(fleet, conn)

    monkeypatch.setattr(Fleet, "refresh", once_a_pass)
    notices(no_match_scenarios.runner_that_registers_at_the_last_moment, db, "failed though a runner")


def test_unstored_loss_of_the_last_match_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline would never begin."""
    refresh = Fleet.refresh
    monkeypatch.setattr(Fleet, "refresh", lambda *given: Differences(refresh(*given).matched, []))
    notices(no_match_scenarios.last_matching_runner_is_lost, db, "waits for ever")


def test_deadline_that_begins_with_readiness_alone_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog would fail at the moment its last runner is lost."""
    break_statement(monkeypatch, match_deadlines, "_STORE", {"CAST(:now AS timestamptz)": "timestamptz '2000-01-01'"})
    notices(no_match_scenarios.last_matching_runner_is_lost, db, "failed at the moment of the loss")


def test_ignored_exclusions_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that its only runner may not have again would wait for ever."""
    monkeypatch.setattr(match_deadlines, "_due_excluded", lambda *_: [])
    notices(no_match_scenarios.excluded_runner_is_the_only_one, db, "waits for ever")
