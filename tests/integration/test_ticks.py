"""The clock of the engine room: one enqueuer per time slot, and Postgres alone when Redis cannot say who."""

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
from tests.support.ports import own_port
from tests.support.redis_faults import frozen
from tests.support.servers import OwnRedis, looking
from tests.support.waiting import eventually
from workers.duties import Duty
from workers.ticks import Ticker


class Watched(Ticker):
    """A ticker that tells which slots it won."""

    def __init__(self, url: str, duties: list[Duty], won: list[int]) -> None:
        super().__init__(url, duties)
        self._won = won

    def _wins(self, duty: Duty, slot: int) -> bool:
        won = super()._wins(duty, slot)
        if won:
            self._won.append(slot)
        return won


class Looks:
    """Who asked for a duty to be done, with what age."""

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


def test_one_of_many_tickers_enqueues_each_slot_though_some_of_them_die(redis_url: str) -> None:
    """Six processes tick; two end in the middle, nobody notices."""
    won: list[int] = []
    tickers = [Watched(redis_url, [duty(Looks())], won) for _ in range(6)]
    client = looking(redis_url)
    with ticking(*tickers):
        eventually(lambda: len(won) >= 3)
        for ticker in tickers[:2]:
            ticker.stop(5)
        eventually(lambda: len(won) >= 8)

    assert max(Counter(won).values()) == 1
    # Each slot won is a message; a slot may have gone by while its bell was still marked as rung.
    assert 0 < _messages(client, Actor.EXPIRE) <= len(won)
    client.close()


def _messages(client: Redis, actor: Actor) -> int:
    return int(client.llen(queue_key(QUEUE_OF[actor])))


def test_with_redis_the_ticker_does_only_what_is_long_overdue(redis_url: str) -> None:
    """Twice the interval: then the messages do not reach anybody, whatever the reason."""
    looks = Looks()
    with ticking(Ticker(redis_url, [duty(looks)])):
        eventually(lambda: len(looks.ages) >= 3)
    assert set(looks.ages) == {1.0}


def test_without_redis_the_ticker_does_the_duty_itself() -> None:
    """Nothing listens there; the duty's row alone decides whose turn it is."""
    looks = Looks()
    with ticking(Ticker(f"redis://127.0.0.1:{own_port()}/0", [duty(looks)])):
        eventually(lambda: len(looks.ages) >= 3)
    assert set(looks.ages) == {0.45}


def test_a_frozen_redis_is_as_good_as_none_and_is_asked_again_later(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One failure, then Postgres alone for a while, then Redis again."""
    monkeypatch.setattr("workers.ticks.WITHOUT_REDIS_SECONDS", 2.0)
    looks, won = Looks(), list[int]()
    with ticking(Watched(own_redis.url, [duty(looks)], won)):
        eventually(lambda: won)
        with frozen(own_redis):
            eventually(lambda: looks.ages.count(0.45) >= 2)
        before = len(won)
        eventually(lambda: len(won) > before)


def test_a_duty_that_fails_keeps_neither_itself_nor_others_from_the_next_tick() -> None:
    """A bug in one duty must not stop the deadlines of all runs."""
    looks = Looks()
    failures: list[float] = []

    def fail(older_than: float) -> bool:
        failures.append(older_than)
        raise RuntimeError("a bug")

    duties = [duty(fail, actor=Actor.UPKEEP, interval=0.2), duty(looks, interval=0.2)]
    with ticking(Ticker(f"redis://127.0.0.1:{own_port()}/0", duties)):
        eventually(lambda: len(failures) >= 2 and len(looks.ages) >= 2)


def test_of_many_tickers_without_redis_one_does_the_duty(engine: Engine) -> None:
    """The row of the duty is asked and set in the transaction that does it."""
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


def test_a_duty_done_a_moment_ago_is_not_done_again(engine: Engine) -> None:
    """However many ask at once."""
    answers: list[bool] = []

    def ask() -> None:
        with transaction(engine) as connection:
            answers.append(duty_due(connection, Actor.UPKEEP, 60))

    crowd = [threading.Thread(target=ask) for _ in range(8)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()

    assert Counter(answers) == {True: 1, False: 7}


@pytest.mark.parametrize("actor", Actor)
def test_each_duty_has_its_own_row(engine: Engine, actor: Actor) -> None:
    """One that was done says nothing about another."""
    asked = [partial(duty_due, duty=each, older_than=60.0) for each in (actor, *(set(Actor) - {actor}))]
    with transaction(engine) as connection:
        assert all(ask(connection) for ask in asked)
        assert not any(ask(connection) for ask in asked)
