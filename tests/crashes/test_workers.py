"""Check worker processes that are killed, drained, or left without Redis or Postgres."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from runtime.names import Actor
from testkit.cluster import Cluster
from testkit.ports import own_port
from testkit.servers import OwnRedis, redis_client
from testkit.waiting import eventually

FREQUENT = (Actor.DISPATCH, Actor.BROADCAST, Actor.EXPIRE)
DONE = text("SELECT duty, last_run FROM duties")
WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")


def done_since(engine: Engine, *actors: Actor) -> Callable[[], bool]:
    """Return a check of whether each duty has run since this call."""

    def last_runs() -> dict[str, object]:
        with engine.connect() as connection:
            return {row.duty: row.last_run for row in connection.execute(DONE)}

    before = last_runs()

    def done() -> bool:
        now = last_runs()
        return all(now.get(actor) not in {None, before.get(actor)} for actor in actors)

    return done


def test_duties_continue_when_a_worker_is_killed(cluster: Cluster, engine: Engine) -> None:
    """Hold whichever worker ticked."""
    workers = [cluster.start_worker(), cluster.start_worker()]
    eventually(done_since(engine, *FREQUENT))

    workers[0].kill()

    for _ in range(3):
        eventually(done_since(engine, *FREQUENT))


@pytest.mark.parametrize("way", ["killed", "frozen"])
def test_duties_continue_without_redis_and_with_it_again(
    cluster: Cluster, engine: Engine, own_redis: OwnRedis, way: str
) -> None:
    """Postgres alone decides which worker's turn it is; no worker ends or fails."""
    worker = cluster.start_worker(redis_url=own_redis.url)
    eventually(done_since(engine, *FREQUENT))

    own_redis.kill() if way == "killed" else own_redis.freeze()
    for _ in range(3):
        eventually(done_since(engine, *FREQUENT))
    own_redis.start() if way == "killed" else own_redis.thaw()

    for _ in range(3):
        eventually(done_since(engine, *FREQUENT))
    eventually(lambda: "Redis answers again" in worker.log())
    assert worker.alive
    assert "Traceback" not in worker.log()


def test_duties_continue_when_redis_is_flushed(cluster: Cluster, engine: Engine, own_redis: OwnRedis) -> None:
    """Redis holds hints only."""
    worker = cluster.start_worker(redis_url=own_redis.url)
    client = redis_client(own_redis.url)
    for _ in range(3):
        client.flushall()
        eventually(done_since(engine, *FREQUENT))
    assert worker.alive
    client.close()


def test_worker_starts_before_redis_and_postgres(cluster: Cluster) -> None:
    """The worker waits for them, and still ends in order on SIGTERM."""
    worker = cluster.start_worker(
        redis_url=f"redis://127.0.0.1:{own_port()}/0",
        database_url=f"postgresql://nobody@127.0.0.1:{own_port()}/nothing",
        wait=False,
    )
    eventually(lambda: "Postgres does not answer" in worker.log())
    worker.terminate()
    assert worker.wait() == 0
    assert "Traceback" not in worker.log()


@pytest.mark.parametrize("redis", ["there", "frozen"])
def test_worker_ends_in_order_on_sigterm(cluster: Cluster, own_redis: OwnRedis, redis: str) -> None:
    """Log the end and return 0, whatever Redis does meanwhile."""
    worker = cluster.start_worker(redis_url=own_redis.url)
    if redis == "frozen":
        own_redis.freeze()
    worker.terminate()
    try:
        assert worker.wait() == 0
    finally:
        own_redis.thaw()
    assert "worker has ended" in worker.log()
    assert "Traceback" not in worker.log()


def test_ending_worker_finishes_begun_actors(cluster: Cluster, engine: Engine) -> None:
    """Commit what an actor has begun, and begin nothing new."""
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        # Make actors wait as they would behind a slow transaction.
        connection.execute(text("LOCK TABLE duties IN ACCESS EXCLUSIVE MODE"))
        worker = cluster.start_worker(worker_grace_seconds=20, lock_timeout_seconds=15)
        eventually(lambda: _waiting(engine) > 0)
        worker.terminate()
        eventually(lambda: "drains" in worker.log())
        assert worker.alive
    assert worker.wait() == 0
    assert "Traceback" not in worker.log()
    with engine.connect() as connection:
        assert connection.execute(DONE).all()


def _waiting(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(WAITING).scalar_one())
