"""Check that reports are never refused for fields beside run, runner and outcome."""

from typing import Any

import pytest

from app.http.bodies import Invalid
from app.inputs.reports import report_of, report_of_list, runner_id_of
from models.core.statuses import Outcome


@pytest.mark.parametrize(
    ("error", "kept"), [("text", "text"), ("", None), (None, None), (5, "5"), ({"a": 1}, '{"a":1}'), ("\x00", "\ufffd")]
)
def test_error_of_any_kind_is_kept_as_text(error: Any, kept: str | None) -> None:
    """The client that sends it does not retry."""
    assert report_of({"error": error}, "run", "runner", Outcome.FAILED).error == kept


@pytest.mark.parametrize(
    ("given", "taken"), [("idle", "idle"), ("finished", "finished"), ("other", None), (5, None), ([], None)]
)
def test_unknown_session_status_is_ignored(given: Any, taken: str | None) -> None:
    """Only idle and finished are known."""
    assert report_of({"session_status": given}, "run", "runner", Outcome.COMPLETED).session_status == taken


@pytest.mark.parametrize(
    "body",
    [5, None, [], {}, {"run_id": 5, "outcome": "started"}, {"run_id": "r"}, {"run_id": "r", "outcome": ["started"]}],
)
def test_report_in_a_list_needs_run_and_outcome(body: Any) -> None:
    """Answer that item with 422 and its place."""
    with pytest.raises(Invalid) as refused:
        report_of_list(body, "runner", ("body", "reports", 3))
    assert refused.value.faults[0].loc[:3] == ("body", "reports", 3)


@pytest.mark.parametrize("body", [{}, {"runner_id": None}, {"runner_id": 5}])
def test_report_without_runner_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        runner_id_of(body)
