"""Resumes of sessions that no process ever bound: they go to the runner that keeps the session's process."""

import pytest

from models.callbacks.resume_parents import deliver_results
from models.claims.matching import Demands
from models.core.callers import ADMIN
from models.explanations.explain_run import explain_run
from models.explanations.reasons import RunExplanation
from models.runners.drain import SetDrain, set_drains
from models.runners.leave import LeaveRunner, deregister_runners
from tests.support.clocks import counts, fall_silent, pass_time
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import accepted, idle, running

HOME = {"hostname": "home", "executor_profile": "profile"}
HINT = 'resume it with another hostname, or anywhere with "affinity": false'


def demanded(db: DbVerbs, run_id: str) -> dict[str, str]:
    """Return the place that the run demands."""
    wanted = db.one("SELECT demands FROM runs WHERE run_id = :r", r=run_id)
    return {name: wanted[name] for name in HOME if name in wanted}


def idle_at_home(db: DbVerbs) -> tuple[Runner, str]:
    """Return a runner with the idle process of a session, and the session; another runner could execute it, too."""
    db.runner(hostname="elsewhere")
    home = db.runner(hostname="home")
    return home, idle(db, home, additional_demands=Demands(hostname="home")).session_id


def test_resume_of_unbound_session_goes_to_runner_of_its_process(db: DbVerbs) -> None:
    """Also a second one, while the first is pending."""
    home, session_id = idle_at_home(db)
    other = db.runner(hostname="third")
    first, second = db.resume(session_id), db.resume(session_id)
    assert demanded(db, first.run_id) == demanded(db, second.run_id) == HOME
    assert db.claim(other) == []
    (run,) = db.claim(home)
    assert run.run_id == first.run_id
    accepted(db, run, "completed", session_status="idle")
    assert [run.run_id for run in db.claim(home)] == [second.run_id]
    assert db.count("stop_commands") == 0


CASES: dict[str, tuple[str, dict[str, object], dict[str, str]]] = {
    "bound elsewhere": ("UPDATE sessions SET hostname = 'bound'", {}, {"hostname": "bound"}),
    "without affinity": ("", {"affinity": False}, {}),
    "to a host": (
        "",
        {"additional_demands": Demands(hostname="x")},
        {"hostname": "x", "executor_profile": "profile"},
    ),
    "to a profile": ("", {"additional_demands": Demands(executor_profile="x")}, HOME),
    "asked to leave": ("UPDATE runners SET leave_requested_at = now()", {}, {}),
    "left": ("UPDATE runners SET left_at = now()", {}, {}),
    "another process": ("UPDATE runners SET registration = 99 WHERE hostname = 'home'", {}, {}),
    "no process": ("UPDATE sessions SET runner_id = NULL, registration = NULL, status = 'finished'", {}, {}),
    "being stopped": ("UPDATE sessions SET status = 'stopping'", {}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_place_of_process_is_demanded_only_where_nothing_else_decides(db: DbVerbs, case: str) -> None:
    change, values, wanted = CASES[case]
    _, session_id = idle_at_home(db)
    if change:
        db.rows(change)
    assert demanded(db, db.resume(session_id, **values).run_id) == wanted


def test_resume_while_run_is_in_hand_goes_to_any_runner(db: DbVerbs) -> None:
    """Nothing tells if the process outlives the run."""
    run = running(db)
    assert demanded(db, db.resume(run.session_id).run_id) == {}


def test_results_of_children_go_to_runner_of_parents_process(db: DbVerbs) -> None:
    home, parent = idle_at_home(db)
    child = running(
        db,
        db.runner(hostname="of-child"),
        parent_session_id=parent,
        execution_mode="async_callback",
        additional_demands=Demands(hostname="of-child"),
    )
    accepted(db, child, "completed")
    (resumed,) = db.do(deliver_results).runs.values()
    assert demanded(db, resumed) == HOME
    assert [run.run_id for run in db.claim(home)] == [resumed]


def test_affinity_that_blocks_is_explained(db: DbVerbs) -> None:
    """Name it beside the reason of the runner, in `why` and in the error of the run that fails."""
    home, session_id = idle_at_home(db)
    db.do(set_drains, [SetDrain(home.runner_id, draining=True, reason=None, caller=ADMIN)])
    run = db.resume(session_id)
    assert told(db, run.run_id) == [("matching_draining", True, None), ("affinity", False, HOME)]
    db.do(deregister_runners, [LeaveRunner(home.runner_id, self_initiated=True)])
    assert told(db, run.run_id)[1:] == [("affinity", False, HOME)]
    assert str(explained(db, run.run_id).reasons[-1].fix).endswith(HINT)
    counts(db)
    pass_time(db, "demand_profiles", "unmatched_since", 3600)
    pass_time(db, "runs", "match_deadline_at", 3600)
    counts(db)
    assert db.run(run.run_id).error == (
        f"No matching runner: no runner offers hostname 'home' of session '{session_id}'; {HINT}"
    )


def test_resume_waits_for_lost_runner_of_its_process_no_longer_than_others(db: DbVerbs) -> None:
    """A session whose runner was lost before its resume goes anywhere."""
    home, session_id = idle_at_home(db)
    fall_silent(db, home, 999)
    assert counts(db)["runners lost"] == 1
    assert demanded(db, db.resume(session_id).run_id) == {}


def explained(db: DbVerbs, run_id: str) -> RunExplanation:
    found = db.do(explain_run, ADMIN, run_id)
    assert isinstance(found, RunExplanation)
    return found


def told(db: DbVerbs, run_id: str) -> list[tuple[str, bool, object]]:
    """Return code, whether it blocks, and of the affinity the place."""
    reasons = explained(db, run_id).reasons
    return [(one.code, one.blocking, one.detail if one.code == "affinity" else None) for one in reasons]
