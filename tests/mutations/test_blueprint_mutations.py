"""Break one mechanism of blueprints and of scripts on purpose: the test that guards it must notice."""

from typing import Any

import pytest
from sqlalchemy import text

from models.claims import dispatch, polls, script_syncs
from models.registries.blueprints import placeholders
from models.registries.blueprints.resolve import RegistryAgent, resolve_blueprint
from models.runs import submission, submit_plain
from tests.integration import test_blueprint_runs as cases
from tests.races import test_blueprint_races as races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices
from tests.unit import test_blueprints as units

PROBE = "(SELECT e.name FROM registry_entries e WHERE e.kind = 'agents' AND e.name = n.agent_name)"


def test_plain_submission_that_ignores_the_registry_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    break_statement(monkeypatch, submit_plain, "_SUBMIT", {PROBE: "NULL"})
    notices(lambda db: races.test_each_run_has_one_whole_version_of_its_agent(db, 2), db)


def test_blueprint_of_another_read_than_the_demands_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve each run with the agent that was read first."""
    known: dict[str, RegistryAgent] = {}

    def resolve(agent: RegistryAgent, values: placeholders.Values) -> Any:
        return resolve_blueprint(known.setdefault(agent.name, agent), values)

    monkeypatch.setattr(submission, "resolve_blueprint", resolve)
    notices(lambda db: races.test_each_run_has_one_whole_version_of_its_agent(db, 8), db)


def test_callback_that_resolves_its_agent_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    decide = submission._with_blueprint

    def with_blueprint(plan: submission.Plan, state: submission.LockedState) -> Any:
        object.__setattr__(plan.item, "callback", False)
        return decide(plan, state)

    monkeypatch.setattr(submission, "_with_blueprint", with_blueprint)
    notices(lambda db: cases.test_callback_has_the_demands_of_its_agent_and_no_blueprint(db, []), db)


def test_values_without_a_limit_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placeholders.Substitution, "_take", lambda *_: None)
    with pytest.raises(AssertionError):
        units.test_filled_in_texts_are_no_longer_than_allowed()


def test_registration_that_does_not_wait_for_scripts_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_syncs, "_LOCK_SHARED", text("SELECT 1"))
    notices(
        lambda db: races.test_script_that_is_created_beside_a_registration_reaches_the_runner(db, "script", "commit"),
        db,
    )


def test_script_that_is_sent_once_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget a script with the answer that names it, written or not."""
    for module, name in ((script_syncs, "_SEND"), (polls, "_LOOK")):
        break_statement(monkeypatch, module, name, {"OR y.sent_at < now() - interval '10 seconds'": ""})
    notices(cases.test_script_is_sent_until_its_answer_was_written, db)


def test_confirmation_of_a_former_answer_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    break_statement(monkeypatch, script_syncs, "_CONFIRM", {"AND y.sent_poll = a.poll_id": ""})
    notices(cases.test_last_change_of_a_script_decides, db)


def test_dispatch_that_ignores_due_scripts_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_WAITING", "_LOCK_SOME"):
        break_statement(monkeypatch, dispatch, name, {f"AND NOT ({script_syncs.SYNC_DUE_OF_N})": ""})
    notices(cases.test_dispatch_gives_no_run_to_a_poll_that_has_scripts_to_fetch, db)
