"""Bulks that hold runs and release them."""

from models.bulk.actions import Skipped
from models.core.callers import Caller, Role
from models.core.statuses import BulkAction
from models.runs.holds import list_holds
from models.runs.search import RunSearch
from tests.support.bulks import pending, started, state, work_all
from tests.support.db_verbs import DbVerbs
from tests.support.holds import hold_run
from tests.support.reports import stop_run

ann, bob = (Caller(Role.USER, name, f"key:crd_{name}") for name in ("ann", "bob"))


def test_bulk_holds_and_releases(db: DbVerbs) -> None:
    """Hold what waits and what runs, with the note; skip what has ended, was held already, or is another owner's."""
    first, second = pending(db, 2, ann)
    ended = pending(db, 1, ann)[0]
    stop_run(db, ended)
    hold_run(db, second)
    (foreign,) = pending(db, 1, bob)
    wanted = [first, second, ended, foreign]
    held = started(db, BulkAction.HOLD, wanted, chunk=9, caller=ann, changes='{"note": "until two"}')
    (executed,) = work_all(db)
    assert not executed.wakes_dispatch
    assert (state(db, held, ann).changed, state(db, held, ann).skipped) == (
        1,
        {Skipped.HELD: 1, Skipped.ENDED: 1, Skipped.CHANGED: 1},
    )
    assert [(hold.run_id, hold.note) for hold in db.do(list_holds, ann)] == [(first, "until two"), (second, None)]
    assert not db.run(first).ready
    which = RunSearch(held=True)
    released = started(db, BulkAction.RELEASE, [first, second], chunk=9, caller=ann, which=which)
    (executed,) = work_all(db)
    assert executed.wakes_dispatch
    assert (state(db, released, ann).changed, db.run(first).ready, db.run(second).ready) == (2, True, True)
    again = started(db, BulkAction.RELEASE, [first], caller=ann)
    work_all(db)
    assert state(db, again, ann).skipped == {Skipped.NOT_HELD: 1}
