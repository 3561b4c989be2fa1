"""Actors: each name that web processes enqueue has one, each does its work, and running it twice equals once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy.exc
from sqlalchemy import Engine

from runtime.names import QUEUE_OF, Actor
from runtime.settings import Settings
from tests.support.actor_work import WORK
from tests.support.db_verbs import DbVerbs
from tests.support.ports import own_port
from workers.actors import attempt, declare_actors
from workers.broker import WakingBroker
from workers.context import WorkerContext, worker_context
from workers.duties import duties_of


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
    assert {name: broker.get_actor(name).queue_name for name in broker.get_declared_actors()} == dict(QUEUE_OF)


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
