"""Break one mechanism that keeps parents within one owner and without cycles: its scenario must notice."""

from typing import Any

import pytest
from sqlalchemy import text

from models.core.errors import ParentOfAnotherOwner
from models.runs import parents, report, submission
from models.state import child_results
from tests.integration import test_parents
from tests.races import test_parent_races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import Scenario, break_statement, notices


@pytest.mark.parametrize(
    "scenario",
    [
        test_parent_races.test_resumes_that_name_each_other_make_no_cycle,
        test_parent_races.test_two_changes_of_four_sessions_make_no_cycle,
        test_parent_races.test_two_changes_make_no_line_too_deep,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_unserialised_changes_of_parents_are_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch, scenario: Scenario
) -> None:
    """Each would read what the other has not committed."""
    monkeypatch.setattr(parents, "_ONE_AT_A_TIME", text("SELECT 1"))
    notices(scenario, db, "a cycle|too deep")


@pytest.mark.parametrize(
    "scenario",
    [
        test_parent_races.test_resumes_that_name_each_other_make_no_cycle,
        test_parent_races.test_starts_of_one_batch_see_each_others_changes,
    ],
)
def test_parent_not_rechecked_at_the_start_is_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch, scenario: Scenario
) -> None:
    """A parent that was valid at the submission may not be at the start."""
    monkeypatch.setattr(report, "set_parents", lambda _, __, moves, *___: moves)
    notices(scenario, db, "a cycle")


def test_depth_without_the_subtree_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session comes with its children."""

    def flat(_: Any, session_ids: Any, __: int) -> dict[str, int]:
        return dict.fromkeys(session_ids, 0)

    monkeypatch.setattr(parents, "heights", flat)
    notices(test_parent_races.test_two_changes_make_no_line_too_deep, db, "too deep")


def test_start_that_does_not_compare_owners_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent is set at the start."""
    break_statement(monkeypatch, parents, "_STILL_ABOVE", {"AND p.owner IS NOT DISTINCT FROM s.owner": ""})
    notices(test_parents.test_start_of_a_run_under_another_owners_session_drops_the_parent, db, "under another owner's")


def test_results_that_leave_their_owner_are_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that never starts is not checked again."""
    break_statement(monkeypatch, child_results, "_KEEP", {"AND p.owner IS NOT DISTINCT FROM r.owner": ""})
    notices(test_parents.test_end_without_a_start_is_told_to_no_other_owner, db, "told to another owner")


def test_submission_that_does_not_compare_owners_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that sees both sessions could connect them."""
    refused = submission._refused_parent

    def lenient(*given: Any) -> Any:
        reason = refused(*given)
        return None if isinstance(reason, ParentOfAnotherOwner) else reason

    monkeypatch.setattr(submission, "_refused_parent", lenient)
    notices(test_parents.test_admin_may_not_put_a_session_under_another_owners, db, "accepted")
