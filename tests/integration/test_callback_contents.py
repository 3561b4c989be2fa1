"""Contents of a callback: which result of a child counts, what it may hold, and how much fits."""

from typing import Any

import pytest

from models.callbacks import resume_parents
from tests.support.db_verbs import DbVerbs
from tests.support.parents import child_of, deliver, end_turn, ended_child, heard_of, prompts, write_result
from tests.support.reports import accepted, finished, running


def test_newest_result_of_child_run_counts(db: DbVerbs) -> None:
    """Ignore results of earlier runs of the child's session."""
    parent = finished(db)
    child = child_of(db, parent)
    write_result(db, child, result_text="draft")
    write_result(db, child, result_text="final")
    accepted(db, child, "completed")
    run_id = deliver(db).runs[parent]
    assert "\n\nfinal\n" in prompts(db, parent)[0]
    end_turn(db, run_id)
    values: dict[str, Any] = {"parent_session_id": parent, "execution_mode": "async_callback"}
    end_turn(db, db.resume(child.session_id, **values).run_id)
    deliver(db)
    assert "\n\n(No result available)\n" in prompts(db, parent)[1]


def test_nul_and_surrogates_in_results_block_no_callback(db: DbVerbs) -> None:
    """Deliver them unchanged as data."""
    parent = running(db)
    data, text = child_of(db, parent.session_id), child_of(db, parent.session_id)
    write_result(db, data, result_data={"a": "\0\ud800"})
    write_result(db, text, result_text="x\0\ud800y")
    accepted(db, data, "completed")
    accepted(db, text, "completed")
    accepted(db, parent, "completed")
    deliver(db)
    (prompt,) = prompts(db, parent.session_id)
    assert '{\n  "a": "\\u0000\\ud800"\n}' in prompt
    assert "x\ufffd\ufffdy" in prompt


def test_run_carries_what_fits_and_next_run_carries_rest(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry at least one result, however large; keep the order."""
    monkeypatch.setattr(resume_parents, "RUN_BYTES", 3000)
    parent = running(db)
    sizes = [9000, 1000, 1000, 1000]
    children = [ended_child(db, parent.session_id, "x" * size).session_id for size in sizes]
    accepted(db, parent, "completed")
    told: list[int] = []
    while run_id := deliver(db).runs.get(parent.session_id):
        told.append(len(heard_of(db, parent.session_id)))
        end_turn(db, run_id)
    assert told == [1, 3, 4]
    assert heard_of(db, parent.session_id) == children


def test_pass_leaves_excess_to_next_pass(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for another pass when bytes or rows exceed the bound."""
    parents = [finished(db) for _ in range(3)]
    for parent in parents:
        ended_child(db, parent, "x" * 1000)
    first = deliver(db, at_most=1)
    assert (len(first.runs), first.again) == (1, True)
    monkeypatch.setattr(resume_parents, "PASS_BYTES", 500)
    second = deliver(db)
    assert (len(second.runs), second.again) == (1, True)
    third = deliver(db)
    assert (len(third.runs), third.again) == (1, False)
    assert first.runs.keys() | second.runs.keys() | third.runs.keys() == set(parents)
