"""Break the statement of plain reports on purpose: the tests of its fences and of its snapshot must notice."""

from collections.abc import Callable

import pytest

from models.runs import report_plain
from tests.integration import test_plain_reports
from tests.races import test_plain_report_races as races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices

SAME_SESSION = "c.session_version = ANY(ARRAY(SELECT version FROM locked_session))"
SAME_RUN = "c.run_version = ANY(ARRAY(SELECT version FROM locked_run))"
FENCE = "r.ctid = p.run_version AND r.status = p.former AND r.claim_token = p.current_token"


def waits_for(rival: Callable[..., object]) -> Callable[[DbVerbs], None]:
    return lambda db: races.test_report_that_waited_for_a_change_is_not_plain(db, rival, 0)


@pytest.mark.parametrize(
    ("broken", "scenario"),
    [
        ({"AND i.current_token = i.claim_token": ""}, test_plain_reports.test_own_token_alone_is_plain),
        (
            {"AND (last_seen > now()": "AND (true OR last_seen > now()"},
            test_plain_reports.test_report_of_silent_runner_is_not_plain,
        ),
        ({"i.reports = 1": "true"}, test_plain_reports.test_reports_of_one_session_are_left_to_the_verb),
        ({SAME_SESSION: "true"}, waits_for(races._resume)),
        (
            {SAME_RUN: "true", SAME_SESSION: "true", FENCE: "r.run_id = p.run_id"},
            waits_for(races._report),
        ),
    ],
    ids=["token", "liveness", "one report a session", "version of the session", "version of the run"],
)
def test_broken_statement_is_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch, broken: dict[str, str], scenario: Callable[[DbVerbs], None]
) -> None:
    break_statement(monkeypatch, report_plain, "_REPORT", broken)
    notices(scenario, db)
