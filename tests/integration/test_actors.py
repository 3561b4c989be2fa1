"""Actors: each name that web processes enqueue has one, each does its work, and running it twice equals once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy.exc
from sqlalchemy import Engine

from models.core.statuses import BulkAction
from runtime.names import QUEUE_OF, STORED_AS, Actor
from runtime.settings import Settings
from testkit.ports import own_port
from testkit.recorded_events import RECORDED_EVENTS
from tests.support import bulks, parents, retention, schedules, webhooks
from tests.support.clocks import add_outage, fall_silent
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.reports import accepted, finished, running
from workers.actors import attempt, declare_actors
from workers.broker import WakingBroker
from workers.context import WorkerContext, worker_context
from workers.duties import duties_of

Check = Callable[[], None]
MONTH = 31 * 86_400.0


def polls_and_runs(db: DbVerbs) -> Check:
    """Park three polls and submit two runs: each run goes to one poll, and the third poll stays parked."""
    polls = {db.park(db.runner()).poll_id for _ in range(3)}
    run_ids = [db.start().run_id for _ in range(2)]

    def check() -> None:
        runs = [db.run(run_id) for run_id in run_ids]
        taken = {run.claim_poll_id for run in runs}
        assert [run.status for run in runs] == ["claimed"] * 2
        assert (len(taken), polls - taken) == (2, db.waiting())

    return check


def unnumbered_events(db: DbVerbs) -> Check:
    """Write events whose positions must become dense: no hole, and none twice."""
    running(db)

    def check() -> None:
        positions = [row.feed_pos for row in db.rows(f"SELECT feed_pos FROM {RECORDED_EVENTS} ORDER BY id")]
        assert positions == list(range(1, len(positions) + 1))

    return check


def result_of_a_child(db: DbVerbs) -> Check:
    """End a child; its parent is told in one run."""
    parent = finished(db)
    child = parents.ended_child(db, parent)

    def check() -> None:
        assert parents.heard_of(db, parent) == [child.session_id]

    return check


def silent_runner(db: DbVerbs) -> Check:
    """Let a runner fall silent; its run fails once."""
    runner = db.runner()
    run = running(db, runner)
    fall_silent(db, runner, 181)

    def check() -> None:
        assert db.run(run.run_id).status == "failed"
        assert db.told_kinds(run.session_id).count("run_failed") == 1

    return check


def outage_of_last_month(db: DbVerbs) -> Check:
    """Record an old outage, which is removed, and one of today, which stays."""
    add_outage(db, "expiry", MONTH + 60, MONTH)
    add_outage(db, "web", 7200, 7100)

    def check() -> None:
        assert [row.kind for row in db.rows("SELECT kind FROM gaps")] == ["web"]

    return check


def expired_history(db: DbVerbs) -> Check:
    """Write expired events, which are removed, and younger ones, which stay."""
    retention.old_history(db, 3)
    run = running(db)
    young = db.count(RECORDED_EVENTS, "session_id = :s", s=run.session_id)

    def check() -> None:
        assert db.count(RECORDED_EVENTS) == young > 0

    return check


def history_to_count(db: DbVerbs) -> Check:
    """End a run; it is counted once."""
    run = running(db)
    accepted(db, run, "completed")
    number_all(db)

    def check() -> None:
        row = "measure = 'completed' AND step = 60 AND grouped_by = 'all'"
        assert db.one(f"SELECT sum(number) FROM run_totals WHERE {row}") == 1

    return check


def bulk_of_replays(db: DbVerbs) -> Check:
    """Start a bulk of replays; each run is replayed once."""
    ended = [finished(db) for _ in range(3)]
    bulk_id = bulks.started(db, BulkAction.REPLAY, bulks.runs_of(db, ended))

    def check() -> None:
        assert bulks.state(db, bulk_id).state == "completed"
        assert db.count("runs", "replay_of IS NOT NULL") == len(ended)

    return check


def due_schedule(db: DbVerbs) -> Check:
    """Have a time of a schedule be due; it gets one decision and one run."""
    schedules.made(db, "s", schedules.ago(db, 5), back=60)

    def check() -> None:
        assert schedules.outcomes(db) == ["submitted"]
        assert list(schedules.ledger(db).values()) == [1]

    return check


def end_to_tell(db: DbVerbs) -> Check:
    """End a run of which a webhook is told; one message is made."""
    webhooks.put(db, "hook", "https://example.com/hook")
    run = running(db)
    accepted(db, run, "completed")
    number_all(db)

    def check() -> None:
        assert webhooks.messages(db, "hook") == [("run.completed", run.run_id, run.session_id)]

    return check


WORK: dict[Actor, Callable[[DbVerbs], Check]] = {
    Actor.DISPATCH: polls_and_runs,
    Actor.BROADCAST: unnumbered_events,
    Actor.CALLBACKS: result_of_a_child,
    Actor.EXPIRE: silent_runner,
    Actor.UPKEEP: outage_of_last_month,
    Actor.RETENTION: expired_history,
    Actor.STATS: history_to_count,
    Actor.BULK: bulk_of_replays,
    Actor.SCHEDULES: due_schedule,
    Actor.WEBHOOKS: end_to_tell,
}


@pytest.fixture
def context(settings: Settings) -> Iterator[WorkerContext]:
    with worker_context(settings, threads=2) as context:
        yield context


@pytest.fixture
def broker(settings: Settings, context: WorkerContext) -> Iterator[WakingBroker]:
    broker = WakingBroker(settings.redis_url)
    declare_actors(broker, duties_of(context))
    yield broker
    broker.close()


def test_every_enqueued_name_has_actor_in_its_queue(broker: WakingBroker) -> None:
    """Enqueue by name, as the web does; a name without an actor would fill the dead letters."""
    assert {name: broker.get_actor(name).queue_name for name in broker.get_declared_actors()} == {
        actor: STORED_AS[queue] for actor, queue in QUEUE_OF.items()
    }


@pytest.mark.parametrize("actor", Actor)
def test_actor_run_twice_does_its_work_once(broker: WakingBroker, db: DbVerbs, actor: Actor) -> None:
    """Run each actor twice: Redis delivers at least once."""
    check = WORK[actor](db)
    for _ in range(2):
        broker.get_actor(actor)()
    check()


@pytest.mark.parametrize("actor", Actor)
def test_concurrent_messages_of_one_actor_do_its_work_once(broker: WakingBroker, db: DbVerbs, actor: Actor) -> None:
    check = WORK[actor](db)
    with ThreadPoolExecutor(4) as workers:
        for result in [workers.submit(broker.get_actor(actor)) for _ in range(4)]:
            result.result()
    broker.get_actor(actor)()
    check()


@pytest.mark.parametrize("actor", Actor)
def test_checks_notice_actor_that_never_ran(db: DbVerbs, actor: Actor) -> None:
    check = WORK[actor](db)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("actor", Actor)
def test_duty_row_records_that_actor_ran(broker: WakingBroker, context: WorkerContext, actor: Actor) -> None:
    """Note the run, or every ticker would do the duty again."""
    broker.get_actor(actor)()

    duty = next(duty for duty in duties_of(context) if duty.actor == actor)
    assert not duty.if_older(2 * duty.interval)


@pytest.mark.parametrize("actor", Actor)
def test_actor_works_without_redis(settings: Settings, actor: Actor) -> None:
    """Do the actor's whole work without Redis, which only carries wake-ups."""
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{own_port()}/0"})
    with worker_context(away, threads=1) as context:
        duty = next(duty for duty in duties_of(context) if duty.actor == actor)
        assert duty.if_older(0)


def test_actor_without_postgres_logs_no_traceback(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": f"postgresql+psycopg://x@127.0.0.1:{own_port()}/x"})
    with worker_context(away, threads=1) as context:
        for duty in duties_of(context):
            attempt(duty.actor, duty.on_message)


def test_actor_with_bug_logs_error(engine: Engine) -> None:
    def misspelt() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("SELEKT 1")

    with pytest.raises(sqlalchemy.exc.ProgrammingError):
        attempt(Actor.UPKEEP, misspelt)
