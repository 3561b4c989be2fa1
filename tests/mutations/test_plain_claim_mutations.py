"""Break one mechanism of the plain polls on purpose: the scenario that guards it must notice."""

import pytest

from models.claims import plain_polls
from tests.races import test_plain_claims
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices
from tests.support.parking import CLAIM, FIND_NOTHING, LOOK, PARK, SUBMIT, is_noticed


def test_plain_claim_without_lock_and_status_guard_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two claims that read the same run both take it."""
    guards = {
        " AND coalesce(r.status = 'pending' AND r.ready, false)": "",
        "FOR NO KEY UPDATE SKIP LOCKED": "",
    }
    break_statement(monkeypatch, plain_polls, "_ANSWER", guards)
    notices(test_plain_claims.test_plain_claim_skips_the_run_of_an_open_claim, db, "given to more than one")


def test_plain_claim_without_skip_locked_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    break_statement(monkeypatch, plain_polls, "_ANSWER", {"SKIP LOCKED": ""})
    notices(test_plain_claims.test_plain_claim_skips_the_run_of_an_open_claim, db, "waits for the first")


def test_plain_claim_that_ignores_exclusions_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    break_statement(monkeypatch, plain_polls, "_ANSWER", {"not_for && CAST(:registrations AS bigint[])": "false"})
    notices(test_plain_claims.test_runs_excluded_from_a_runner_are_left_to_the_verb, db)


def test_plain_claim_that_ignores_a_new_registration_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    break_statement(monkeypatch, plain_polls, "_ANSWER", {"n.registration = a.registration AND ": ""})
    notices(test_plain_claims.test_runner_that_registered_anew_is_left_to_the_verb, db)


def test_plain_second_claim_that_ignores_its_waiting_row_is_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dispatch gives the poll a run, and the poll takes another one itself."""
    break_statement(monkeypatch, plain_polls, "_CLAIM_PARKED", {"a.poll_id IN (SELECT poll_id FROM mine)": "true"})
    notices(test_plain_claims.test_plain_poll_gets_one_run_in_every_order_of_park_submit_and_dispatch, db, "after ")


def test_plain_poll_without_second_claim_is_noticed(db: DbVerbs) -> None:
    """A run submitted while the poll parks would wait for the re-check."""
    order = (FIND_NOTHING, SUBMIT, LOOK, PARK)
    assert is_noticed(db, (*order, CLAIM), plain_polls.answer_plain_polls)
    db.rows("TRUNCATE runs, sessions, waiting_polls")
    assert not is_noticed(db, order, plain_polls.answer_plain_polls)
