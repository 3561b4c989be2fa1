"""Reports as they are taken in: never refused for what stands beside run, runner and outcome."""

from typing import Any

import pytest

from app.http.bodies import Invalid
from app.inputs.reports import report_of, report_of_list, runner_id_of
from models.core.statuses import Outcome


@pytest.mark.parametrize(
    ("error", "kept"), [("text", "text"), ("", None), (None, None), (5, "5"), ({"a": 1}, '{"a":1}'), ("\x00", "\ufffd")]
)
def test_an_error_of_any_kind_is_kept_as_text(error: Any, kept: str | None) -> None:
    """The client that sends it does not retry."""
    assert report_of({"error": error}, "run", "runner", Outcome.FAILED).error == kept


@pytest.mark.parametrize(
    ("given", "taken"), [("idle", "idle"), ("finished", "finished"), ("other", None), (5, None), ([], None)]
)
def test_a_session_status_that_means_nothing_is_left_out(given: Any, taken: str | None) -> None:
    """Only idle and finished are known."""
    assert report_of({"session_status": given}, "run", "runner", Outcome.COMPLETED).session_status == taken


@pytest.mark.parametrize(
    "body",
    [5, None, [], {}, {"run_id": 5, "outcome": "started"}, {"run_id": "r"}, {"run_id": "r", "outcome": ["started"]}],
)
def test_a_report_of_a_list_says_of_which_run_and_what(body: Any) -> None:
    """Otherwise it is that item's 422, with its place."""
    with pytest.raises(Invalid) as refused:
        report_of_list(body, "runner", ("body", "reports", 3))
    assert refused.value.faults[0].loc[:3] == ("body", "reports", 3)


@pytest.mark.parametrize("body", [{}, {"runner_id": None}, {"runner_id": 5}])
def test_a_report_says_who_reports(body: dict[str, Any]) -> None:
    """Without it nobody could be asked."""
    with pytest.raises(Invalid):
        runner_id_of(body)
