"""Break one mechanism of retries on purpose: the test that guards it must notice."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from models.core import retries as policies
from models.core.errors import StaleClaim
from models.core.statuses import Outcome
from models.runs import report, report_plain, retries
from models.state import transitions
from tests.integration import test_retries as cases
from tests.races import test_retry_races as races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices

DELAY = "not_before = coalesce(now() + make_interval(secs => m.delay), r.not_before),"


@pytest.mark.parametrize(
    ("module", "name", "parts", "scenario"),
    [
        (transitions, "_MOVE", {DELAY: ""}, cases.test_failure_is_tried_again_after_its_backoff),
        (
            report_plain,
            "_REPORT",
            {"AND (i.status <> $FAILED OR i.fails_at_once)".replace("$FAILED", "'failed'"): ""},
            cases.test_plain_statements_leave_policies_to_the_verbs,
        ),
    ],
    ids=["backoff", "plain failure"],
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


def test_report_that_is_not_remembered_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeat would be answered as one of a former claim."""
    _change_moves(monkeypatch, remember=None)
    notices(cases.test_failure_is_tried_again_after_its_backoff, db)


def test_retry_that_ends_its_session_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    decided = retries.retried

    def ended(*args: Any, **kwargs: Any) -> Any:
        move = decided(*args, **kwargs)
        return move and replace(move, to=report.MOVES_TO[Outcome.FAILED], by_us=True)

    monkeypatch.setattr(report, "retried", ended)
    notices(cases.test_parent_is_called_back_after_the_last_attempt_only, db)


def test_failure_that_is_tried_again_for_ever_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    decide = policies.retry_delay
    monkeypatch.setattr(
        retries,
        "retry_delay",
        lambda policy, *args, **kwargs: decide(replace(policy, max_attempts=99), *args, **kwargs),
    )
    notices(cases.test_failure_is_tried_again_after_its_backoff, db)


def test_repeat_that_counts_again_is_noticed(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_former_end", lambda run, said: StaleClaim(run.run_id, run.status))
    with pytest.raises((AssertionError, AttributeError)):
        races.test_failure_reported_many_times_returns_the_run_once(db, 2)


def _change_moves(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    decided = retries.retried

    def changed(*args: Any, **kwargs: Any) -> Any:
        move = decided(*args, **kwargs)
        return move and replace(move, **values)

    monkeypatch.setattr(report, "retried", changed)
