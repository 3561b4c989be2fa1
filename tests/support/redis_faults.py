"""What can happen to a Redis while ours use it, and what it knows of us."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from tests.support.servers import OwnRedis


@contextmanager
def frozen(server: OwnRedis) -> Iterator[None]:
    """It accepts connections and answers nothing."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


def blocked_clients(client: Redis) -> int:
    """How many connections wait in Redis for something to come."""
    return int(client.info("clients")["blocked_clients"])
