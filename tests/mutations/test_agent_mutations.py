"""Break one mechanism of runners' agents on purpose: the test that guards it must notice."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from models.claims.matching import NO_DEMANDS
from models.core.errors import CoordinatorError
from models.runners import agents
from models.runs import submission, submit_plain
from tests.integration import test_runner_agents as cases
from tests.properties import test_plain_submissions_model as model
from tests.races import test_agent_races as races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices

PROBE = "(SELECT a.name FROM runner_agents a WHERE a.name = n.agent_name) IS NULL"


def test_plain_submission_that_ignores_agents_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    break_statement(monkeypatch, submit_plain, "_SUBMIT", {PROBE: "true"})
    notices(cases.test_run_that_names_an_agent_goes_to_its_runner_alone, db)


def test_plain_submission_that_ignores_agents_is_noticed_by_the_model(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_statement(monkeypatch, submit_plain, "_SUBMIT", {PROBE: "true"})
    notices(model.test_plain_form_and_verb_do_the_same, db, by="Failing test case")


def test_submission_that_ignores_the_demands_of_an_agent_is_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "_demands_of_agent", lambda _: NO_DEMANDS)
    notices(cases.test_run_that_names_an_agent_goes_to_its_runner_alone, db)


def test_schema_that_changed_after_the_check_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept parameters that were checked against any schema."""
    decide = submission._refused_by_agent

    def refused(item: submission.NewRun, *given: Any) -> CoordinatorError | None:
        return None if item.satisfied_schema is not None else decide(item, *given)

    monkeypatch.setattr(submission, "_refused_by_agent", refused)
    notices(cases.test_parameters_must_have_been_checked_against_the_schema_that_is_stored, db)


def test_registrations_that_do_not_wait_for_each_other_are_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "_LOCK", text("SELECT 1"))
    with pytest.raises(IntegrityError, match="pk_runner_agents"):
        races.test_registration_waits_for_an_earlier_one_with_agents(db, "commit")
