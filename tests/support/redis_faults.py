"""What can happen to a Redis while ours use it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from runtime.embedded import RedisServer, start_redis


@contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    """It accepts connections and answers nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def start_again(server: RedisServer) -> RedisServer:
    """The same address, password and append-only file."""
    return start_redis(server._data_dir)


def blocked_clients(client: Redis) -> int:
    """How many connections wait in Redis for something to come."""
    return int(client.info("clients")["blocked_clients"])
