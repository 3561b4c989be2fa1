"""The one place where Redis connections are made: each with a deadline, none that retries behind our back.

The logical database named by the URL is the coordinator's own: Dramatiq's maintenance lists its keys.
"""

from typing import Any, Final

import redis
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

CONNECT_TIMEOUT: Final = 1.0
ANSWER_TIMEOUT: Final = 1.0

# What a command may end in: Redis away, frozen, restarting, full, read-only, or its name does not resolve (a bare
# OSError). No hint is worth failing for.
FAILED: Final = (redis.RedisError, OSError)

# After these the connection is thrown away: a former primary would refuse for ever on the one we have.
_RECONNECT: Final = (redis.ConnectionError, redis.exceptions.ReadOnlyError)


def sync_client(
    url: str, *, answer_timeout: float = ANSWER_TIMEOUT, connect_timeout: float = CONNECT_TIMEOUT, retries: int = 1
) -> redis.Redis:
    """A client of threads. A command takes at most `answer_timeout` seconds and is repeated only when the connection
    was lost or to a former primary, never when the answer was late: it may have been applied. Probes pass `retries=0`.
    """
    retry = Retry(NoBackoff(), retries, supported_errors=_RECONNECT)
    options = _options(answer_timeout, connect_timeout)
    client: redis.Redis = redis.Redis.from_url(url, retry=retry, **options)
    client.connection_pool.connection_kwargs.update(options)
    return client


def async_client(
    url: str, *, answer_timeout: float = ANSWER_TIMEOUT, connect_timeout: float = CONNECT_TIMEOUT, retries: int = 1
) -> redis.asyncio.Redis:
    """The same for an event loop."""
    retry = AsyncRetry(NoBackoff(), retries, supported_errors=_RECONNECT)
    options = _options(answer_timeout, connect_timeout)
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, retry=retry, **options)
    client.connection_pool.connection_kwargs.update(options)
    return client


def _options(answer_timeout: float, connect_timeout: float) -> dict[str, Any]:
    """What every connection has, and what a query string in the URL must not change.

    RESP2: with RESP3 redis-py asks for maintenance notifications on each connect, may then stretch our timeouts to
    10 s, and no longer notices a pooled connection that has an old answer in its buffer. No health checks: a command
    on a dead connection fails within its timeout as fast as a ping before it would. No CLIENT SETINFO: two round
    trips less on every connect.
    """
    return {
        "socket_timeout": answer_timeout,
        "socket_connect_timeout": connect_timeout,
        "health_check_interval": 0,
        "protocol": 2,
        "driver_info": None,
    }
