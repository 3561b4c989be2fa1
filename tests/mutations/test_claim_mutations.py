"""Break one mechanism of promise 1 on purpose: the scenario that guards it must notice."""

import pytest
from sqlalchemy import text

from models.claims import claim, delivery, dispatch, polls
from models.feed import append
from models.runs import idempotency, report
from models.runs.submit import submit_runs
from models.state import transitions
from tests.races import test_claims, test_fencing
from tests.support.contenders import steppers
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.mutation import break_statement, notices


def test_update_without_fence_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop from the UPDATE that moves a run the status and token that its decision read."""
    fence = "AND r.status = m.former AND r.claim_token IS NOT DISTINCT FROM m.token"
    break_statement(monkeypatch, transitions, "_MOVE", {fence: ""})
    notices(test_fencing.test_decision_on_a_former_claim_moves_nothing, db)


def test_reports_not_compared_with_the_claim_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_holds", lambda *_: True)
    notices(test_fencing.test_lost_runner_cannot_finish_reassigned_run, db)


def test_confirmation_without_token_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old message would deliver a run that another runner has."""
    fence = {"r.claim_token = c.claim_token AND ": "", " AND r.claim_token = locked.claim_token": ""}
    break_statement(monkeypatch, delivery, "_CONFIRM_RUNS", fence)
    notices(test_fencing.test_old_message_starts_nothing, db)


def test_events_that_do_not_lock_their_claim_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such events would miss what was committed while they waited for the session's lock."""
    break_statement(monkeypatch, append, "_APPEND", {"ORDER BY run_id FOR KEY SHARE": ""})
    notices(test_fencing.test_event_that_waited_for_the_end_of_its_claim_is_refused, db, "of a claim that has ended")


def test_events_that_lock_their_session_first_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reverse of the common lock order deadlocks now and then."""
    session_first = {
        "AND (SELECT count(*) FROM claim) >= 0": "",
        "ORDER BY run_id": "AND (SELECT count(*) FROM held) >= 0 ORDER BY run_id",
        "WITH item": "WITH RECURSIVE item",  # RECURSIVE allows forward references.
    }
    break_statement(monkeypatch, append, "_APPEND", session_first)
    notices(test_fencing.test_waiting_event_blocks_no_holder_of_its_run, db, "held by who waits")


def test_claim_without_lock_and_status_guard_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two claims that read the same run both take it."""
    guards = {" AND coalesce(r.status = 'pending' AND r.ready, false)": "", "FOR NO KEY UPDATE SKIP LOCKED": ""}
    break_statement(monkeypatch, claim, "_TAKE_RUNS", guards)
    notices(lambda one: test_claims.test_same_candidates_go_to_different_claims(one, 8), db, "given to more than one")


def test_claim_without_skip_locked_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run is given twice, but one slow commit delays the next claim: it is seen waiting."""
    break_statement(monkeypatch, claim, "_TAKE_RUNS", {"SKIP LOCKED": ""})
    with pytest.raises(AssertionError, match="waits for the first"):
        test_claims.test_claim_waits_for_no_other_claim(db)


def test_second_claim_that_ignores_its_waiting_row_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dispatch gives the poll a run, and the poll takes another one itself."""
    ignoring = text("SELECT poll_id FROM unnest(CAST(:polls AS text[])) AS w(poll_id)")
    monkeypatch.setattr(polls, "_LOCK_WAITING", ignoring)
    notices(test_claims.test_poll_gets_one_run_in_every_order_of_park_submit_and_dispatch, db, "after ")


def test_missing_second_claim_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run submitted while a poll parks would wait for the re-check."""
    monkeypatch.setattr(test_claims, "claim_parked", lambda *_: None)
    notices(test_claims.test_poll_gets_one_run_in_every_order_of_park_submit_and_dispatch, db, "after ")


def test_dispatch_that_does_not_lock_waiting_rows_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers, or a worker and the poll itself, would each give it a run."""
    break_statement(monkeypatch, dispatch, "_LOCK_SOME", {"FOR UPDATE OF w SKIP LOCKED": ""})
    notices(test_claims.test_two_workers_give_a_poll_one_run, db, "after ")


def test_ending_a_poll_without_reading_its_assignment_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run just assigned to the poll would stay claimed without a receiver."""
    monkeypatch.setattr(polls, "confirm_polls", lambda *_, **__: {})
    notices(test_claims.test_ended_poll_gets_its_assignment_or_none_is_made, db, "after ")


def test_idempotency_key_that_is_only_looked_up_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the row on which the second submission waits, both create a run."""

    def one_run(db: DbVerbs) -> None:
        items = [start_submission(idempotency_key="k", body_hash="b") for _ in range(2)]
        with steppers(db.engine, 2) as (one, other):
            one.do(submit_runs, [items[0]])
            other.do(submit_runs, [items[1]])
            one.commit()
            other.commit()
        assert db.count("runs") == 1

    one_run(db)
    db.rows("TRUNCATE runs, sessions, idempotency_keys")
    monkeypatch.setattr(idempotency, "take_keys", lambda _, items: {item.key for item in items})
    notices(one_run, db)
