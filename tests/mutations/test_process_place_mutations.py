"""Break one mechanism of resumes to a session's process on purpose: the test that guards it must notice."""

from collections.abc import Mapping

import pytest
from sqlalchemy import Connection

from models.callbacks import resume_parents
from models.runs import submit
from models.state import process_places
from models.state.locked_rows import LockedSession
from models.state.process_places import with_process_places
from tests.integration import test_process_places as cases
from tests.races import test_process_place_races as races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices


def test_place_that_was_read_before_the_lock_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    first: dict[str, LockedSession] = {}

    def read_once(conn: Connection, sessions: Mapping[str, LockedSession]) -> dict[str, LockedSession]:
        placed = with_process_places(conn, sessions)
        return {name: first.setdefault(name, session) for name, session in placed.items()}

    monkeypatch.setattr(submit, "with_process_places", read_once)
    notices(lambda db: races.test_resume_is_decided_by_process_that_it_finds_under_the_lock(db, "end"), db)


def test_resume_that_ignores_the_process_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "with_process_places", lambda _, sessions: dict(sessions))
    notices(cases.test_resume_of_unbound_session_goes_to_runner_of_its_process, db)


def test_callback_that_ignores_the_process_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume_parents, "with_process_places", lambda _, sessions: dict(sessions))
    monkeypatch.setattr(submit, "with_process_places", lambda _, sessions: dict(sessions))
    notices(cases.test_results_of_children_go_to_runner_of_parents_process, db)


@pytest.mark.parametrize(
    ("part", "case"),
    [("n.leave_requested_at IS NULL", "asked to leave"), ("n.registration = p.registration", "another process")],
)
def test_process_that_cannot_be_resumed_is_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch, part: str, case: str
) -> None:
    break_statement(monkeypatch, process_places, "_LIVE", {part: "true"})
    notices(lambda db: cases.test_place_of_process_is_demanded_only_where_nothing_else_decides(db, case), db)
