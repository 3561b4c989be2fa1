"""What a resumed parent is given to read: which result of a child counts, what may stand in it, and how much of it."""

from typing import Any

import pytest

from models.callbacks import resume_parents
from tests.support.family import child_of, deliver, end_turn, ended_child, finished, heard_of, prompts, write_result
from tests.support.reports import accepted, running
from tests.support.truth import Truth


def test_the_newest_result_of_the_run_counts(truth: Truth) -> None:
    """Not one of an earlier run of the child's session."""
    parent = finished(truth)
    child = child_of(truth, parent)
    write_result(truth, child, result_text="draft")
    write_result(truth, child, result_text="final")
    accepted(truth, child, "completed")
    run_id = deliver(truth).runs[parent]
    assert "\n\nfinal\n" in prompts(truth, parent)[0]
    end_turn(truth, run_id)
    values: dict[str, Any] = {"parent_session_id": parent, "execution_mode": "async_callback"}
    end_turn(truth, truth.resume(child.session_id, **values).run_id)
    deliver(truth)
    assert "\n\n(No result available)\n" in prompts(truth, parent)[1]


def test_nul_and_surrogates_in_results_stop_nobody(truth: Truth) -> None:
    """As data they stay what they were."""
    parent = running(truth)
    data, text = child_of(truth, parent.session_id), child_of(truth, parent.session_id)
    write_result(truth, data, result_data={"a": "\0\ud800"})
    write_result(truth, text, result_text="x\0\ud800y")
    accepted(truth, data, "completed")
    accepted(truth, text, "completed")
    accepted(truth, parent, "completed")
    deliver(truth)
    (prompt,) = prompts(truth, parent.session_id)
    assert '{\n  "a": "\\u0000\\ud800"\n}' in prompt
    assert "x\ufffd\ufffdy" in prompt


def test_a_run_carries_what_fits_and_the_rest_goes_with_the_next(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least one, however large; in order."""
    monkeypatch.setattr(resume_parents, "RUN_BYTES", 3000)
    parent = running(truth)
    sizes = [9000, 1000, 1000, 1000]
    children = [ended_child(truth, parent.session_id, "x" * size).session_id for size in sizes]
    accepted(truth, parent, "completed")
    told: list[int] = []
    while run_id := deliver(truth).runs.get(parent.session_id):
        told.append(len(heard_of(truth, parent.session_id)))
        end_turn(truth, run_id)
    assert told == [1, 3, 4]
    assert heard_of(truth, parent.session_id) == children


def test_a_pass_leaves_what_is_too_much_to_the_next(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so, by memory or by number."""
    parents = [finished(truth) for _ in range(3)]
    for parent in parents:
        ended_child(truth, parent, "x" * 1000)
    first = deliver(truth, at_most=1)
    assert (len(first.runs), first.again) == (1, True)
    monkeypatch.setattr(resume_parents, "PASS_BYTES", 500)
    second = deliver(truth)
    assert (len(second.runs), second.again) == (1, True)
    third = deliver(truth)
    assert (len(third.runs), third.again) == (1, False)
    assert first.runs.keys() | second.runs.keys() | third.runs.keys() == set(parents)
