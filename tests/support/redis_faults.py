"""Faults of a Redis in use, and its view of our connections."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from testkit.servers import OwnRedis


@contextmanager
def frozen(server: OwnRedis) -> Iterator[None]:
    """Freeze it: connections are accepted and nothing is answered."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


def blocked_clients(client: Redis) -> int:
    """Return the number of connections that wait in Redis."""
    return int(client.info("clients")["blocked_clients"])
