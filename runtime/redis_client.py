"""Create all connections to Redis: each with a deadline, none with hidden retries.

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

# Errors of a command: Redis away, frozen, restarting, full, read-only, or its name does not resolve (a bare OSError).
# No wake-up is worth failing for.
FAILED: Final = (redis.RedisError, OSError)

# Drop the connection after these: one to a former primary would refuse for ever.
_RECONNECT: Final = (redis.ConnectionError, redis.exceptions.ReadOnlyError)


def sync_client(
    url: str, *, answer_timeout: float = ANSWER_TIMEOUT, connect_timeout: float = CONNECT_TIMEOUT, retries: int = 1
) -> redis.Redis:
    """Return a client for threads. A command takes at most `answer_timeout` seconds and is repeated only when the
    connection was lost or leads to a former primary, never after a timeout: it may have been applied. Probes pass
    `retries=0`.
    """
    retry = Retry(NoBackoff(), retries, supported_errors=_RECONNECT)
    options = _options(answer_timeout, connect_timeout)
    client: redis.Redis = redis.Redis.from_url(url, retry=retry, **options)
    client.connection_pool.connection_kwargs.update(options)
    return client


def async_client(
    url: str, *, answer_timeout: float = ANSWER_TIMEOUT, connect_timeout: float = CONNECT_TIMEOUT, retries: int = 1
) -> redis.asyncio.Redis:
    retry = AsyncRetry(NoBackoff(), retries, supported_errors=_RECONNECT)
    options = _options(answer_timeout, connect_timeout)
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, retry=retry, **options)
    client.connection_pool.connection_kwargs.update(options)
    return client


_FORBIDDEN: Final = "Redis refuses commands: its ACL forbids them to our user"
# Faults by class of error; subclasses first.
_FAULTS_BY_CLASS: Final = (
    (redis.exceptions.OutOfMemoryError, "Redis refuses writes: its memory is full (maxmemory)"),
    (redis.exceptions.ReadOnlyError, "Redis refuses writes: it is a read-only replica"),
    (redis.exceptions.NoPermissionError, _FORBIDDEN),
    (redis.exceptions.AuthenticationError, "Redis refuses our credentials"),
    (redis.exceptions.BusyLoadingError, "Redis refuses commands: it is loading its data"),
    (redis.exceptions.MasterDownError, "Redis refuses commands: it is a replica and its primary is away"),
)
# Faults by the beginning of the text, for errors that have no class of their own.
_FAULTS_BY_TEXT: Final = (
    ("MISCONF", "Redis refuses writes: it cannot save to its disk"),
    ("NOREPLICAS", "Redis refuses writes: it has too few replicas"),
    ("BUSY", "Redis refuses commands: it is busy with a script"),
    ("ACL failure", _FORBIDDEN),
    ("The user executing the script", _FORBIDDEN),
)


def fault_of(error: BaseException) -> str:
    """Return in a sentence what a failed command tells about Redis; unlike the error it names no user, key or host."""
    for kind, fault in _FAULTS_BY_CLASS:
        if isinstance(error, kind):
            return fault
    for beginning, fault in _FAULTS_BY_TEXT:
        if str(error).startswith(beginning):
            return fault
    return "Redis refuses commands" if isinstance(error, redis.ResponseError) else "Redis does not answer"


def _options(answer_timeout: float, connect_timeout: float) -> dict[str, Any]:
    """Return the options of every connection, which a query string in the URL must not change.

    RESP2: with RESP3 redis-py asks for maintenance notifications on each connect, may then stretch our timeouts to 10
    s, and no longer notices a pooled connection that has an old answer in its buffer. No health checks: a command on a
    dead connection fails within its timeout as fast as a ping before it would. No CLIENT SETINFO: two round trips less
    on every connect.
    """
    return {
        "socket_timeout": answer_timeout,
        "socket_connect_timeout": connect_timeout,
        "health_check_interval": 0,
        "protocol": 2,
        "driver_info": None,
    }
