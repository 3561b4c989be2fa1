"""Break a mechanism of imports on purpose: the scenario that guards it must notice."""

from functools import partial
from pathlib import Path

import pytest

from models.transfer import write
from tests.integration.test_imports import deleted_session_is_imported_anew
from tests.races.test_import_races import events_committed_before_an_import_come_before_it
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices


def test_import_that_numbers_nothing_before_itself_is_noticed(
    db: DbVerbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "sequence_feed", lambda _: 0)
    scenario = partial(events_committed_before_an_import_come_before_it, path=tmp_path / "old.db")
    notices(scenario, db, by="out of order")


def test_import_that_shows_events_of_a_deleted_session_is_noticed(
    db: DbVerbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_statement(monkeypatch, write, "_INSERT_SESSIONS", {", e.next_id": ", 0"})
    notices(partial(deleted_session_is_imported_anew, path=tmp_path / "old.db"), db, by="are shown")
