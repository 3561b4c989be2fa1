"""Ticker of the workers: one enqueuer per time slot, decided by Postgres while Redis is away."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from redis import Redis
from sqlalchemy import Engine

from models.expiry.duties import duty_due
from runtime.names import QUEUE_OF, Actor, queue_key
from runtime.postgres import transaction
from testkit.ports import own_port
from testkit.servers import OwnRedis, redis_client
from testkit.waiting import eventually
from tests.support.redis_faults import frozen
from workers.duties import Duty
from workers.ticks import Ticker


class Watched(Ticker):
    """Ticker that records the slots it won."""

    def __init__(self, url: str, duties: list[Duty], won: list[int]) -> None:
        super().__init__(url, duties)
        self._won = won

    def _wins(self, duty: Duty, slot: int) -> bool:
        won = super()._wins(duty, slot)
        if won:
            self._won.append(slot)
        return won


class Looks:
    """Recorder of requested duties with their ages."""

    def __init__(self) -> None:
        self.ages: list[float] = []

    def __call__(self, older_than: float) -> bool:
        self.ages.append(older_than)
        return False


def duty(if_older: Callable[[float], bool], *, interval: float = 0.5, actor: Actor = Actor.EXPIRE) -> Duty:
    return Duty(actor, interval, on_message=lambda: None, if_older=if_older)


@contextmanager
def ticking(*tickers: Ticker) -> Iterator[None]:
    for ticker in tickers:
        ticker.start()
    try:
        yield
    finally:
        for ticker in tickers:
            ticker.stop(5)


def test_one_ticker_enqueues_each_slot_though_some_die(redis_url: str) -> None:
    """Tick in six processes, and end two in the middle."""
    won: list[int] = []
    tickers = [Watched(redis_url, [duty(Looks())], won) for _ in range(6)]
    client = redis_client(redis_url)
    with ticking(*tickers):
        eventually(lambda: len(won) >= 3)
        for ticker in tickers[:2]:
            ticker.stop(5)
        eventually(lambda: len(won) >= 8)

    assert max(Counter(won).values()) == 1
    # Each slot won is one message; a slot may have passed while its actor was still marked as woken.
    assert 0 < _messages(client, Actor.EXPIRE) <= len(won)
    client.close()


def _messages(client: Redis, actor: Actor) -> int:
    return int(client.llen(queue_key(QUEUE_OF[actor])))


def test_ticker_with_redis_does_only_overdue_duties_itself(redis_url: str) -> None:
    """Wait for twice the interval: then messages do not arrive, whatever the reason."""
    looks = Looks()
    with ticking(Ticker(redis_url, [duty(looks)])):
        eventually(lambda: len(looks.ages) >= 3)
    assert set(looks.ages) == {1.0}


def test_ticker_without_redis_does_duty_itself() -> None:
    """Decide by the duty's row alone."""
    looks = Looks()
    with ticking(Ticker(f"redis://127.0.0.1:{own_port()}/0", [duty(looks)])):
        eventually(lambda: len(looks.ages) >= 3)
    assert set(looks.ages) == {0.45}


def test_frozen_redis_is_skipped_for_a_while_and_retried(own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail once, then use Postgres alone for a while, then Redis again."""
    monkeypatch.setattr("workers.ticks.WITHOUT_REDIS_SECONDS", 2.0)
    looks, won = Looks(), list[int]()
    with ticking(Watched(own_redis.url, [duty(looks)], won)):
        eventually(lambda: won)
        with frozen(own_redis):
            eventually(lambda: looks.ages.count(0.45) >= 2)
        before = len(won)
        eventually(lambda: len(won) > before)


def test_failing_duty_does_not_affect_other_duties_or_next_tick() -> None:
    """Go on: a bug in one duty must not stop the deadlines of all runs."""
    looks = Looks()
    failures: list[float] = []

    def fail(older_than: float) -> bool:
        failures.append(older_than)
        raise RuntimeError("a bug")

    duties = [duty(fail, actor=Actor.UPKEEP, interval=0.2), duty(looks, interval=0.2)]
    with ticking(Ticker(f"redis://127.0.0.1:{own_port()}/0", duties)):
        eventually(lambda: len(failures) >= 2 and len(looks.ages) >= 2)


def test_one_of_many_tickers_without_redis_does_duty(engine: Engine) -> None:
    """Read and set the duty's row in the transaction that does it."""
    done: list[int] = []
    inside = threading.Semaphore(1)

    def do(older_than: float) -> bool:
        with transaction(engine) as connection:
            if not duty_due(connection, Actor.EXPIRE, older_than):
                return False
            alone = inside.acquire(blocking=False)
            done.append(1 if alone else 100)
            if alone:
                inside.release()
        return True

    url = f"redis://127.0.0.1:{own_port()}/0"
    with ticking(*(Ticker(url, [duty(do, interval=1)]) for _ in range(6))):
        eventually(lambda: len(done) >= 3)
    assert set(done) == {1}


def test_duty_done_a_moment_ago_is_not_repeated(engine: Engine) -> None:
    """Ask concurrently."""
    answers: list[bool] = []

    def ask() -> None:
        with transaction(engine) as connection:
            answers.append(duty_due(connection, Actor.UPKEEP, 60))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Counter(answers) == {True: 1, False: 7}


@pytest.mark.parametrize("actor", Actor)
def test_each_duty_has_its_own_row(engine: Engine, actor: Actor) -> None:
    """Do one, and find the other due."""
    asked = [partial(duty_due, duty=each, older_than=60.0) for each in (actor, *(set(Actor) - {actor}))]
    with transaction(engine) as connection:
        assert all(ask(connection) for ask in asked)
        assert not any(ask(connection) for ask in asked)
