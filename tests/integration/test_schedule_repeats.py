"""Schedules under late repeats of their changes, and under submissions that are refused."""

from models.core.callers import Caller, Role
from models.core.errors import KeyReused, NotFound
from models.core.statuses import RunType
from models.schedules.control import DeleteSchedule, delete_schedules
from models.schedules.put import Changed
from models.schedules.spec import Spec
from tests.support.db_verbs import DbVerbs
from tests.support.schedules import ago, decide, made, new_run, outcomes, put, respec, state, trigger

root = Caller(Role.ADMIN, None, "key:crd_root")
HOURLY = Spec(every=3600)


def test_late_repeat_of_a_put_or_trigger_changes_nothing(db: DbVerbs) -> None:
    """Neither a newer change nor a deletion is undone; another request with the key is refused. Keys are of one caller."""
    made(db, "a", HOURLY, key="one", note="first", body_hash="1")
    made(db, "a", HOURLY, key="two", note="second", body_hash="2")
    repeated = put(db, "a", HOURLY, key="one", note="first", body_hash="1")
    assert isinstance(repeated, Changed)
    assert (repeated.schedule.note, repeated.schedule.version, repeated.created) == ("second", 2, False)
    assert put(db, "a", HOURLY, key="one", note="third", body_hash="3") == KeyReused("one")
    assert made(db, "b", HOURLY, key="one", body_hash="3").version == 1
    assert made(db, "a", HOURLY, key="one", caller=root, body_hash="3").version == 3
    first = trigger(db, "a", "one")
    assert trigger(db, "a", "one") == first
    assert trigger(db, "a", "one", overlap="allow") == KeyReused("one")
    db.do(delete_schedules, [DeleteSchedule(root, "a")])
    assert put(db, "a", HOURLY, key="one", note="first", body_hash="1") == NotFound("schedule", "a")
    assert made(db, "a", HOURLY, key="three", body_hash="1").version == 1


def test_refused_and_replaced_times_do_not_use_up_a_schedule(db: DbVerbs) -> None:
    """Go on until ``most_fires`` runs are there; those that waited and were refused, or replaced, are no longer counted."""
    refused = new_run(session_id="gone", type=RunType.RESUME)
    row = made(db, "a", ago(db, 9, 5), back=60, overlap="allow", run=refused, most_fires=2, catch_up_most=9)
    decide(db)
    assert (outcomes(db), state(db, "a").fired) == (["failed"] * 2, 0)
    db.rows(
        "INSERT INTO schedule_fires (schedule_no, fire_at, kind, outcome)"
        " SELECT schedule_no, clock_timestamp() - interval '1 hour', 'due', 'buffered' FROM schedules"
    )
    db.rows("UPDATE schedules SET fired = 2, next_at = NULL, next_fire_at = NULL, has_buffered = true")
    respec(db, "a", Spec(every=300 * 86_400), back=1)
    db.rows("UPDATE schedules SET next_at = NULL, next_fire_at = NULL")
    decide(db)
    assert outcomes(db)[0] == "failed"
    after = state(db, "a")
    assert (after.schedule_no, after.fired) == (row.schedule_no, 1)
    assert after.next_at is not None
    cancels = made(db, "b", ago(db, 9), back=60, overlap="cancel_running", most_fires=1)
    decide(db)
    db.rows(
        "UPDATE schedule_fires SET outcome = 'buffered', run_id = NULL, submitted_at = NULL WHERE schedule_no = :n",
        n=cancels.schedule_no,
    )
    db.rows("UPDATE schedules SET has_buffered = true, paused = true WHERE schedule_id = 'b'")
    assert trigger(db, "b").outcome == "submitted"
    assert state(db, "b").fired == 0
