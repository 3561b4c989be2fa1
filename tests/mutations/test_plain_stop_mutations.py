"""Break the statements of plain stops on purpose: the races must notice."""

from collections.abc import Callable

import pytest

from models.runs import stop_plain
from tests.races import test_plain_report_races as rivals
from tests.races import test_plain_stop_races as races
from tests.support.db_verbs import DbVerbs
from tests.support.mutation import break_statement, notices

SAME_SESSION = "c.session_version = ANY(ARRAY(SELECT version FROM locked_session))"
SAME_RUN = "c.run_version = ANY(ARRAY(SELECT version FROM locked_run))"
FENCE = "r.ctid = p.run_version AND r.status = p.former AND r.claim_token = p.claim_token"


def waits_for(rival: Callable[..., object]) -> Callable[[DbVerbs], None]:
    return lambda db: races.test_stop_that_waited_for_a_change_is_not_plain(db, rival)


@pytest.mark.parametrize(
    ("broken", "scenario"),
    [
        ({SAME_SESSION: "true"}, waits_for(rivals._resume)),
        ({SAME_RUN: "true", SAME_SESSION: "true", FENCE: "r.run_id = p.run_id"}, waits_for(rivals._report)),
    ],
    ids=["version of the session", "version of the run"],
)
def test_broken_statement_is_noticed(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch, broken: dict[str, str], scenario: Callable[[DbVerbs], None]
) -> None:
    break_statement(monkeypatch, stop_plain, "_STOP_SESSIONS", broken)
    notices(scenario, db)
