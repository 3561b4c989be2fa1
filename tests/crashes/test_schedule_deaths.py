"""Kill a worker while it decides schedules: the next one decides every time once."""

import signal

from models.schedules.spec import Spec
from models.schedules.times import MICROSECOND, due_times
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.killed_workers import ITS_OWN, killed_workers
from tests.support.schedules import fires, ledger, made, state

BACK = 5
SPEC = Spec(every=1)


def test_killed_worker_leaves_every_time_to_be_decided_once(settings: Settings, db: DbVerbs) -> None:
    """Kill a worker at each statement and commit of a pass, until one comes to its end; that decides all."""
    for name in ("a", "b"):
        made(db, name, SPEC, back=BACK, overlap="allow")
    begins = {state(db, name).schedule_no: state(db, name).decided_until for name in ("a", "b")}
    killed = 0
    with killed_workers(settings, "workers.schedules", "decide_schedules") as run_worker:
        while run_worker(killed + 1) == -signal.SIGKILL:
            killed += 1
            eventually(lambda: db.count("pg_stat_activity", ITS_OWN) == 0, what="the end of its transactions")
            assert fires(db) == []
            assert db.count("runs") == 0
    assert killed > 10
    for number, begin in begins.items():
        found = [fire for fire in fires(db) if fire.schedule_no == number]
        covered = [
            moment
            for fire in found
            for moment in due_times(SPEC, (fire.first_fire_at or fire.fire_at) - MICROSECOND, fire.fire_at, 9999)
        ]
        assert covered == due_times(SPEC, begin, found[-1].fire_at, 9999)
    assert set(ledger(db).values()) == {1}
    assert len(ledger(db)) == sum(fire.outcome == "submitted" for fire in fires(db))
