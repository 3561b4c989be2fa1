"""Break one rule in explanations only: they no longer agree with the claim, and the property must notice."""

from collections.abc import Callable

import pytest

from models.claims.claim import assign_runs
from models.explanations import explain_run, queues, run_facts, runner_facts
from tests.properties.test_explanations_model import explained_as_claimed
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices

Break = Callable[[pytest.MonkeyPatch], None]


def _gives_to_lost_runners(patch: pytest.MonkeyPatch) -> None:
    break_statement(patch, runner_facts, "_READ", {"n.leave_requested_at IS NULL AND n.lost_at IS NULL": "true"})


def _gives_to_draining_runners(patch: pytest.MonkeyPatch) -> None:
    parts = {"AND n.draining_since IS NULL AS usable": "AS usable", "n.draining_since,": "NULL AS draining_since,"}
    break_statement(patch, runner_facts, "_READ", parts)


def _counts_no_run_in_hand(patch: pytest.MonkeyPatch) -> None:
    break_statement(patch, runner_facts, "_READ", {"SELECT count(*) AS runs": "SELECT 0 AS runs"})


def _believes_silent_polls(patch: pytest.MonkeyPatch) -> None:
    break_statement(patch, runner_facts, "_READ", {"make_interval(secs => :seen)": "make_interval(secs => 60 + :seen)"})


def _sees_no_earlier_run(patch: pytest.MonkeyPatch) -> None:
    break_statement(patch, run_facts, "_READ_RUN", {"e.session_seq < r.session_seq": "false"})


def _gives_youngest_first(patch: pytest.MonkeyPatch) -> None:
    read = queues.read_queue
    patch.setattr(explain_run, "read_queue", lambda *given, **named: read(*given, **named)[::-1])


def _forgets_exclusions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        queues,
        "assign_runs",
        lambda runs, *given: assign_runs([run._replace(excluded_registrations=None) for run in runs], *given),
    )


@pytest.mark.parametrize(
    "broken",
    [
        _gives_to_lost_runners,
        _gives_to_draining_runners,
        _counts_no_run_in_hand,
        _believes_silent_polls,
        _sees_no_earlier_run,
        _gives_youngest_first,
        _forgets_exclusions,
    ],
)
def test_rule_that_differs_from_the_claim_is_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch, broken: Break
) -> None:
    """Stop at the first drawn state in which explanation and claim disagree."""
    broken(monkeypatch)
    notices(explained_as_claimed, db)
