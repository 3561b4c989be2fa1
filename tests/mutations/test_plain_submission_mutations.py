"""Break one mechanism of plain submissions on purpose: the test that guards it must notice."""

import pytest
from sqlalchemy.exc import IntegrityError

from models.core.statuses import RunType
from models.runs import submit_plain
from models.runs.submission import NewRun
from tests.integration import test_submit_plain as plain_cases
from tests.properties import test_plain_submissions_model as model
from tests.races import test_plain_submissions as races
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.mutation import break_statement, notices
from tests.support.plain_submissions import ANNA, add_profile

KEYS = "AND (i.key IS NULL OR (i.caller, i.key) IN (SELECT t.caller, t.key FROM taken t))"
BEGUN = "(i.session_id IN (SELECT b.session_id FROM begun b)) IS TRUE"


def test_runs_of_sessions_that_existed_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of runs refuses them; the statement must not try."""
    add_profile(db)
    break_statement(monkeypatch, submit_plain, "_SUBMIT", {BEGUN: "true"})
    with pytest.raises(IntegrityError, match="ix_runs_session"):
        races.test_one_of_many_plain_starts_of_a_session_succeeds(db, 2)


def test_session_that_replaces_one_that_exists_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    add_profile(db)
    resets = "ON CONFLICT (session_id) DO UPDATE SET next_run = 2"
    break_statement(monkeypatch, submit_plain, "_SUBMIT", {"ON CONFLICT (session_id) DO NOTHING": resets})
    with pytest.raises(IntegrityError, match="ix_runs_session"):
        races.test_one_of_many_plain_starts_of_a_session_succeeds(db, 2)


def test_run_whose_key_another_one_has_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    add_profile(db)
    break_statement(monkeypatch, submit_plain, "_SUBMIT", {KEYS: ""})
    notices(lambda one: races.test_many_plain_submissions_with_one_key_create_one_run(one, 2), db)


def test_key_of_the_previous_release_that_is_not_read_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    add_profile(db)
    read = "AND (SELECT f.run_id FROM idempotency_keys f WHERE f.caller = i.former_caller AND f.key = i.key) IS NULL"
    break_statement(monkeypatch, submit_plain, "_SUBMIT", {read: ""})
    notices(plain_cases.test_key_of_previous_release_is_left_to_the_verb, db)


def test_profile_that_upkeep_may_remove_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    db.start(session_id="taken", idempotency_key="stored", body_hash="b", caller=ANNA)
    break_statement(monkeypatch, submit_plain, "_SUBMIT", {"AND p.last_used_at > now() - interval '1 hour'": ""})
    notices(
        lambda one: plain_cases.test_profile_not_used_within_the_hour_is_renewed_by_the_verb(
            one, "2 days", is_plain=False
        ),
        db,
    )


def test_items_that_name_one_session_together_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statement would insert a parent in front of a child that came first."""
    db.accept(start_submission())

    def starts(items: list[NewRun]) -> list[int]:
        return [
            place for place, item in enumerate(items) if item.type is RunType.START and item.parent_session_id is None
        ]

    monkeypatch.setattr(submit_plain, "_plain_places", starts)
    notices(plain_cases.test_child_in_front_of_its_parent_is_refused, db)


def test_run_that_is_ready_too_early_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break a rule of the verb that the statement repeats."""
    break_statement(monkeypatch, submit_plain, "_SUBMIT", {"i.due_at IS NULL OR i.due_at <= now(),": "true,"})
    notices(model.test_plain_form_and_verb_do_the_same, db)
