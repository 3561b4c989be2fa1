"""Promise 1, with one of its mechanisms broken on purpose: the scenario that guards it must notice."""

import pytest
from sqlalchemy import text

from models.claims import claim, delivery, dispatch, polls
from models.feed import append
from models.runs import report, submit_rows
from models.runs.submit import submit_runs
from models.state import transitions
from models.state.runs import RUN_COLUMNS
from tests.support import claim_scenarios, fencing_scenarios
from tests.support.contenders import steppers
from tests.support.db_verbs import DbVerbs, starting
from tests.support.mutation import Scenario, notices, without


@pytest.mark.parametrize(
    "scenario",
    [
        fencing_scenarios.a_lost_runner_cannot_finish_a_run_given_to_another,
        fencing_scenarios.a_decision_on_a_former_claim_moves_nothing,
        fencing_scenarios.an_old_message_starts_nothing,
        fencing_scenarios.an_event_that_waits_for_its_claims_end_is_refused,
        fencing_scenarios.an_event_that_waits_stops_nobody_who_has_its_run,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_late_words_change_nothing(db: DbVerbs, scenario: Scenario) -> None:
    """The scenarios as they are; those of claiming stand in tests/races."""
    scenario(db)


def test_an_update_without_its_fence_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The UPDATE that moves a run, without the status and token its decision saw."""
    fence = "AND r.status = m.former AND r.claim_token IS NOT DISTINCT FROM m.token"
    monkeypatch.setattr(transitions, "_MOVE", without(transitions._MOVE, fence))
    notices(fencing_scenarios.a_decision_on_a_former_claim_moves_nothing, db)


def test_reports_that_nobody_compares_with_the_claim_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every report counts, whoever sends it."""
    monkeypatch.setattr(report, "_holds", lambda *_: True)
    notices(fencing_scenarios.a_lost_runner_cannot_finish_a_run_given_to_another, db)


def test_a_confirmation_without_the_token_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old message would hand out a run that another runner has."""
    unfenced = without(delivery._CONFIRM, "r.claim_token = c.claim_token AND ", " AND r.claim_token = held.claim_token")
    monkeypatch.setattr(delivery, "_CONFIRM_RUNS", unfenced.columns(*RUN_COLUMNS))
    notices(fencing_scenarios.an_old_message_starts_nothing, db)


def test_events_that_do_not_lock_their_claim_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they waited for at the session's lock they would not see."""
    monkeypatch.setattr(append, "_APPEND", without(append._APPEND, "ORDER BY run_id FOR KEY SHARE"))
    notices(fencing_scenarios.an_event_that_waits_for_its_claims_end_is_refused, db, "of a claim that has ended")


def test_events_that_lock_their_session_first_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way round than everybody: a deadlock now and then."""
    after_runs = "AND (SELECT count(*) FROM claim) >= 0"
    unordered = without(append._APPEND, after_runs).text
    first = unordered.replace("ORDER BY run_id", "AND (SELECT count(*) FROM held) >= 0 ORDER BY run_id")
    first = first.replace("WITH item", "WITH RECURSIVE item")  # which may look ahead
    monkeypatch.setattr(append, "_APPEND", text(first))
    notices(fencing_scenarios.an_event_that_waits_stops_nobody_who_has_its_run, db, "held by who waits")


def test_a_claim_without_lock_and_without_status_guard_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two who saw the same run both take it."""
    guard = " AND r.status = 'pending' AND r.ready"
    broken = without(claim._TAKE, guard, "FOR NO KEY UPDATE SKIP LOCKED")
    monkeypatch.setattr(claim, "_TAKE_RUNS", broken.columns(*RUN_COLUMNS))
    notices(lambda one: claim_scenarios.same_candidates(one, 8), db, "given to more than one")


def test_a_claim_without_skip_locked_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given out twice, but one slow commit holds up the next claim: it is seen waiting."""
    monkeypatch.setattr(claim, "_TAKE_RUNS", without(claim._TAKE, "SKIP LOCKED").columns(*RUN_COLUMNS))
    with pytest.raises(AssertionError, match="waits for the first"):
        claim_scenarios.nobody_waits_for_a_claim(db)


def test_a_second_claim_that_ignores_its_waiting_row_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dispatch gives the poll a run, and it takes another one itself."""
    ignoring = text("SELECT poll_id FROM unnest(CAST(:polls AS text[])) AS w(poll_id)")
    monkeypatch.setattr(polls, "_LOCK_WAITING", ignoring)
    notices(claim_scenarios.one_run_per_poll, db, "after ")


def test_a_missing_second_claim_is_noticed(db: DbVerbs) -> None:
    """What is submitted while a poll parks would wait for the re-check."""
    notices(lambda one: claim_scenarios.one_run_per_poll(one, second_claim=lambda *_: None), db, "after ")


def test_a_dispatch_that_does_not_hold_the_waiting_rows_is_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, or a worker and the poll itself, give it a run each."""
    monkeypatch.setattr(dispatch, "_LOCK_SOME", without(dispatch._LOCK_SOME, "FOR UPDATE SKIP LOCKED"))
    notices(claim_scenarios.two_workers_one_poll, db, "after ")


def test_giving_up_without_looking_for_an_assignment_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that a worker had just given to the poll would be claimed for nobody."""
    monkeypatch.setattr(polls, "confirm_polls", lambda *_, **__: {})
    notices(claim_scenarios.giving_up_leaves_nothing_behind, db, "after ")


def test_an_idempotency_key_that_is_only_looked_up_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the row that the second one waits for, both create a run."""

    def one_run(db: DbVerbs) -> None:
        items = [starting(idempotency_key="k", body_hash="b") for _ in range(2)]
        with steppers(db.engine, 2) as (one, other):
            one.do(submit_runs, [items[0]])
            other.do(submit_runs, [items[1]])
            one.commit()
            other.commit()
        assert db.count("runs") == 1

    one_run(db)
    db.rows("TRUNCATE runs, sessions, idempotency_keys")
    monkeypatch.setattr(submit_rows, "take_keys", lambda _, items: {item.key for item in items})
    notices(one_run, db)
