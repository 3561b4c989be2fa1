"""Race resumes of a session that was never bound against the end of the process that it lives in."""

from collections.abc import Callable
from typing import Any

import pytest

from models.core.ids import new_id
from models.runs.submit import submit_runs
from models.sessions.bind import ReportSessionStatus, report_session_statuses
from tests.support.contenders import run_in_threads, steppers, with_one_repeat
from tests.support.db_verbs import DbVerbs, resume_submission
from tests.support.reports import idle


def hosts(db: DbVerbs) -> list[str | None]:
    """Return the hosts that the session's resumes demand, in their order."""
    rows = db.rows("SELECT demands FROM runs WHERE session_seq > 1 ORDER BY session_seq")
    return [row.demands.get("hostname") for row in rows]


@pytest.mark.parametrize("first", ["end", "resume"])
def test_resume_is_decided_by_process_that_it_finds_under_the_lock(db: DbVerbs, first: str) -> None:
    """A resume that waits for the report of the end demands no place; a report that waits for a resume changes none."""
    runner = db.runner(hostname="home")
    session_id = idle(db, runner).session_id
    end = [ReportSessionStatus(runner.runner_id, session_id, "finished")]
    steps: dict[str, tuple[Callable[..., Any], list[Any]]] = {
        "end": (report_session_statuses, end),
        "resume": (submit_runs, [resume_submission(session_id)]),
    }
    with steppers(db.engine, 2) as (one, other):
        verb, items = steps.pop(first)
        one.do(verb, items)
        ((verb, items),) = steps.values()
        later = other.do(verb, items)
        assert other.waits
        one.commit()
        later.result()
        other.commit()
    assert hosts(db) == [None if first == "end" else "home"]


@pytest.mark.parametrize("contenders", [2, 8, 32])
def test_resumes_before_the_end_of_the_process_go_there_and_later_ones_anywhere(db: DbVerbs, contenders: int) -> None:
    """The order of the session is the order of the decisions."""
    runner = db.runner(hostname="home")
    session_id = idle(db, runner).session_id

    def contend(place: int) -> None:
        if place == contenders // 2:
            said = [ReportSessionStatus(runner.runner_id, session_id, "finished")]
            with_one_repeat(db.engine, report_session_statuses, said)
        else:
            with_one_repeat(db.engine, submit_runs, [resume_submission(session_id, labels={"n": new_id("x_")})])

    run_in_threads(contenders, contend)
    found = hosts(db)
    there = found.count("home")
    assert found == ["home"] * there + [None] * (contenders - 1 - there)
    assert db.session(session_id).runner_id is None
