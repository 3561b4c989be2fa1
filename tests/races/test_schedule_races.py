"""Race passes over schedules with each other and with changes, with real commits: each time gets one decision."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from models.claims.matching import Demands
from models.core.callers import ADMIN
from models.core.errors import CoordinatorError
from models.core.statuses import FireKind
from models.schedules.control import SetPaused, Trigger, set_paused, trigger_schedules
from models.schedules.decide import decide_due, lock_one
from models.schedules.faults import decide_one
from models.schedules.put import Changed, PutSchedule, put_schedules
from models.schedules.spec import Spec
from models.schedules.times import due_times
from runtime.postgres import is_retryable
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs
from tests.support.schedules import RULES, ago, decide, fires, ledger, made, new_run, outcomes, rewind, state

WORKERS = 6
SCHEDULES = 12
BACK = 10


def repeatedly(call: Callable[[], Any]) -> Any:
    """Call until no transaction of another contender makes it fail, as a worker does with its next tick."""
    while True:
        try:
            return call()
        except Exception as fault:
            if not is_retryable(fault):
                raise


def passes_decide_each_time_once(db: DbVerbs) -> None:
    """Let workers decide schedules of every second at once, and again; then look at decisions and runs."""
    for number in range(SCHEDULES):
        made(db, f"s{number}", Spec(every=1), back=BACK, overlap="allow", catch_up_most=100)
    begins = {number: state(db, f"s{number}").decided_until for number in range(SCHEDULES)}
    numbers = {state(db, f"s{number}").schedule_no: number for number in range(SCHEDULES)}

    def work(_: int) -> None:
        for _ in range(3):
            repeatedly(lambda: decide(db, most=5))

    run_in_threads(WORKERS, work)
    decide(db)
    decided: dict[int, list[datetime]] = {number: [] for number in range(SCHEDULES)}
    for fire in fires(db):
        assert (fire.kind, fire.outcome) == (FireKind.DUE, "submitted"), "a time was not decided as due"
        decided[numbers[fire.schedule_no]].append(fire.fire_at)
    for number, times in decided.items():
        expected = due_times(Spec(every=1), begins[number], times[-1], 1000) if times else []
        assert len(times) >= BACK, "times were left out"
        assert times == expected, "times were left out"
    assert set(ledger(db).values()) == {1}, "a time has two runs"
    assert sum(ledger(db).values()) == len(fires(db)), "a run has no decision"


def test_passes_decide_each_time_once(db: DbVerbs) -> None:
    passes_decide_each_time_once(db)


def second_pass_leaves_what_the_first_decides(db: DbVerbs) -> None:
    """Wait for nothing; after the first has rolled back the second decides it."""
    made(db, "a", ago(db, 5), back=60)
    with steppers(db.engine, 2) as (first, second):
        assert first.do(decide_due, RULES).result().submitted == 1
        deciding = second.do(decide_due, RULES)
        assert not second.waits, "the second pass waited for the first"
        assert deciding.result().outcomes == {}, "a time was decided twice"
        second.commit()
        first.rollback()
    assert ledger(db) == {}
    decide(db)
    assert set(ledger(db).values()) == {1}, "a time that was rolled back was lost"


def test_second_pass_leaves_what_the_first_decides(db: DbVerbs) -> None:
    second_pass_leaves_what_the_first_decides(db)


def change_waits_for_the_pass(db: DbVerbs) -> None:
    """Replace a schedule while it is being decided: the time is decided once, by what was."""
    made(db, "a", ago(db, 5), back=60)
    item = PutSchedule(ADMIN, "a", "put_2", Spec(every=3600), new_run(), "{}")
    with steppers(db.engine, 2) as (worker, client):
        worker.do(decide_due, RULES)
        putting = client.do(put_schedules, [item], rules=RULES)
        assert client.waits, "the change did not wait for the pass"
        worker.commit()
        (changed,) = putting.result()
        client.commit()
    assert isinstance(changed, Changed)
    assert changed.decided.outcomes == {}, "a time was decided twice"
    assert (outcomes(db), set(ledger(db).values())) == (["submitted"], {1})
    assert state(db, "a").next_at - state(db, "a").updated_at <= timedelta(hours=1)


def test_change_waits_for_the_pass(db: DbVerbs) -> None:
    change_waits_for_the_pass(db)


def batch_locks_all_schedules_before_it_submits(db: DbVerbs) -> None:
    """Let a pass have one schedule of a batch, and submit with demands that the batch would add for another one."""
    run = new_run(additional_demands=Demands(tags=("new",)))
    for name in ("a", "b"):
        made(db, name, ago(db, 5), back=60, run=run)
    number = state(db, "b").schedule_no
    puts = [PutSchedule(ADMIN, name, "put_2", Spec(every=3600), run, "{}") for name in ("a", "b")]
    for verb, items in (
        (set_paused, [SetPaused(ADMIN, name, paused=True) for name in ("a", "b")]),
        (put_schedules, puts),
        (trigger_schedules, [Trigger(ADMIN, name, "fir_1") for name in ("a", "b")]),
    ):
        with steppers(db.engine, 2) as (worker, client):
            worker.do(lock_one, number)
            changing = client.do(verb, items, rules=RULES)
            assert client.waits, "the batch did not wait for the pass"
            deciding = worker.do(decide_one, number, RULES)
            assert not worker.waits, "the pass waits for the batch that waits for it"
            assert deciding.result().outcomes == {"submitted": 1}
            worker.rollback()
            results: Any = changing.result()
            assert all(not isinstance(result, CoordinatorError) for result in results)
            client.rollback()


def test_batch_locks_all_schedules_before_it_submits(db: DbVerbs) -> None:
    batch_locks_all_schedules_before_it_submits(db)


def test_changes_and_passes_leave_no_gap(db: DbVerbs) -> None:
    """Pause, resume and replace at any moment while workers go on: no time has two decisions or two runs."""
    spec = Spec(every=1)
    made(db, "a", spec, back=BACK, overlap="allow", catch_up_most=100)

    def contend(place: int) -> None:
        for turn in range(8):
            if place % 2:
                repeatedly(lambda: decide(db))
            elif place:
                repeatedly(lambda turn=turn: db.do(set_paused, [SetPaused(ADMIN, "a", bool(turn % 2))], rules=RULES))
            else:
                item = PutSchedule(ADMIN, "a", f"put_{place}_{turn}", spec, new_run(), "{}", overlap="allow")
                repeatedly(lambda item=item: db.do(put_schedules, [item], rules=RULES))
                rewind(db, "a", 2)

    run_in_threads(4, contend)
    times = [fire.fire_at for fire in fires(db)]
    assert len(times) == len(set(times)) == len(ledger(db))
    assert set(ledger(db).values()) == {1}
