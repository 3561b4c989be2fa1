"""Break the rule of runs without a matching runner on purpose: the scenarios that guard it must notice."""

import pytest
from sqlalchemy import Connection

from models.claims.fleet import Differences, Fleet
from models.expiry import match_deadlines
from tests.integration import test_match_deadlines
from tests.races import test_matching_races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices


def deadline_starts_with_the_loss(db: DbVerbs) -> None:
    test_match_deadlines.test_deadline_starts_when_last_matching_registration_ends(db, "lost")


def test_deadline_that_ignores_live_registrations_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail every ready run after its timeout, as earlier versions did."""
    monkeypatch.setattr(Fleet, "satisfies", lambda *_: False)
    monkeypatch.setattr(match_deadlines, "_store", lambda *_: None)
    notices(test_match_deadlines.test_backlog_of_busy_matching_runner_outlives_no_match_timeout, db, "unmatched")


def test_sweep_that_does_not_reread_registrations_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that registers during the sweep would lose its runs."""
    refresh, seen = Fleet.refresh, list[object]()

    def once_a_pass(fleet: Fleet, conn: Connection) -> Differences:
        if conn.get_transaction() in seen:
            return Differences([], [])
        seen.append(conn.get_transaction())
        return refresh(fleet, conn)

    monkeypatch.setattr(Fleet, "refresh", once_a_pass)
    notices(
        test_matching_races.test_runner_that_registers_during_sweep_keeps_its_runs_pending, db, "failed though a runner"
    )


def test_unstored_loss_of_the_last_match_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline would never begin."""
    refresh = Fleet.refresh
    monkeypatch.setattr(Fleet, "refresh", lambda *given: Differences(refresh(*given).matched, []))
    notices(deadline_starts_with_the_loss, db, "assert None is not None")


def test_deadline_that_begins_with_readiness_alone_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog would fail at the moment its last runner is lost."""
    break_statement(monkeypatch, match_deadlines, "_STORE", {"CAST(:now AS timestamptz)": "timestamptz '2000-01-01'"})
    notices(deadline_starts_with_the_loss, db, "'unmatched' not in")


def test_ignored_exclusions_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that its only runner may not have again would wait for ever."""
    monkeypatch.setattr(match_deadlines, "_due_excluded", lambda *_: [])
    notices(test_match_deadlines.test_run_satisfied_by_excluded_registrations_only_has_deadline, db, "None is not None")
