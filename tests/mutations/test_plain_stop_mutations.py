"""Break the statements of plain stops on purpose: the races must notice."""

from collections.abc import Callable

import pytest

from models.runs import stop_plain
from tests.integration import test_plain_stops
from tests.races import test_plain_report_races as rivals
from tests.races import test_plain_stop_races as races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices

SAME_SESSION = "c.session_version = ANY(ARRAY(SELECT version FROM locked_session))"


def waits_for(rival: Callable[..., object]) -> Callable[[DbVerbs], None]:
    return lambda db: races.test_stop_that_waited_for_a_change_is_not_plain(db, rival)


@pytest.mark.parametrize(
    ("statement", "broken", "scenario"),
    [
        ("_STOP_SESSIONS", {SAME_SESSION: "true"}, waits_for(rivals._resume)),
        (
            "_STOP_SESSIONS",
            {"AND (i.limited_to IS NULL OR s.owner = i.limited_to)": ""},
            test_plain_stops.test_stop_that_is_audited_or_asked_for_by_a_runner_is_left_to_the_verb,
        ),
        (
            "_STOP_RUNS",
            {"AND i.delivered_at IS NOT NULL": ""},
            test_plain_stops.test_undelivered_claim_is_left_to_the_verb,
        ),
    ],
    ids=["version of the session", "owner", "delivery"],
)
def test_broken_statement_is_noticed(
    db: DbVerbs,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    broken: dict[str, str],
    scenario: Callable[[DbVerbs], None],
) -> None:
    break_statement(monkeypatch, stop_plain, statement, broken)
    notices(scenario, db)
