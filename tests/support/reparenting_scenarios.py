"""Scenarios of resumes that change their sessions' parent: races run them unbroken, mutations with a part broken."""

from collections.abc import Callable, Sequence
from functools import partial

from models.core.callers import Caller, Role
from models.core.errors import ParentOfAnotherOwner
from models.core.limits import Limits
from models.runs.report import report_runs
from models.state.runs import Run
from tests.support.contenders import interleavings, steppers
from tests.support.db_verbs import DbVerbs, resume_submission
from tests.support.parents import deliver, waiting
from tests.support.reports import accepted, finished, report, stop_run

ANN, BOB = (Caller(Role.USER, name) for name in ("ann", "bob"))
LIMITS = Limits(max_depth=3)


def ancestry(db: DbVerbs, session_id: str) -> list[str]:
    """Return the session and its ancestors, up to a repeated one."""
    found: list[str] = []
    parent: str | None = session_id
    while parent is not None and parent not in found:
        found.append(parent)
        parent = db.session(parent).parent_session_id
    return found if parent is None else [*found, parent]


def reparenting_run(db: DbVerbs, session_id: str, parent: str) -> Run:
    """Claim a resume that gives the session this parent once it starts."""
    db.resume(session_id, parent_session_id=parent, execution_mode="async_callback")
    (run,) = db.claim(db.runner())
    assert run.session_id == session_id
    return run


def start_both(db: DbVerbs, runs: Sequence[Run], sessions: Sequence[str], after: Sequence[str]) -> None:
    """Report both starts in this order of their steps; check that a forest of at most three levels is left."""
    with steppers(db.engine, 2) as contenders:
        steps: dict[str, Callable[[], object]] = {}
        for name, one, run in zip("ab", contenders, runs, strict=True):
            steps[f"{name} starts"] = partial(one.do, report_runs, [report(run, "started")], limits=LIMITS)
            steps[f"{name} commits"] = one.commit
        for step in after:
            steps[step]()
    lines = [ancestry(db, one) for one in sessions]
    assert all(len(set(one)) == len(one) for one in lines), f"a cycle after {after}: {lines}"
    assert all(len(one) <= LIMITS.max_depth + 1 for one in lines), f"too deep after {after}: {lines}"
    statuses = {db.run(run.run_id).status for run in runs}
    assert statuses == {"running"}, f"a start was refused after {after}"
    parents = [db.run(run.run_id).parent_session_id for run in runs]
    assert parents.count(None) == 1, f"one of them goes on alone after {after}: {parents}"


ORDERS = list(interleavings(["a starts", "a commits"], ["b starts", "b commits"]))


def each_others_parents(db: DbVerbs) -> None:
    """Accept two resumes that name each other's session as parent before either starts."""
    for order in ORDERS:
        one, other = finished(db), finished(db)
        runs = reparenting_run(db, one, other), reparenting_run(db, other, one)
        start_both(db, runs, [one, other], order)


def cycle_of_four(db: DbVerbs) -> None:
    """Make a cycle of two changes, neither of which touches a session of the other one."""
    for order in ORDERS:
        first, third = finished(db), finished(db)
        second, fourth = finished(db, parent_session_id=third), finished(db, parent_session_id=first)
        runs = reparenting_run(db, first, second), reparenting_run(db, third, fourth)
        start_both(db, runs, [first, second, third, fourth], order)


def two_that_are_too_deep_together(db: DbVerbs) -> None:
    """Make two changes, each of which alone is not too deep."""
    for order in ORDERS:
        top, middle, low = finished(db), finished(db), finished(db)
        child = finished(db, parent_session_id=low)
        lowest = finished(db, parent_session_id=child)
        runs = reparenting_run(db, low, middle), reparenting_run(db, middle, top)
        start_both(db, runs, [top, middle, low, child, lowest], order)


def starts_of_one_batch(db: DbVerbs) -> None:
    """Report both starts in one transaction, which must see its own changes."""
    one, other = finished(db), finished(db)
    runs = reparenting_run(db, one, other), reparenting_run(db, other, one)
    db.do(report_runs, [report(run, "started") for run in runs], limits=LIMITS)
    lines = [ancestry(db, each) for each in (one, other)]
    assert all(len(set(each)) == len(each) for each in lines), f"a cycle: {lines}"


SCENARIOS = (each_others_parents, cycle_of_four, two_that_are_too_deep_together, starts_of_one_batch)


def misplaced(db: DbVerbs) -> tuple[str, str, str]:
    """Store Ann's session, Bob's, and Bob's resume under Ann's, as the version before this one would have
    accepted it.
    """
    anns, bobs = finished(db, caller=ANN), finished(db, caller=BOB)
    resumed = db.resume(bobs, caller=BOB)
    db.rows(
        "UPDATE runs SET parent_session_id = :p, execution_mode = 'async_callback' WHERE run_id = :r",
        p=anns,
        r=resumed.run_id,
    )
    return anns, bobs, resumed.run_id


def another_owners_parent_at_the_start(db: DbVerbs) -> None:
    """Start it without the parent; send its end to no parent."""
    anns, bobs, _ = misplaced(db)
    (run,) = db.claim(db.runner())
    accepted(db, run, "started")
    assert db.session(bobs).parent_session_id is None, "under another owner's"
    assert db.run(run.run_id).parent_session_id is None, "under another owner's"
    accepted(db, run, "completed")
    assert waiting(db, anns) == [], "told to another owner"
    assert deliver(db).runs == {}, "told to another owner"


def another_owners_parent_without_a_start(db: DbVerbs) -> None:
    """Keep the end of a run that never started within its owner's sessions too."""
    anns, _, run_id = misplaced(db)
    stop_run(db, run_id)
    assert waiting(db, anns) == [], "told to another owner"


def another_owners_parent_is_refused(db: DbVerbs) -> None:
    """Refuse it also to an admin, who sees both sessions."""
    anns, bobs = finished(db, caller=ANN), finished(db, caller=BOB)
    assert db.submit(resume_submission(bobs, parent_session_id=anns)) == [ParentOfAnotherOwner(anns)], "accepted"


OWNERS = (
    another_owners_parent_at_the_start,
    another_owners_parent_without_a_start,
    another_owners_parent_is_refused,
)
