"""Break one of the places that read holds, or their order: the test that guards it must notice."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from models.expiry import runs as expiry
from models.runs import holds, report_plain, submit, submit_plain
from models.runs.submit import submit_runs
from models.state import session_status
from models.state.holds import ANY_SELECTOR, is_held
from runtime.settings import Settings
from tests.integration import test_holds as cases
from tests.races import test_hold_races as races
from tests.support import holds as requests
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices
from tests.support.runner_drains import our_engine

HELD_R = f"NOT {is_held('r')}"
NEXT_IS_FREE = f"({ANY_SELECTOR} IS NULL AND (SELECT true FROM holds h WHERE h.run_id = next.run_id) IS NULL)"


@pytest.fixture
def ours(settings: Settings) -> Iterator[DbVerbs]:
    with our_engine(settings) as engine:
        yield DbVerbs(engine)


def matching(db: DbVerbs) -> None:
    cases.test_hold_keeps_the_runs_that_match_from_runners(db, {"everything": True}, {}, {})


def resumed(db: DbVerbs) -> None:
    cases.test_every_way_to_readiness_respects_holds(db, cases._resumed)


@pytest.mark.parametrize(
    ("module", "name", "parts", "scenario"),
    [
        (session_status, "_UPDATE_STATUS", {HELD_R: "true"}, resumed),
        (submit, "_INSERT_RUNS", {f"NOT {is_held('n')}": "true"}, matching),
        (
            submit_plain,
            "_SUBMIT",
            {f"{ANY_SELECTOR} IS NULL": "true"},
            cases.test_plain_statements_leave_holds_to_the_verbs,
        ),
        (
            report_plain,
            "_REPORT",
            {NEXT_IS_FREE: "true"},
            cases.test_plain_statements_leave_holds_to_the_verbs,
        ),
        (holds, "_TAKE_BACK", {"r.ready AND": "NOT r.ready AND"}, matching),
        (holds, "_FREE", {"ORDER BY r.priority DESC, r.run_id LIMIT :most": "LIMIT 0 * :most"}, matching),
    ],
    ids=["moves", "submissions", "plain submissions", "plain reports", "runs that wait already", "removal"],
)
def test_broken_statement_is_noticed(
    db: DbVerbs,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    parts: dict[str, str],
    scenario: Callable[[DbVerbs], None],
) -> None:
    break_statement(monkeypatch, module, name, parts)
    notices(scenario, db)


def test_expiry_that_ignores_holds_wastes_its_pass_only(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decide again, where the run is made ready, on what it finds."""
    break_statement(monkeypatch, expiry, "_DUE", {HELD_R: "true"})
    cases.test_every_way_to_readiness_respects_holds(db, cases._delayed)


@pytest.mark.parametrize("removes", [False, True], ids=["set", "remove"])
def test_request_that_does_not_wait_is_noticed(
    db: DbVerbs, ours: DbVerbs, monkeypatch: pytest.MonkeyPatch, *, removes: bool
) -> None:
    monkeypatch.setattr(requests, "wait_for_claims", lambda *_: None)
    notices(
        lambda one: races.test_submission_that_began_before_a_hold_agrees_with_it(
            one, ours, monkeypatch, submit_runs, removes=removes
        ),
        db,
    )


def test_hold_that_leaves_the_row_of_its_run_alone_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "_UNREADY", text("SELECT CAST(:run_ids AS text[])"))
    notices(cases.test_hold_of_one_run_leaves_others_and_is_undone, db)
