"""Probe the functions of Redis that we use: an answer to PING proves no writes."""

from collections.abc import Callable
from typing import Final

from runtime.logs import log
from runtime.names import NAMESPACE, probe_key
from runtime.redis_client import FAILED, async_client, fault_of
from runtime.settings import Settings

logger = log(__name__)

# Use the types, commands and a channel of wake-ups, in one script; its keys are deleted at once.
_PROBE: Final = """
redis.call('SET', KEYS[1], '', 'EX', 10)
redis.call('DEL', KEYS[1])
redis.call('RPUSH', KEYS[1], '')
redis.call('LLEN', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], '', '')
redis.call('DEL', KEYS[1])
return redis.call('PUBLISH', ARGV[1], '')
"""
_CHANNEL: Final = f"{NAMESPACE}:probe"


class RedisProbe:
    """Probe of one process. `subscription_fault` returns what is wrong with its subscription, None: nothing."""

    def __init__(self, settings: Settings, instance: str, subscription_fault: Callable[[], str | None]) -> None:
        self._client = async_client(settings.redis_url)
        self._probe = self._client.register_script(_PROBE)
        self._key = probe_key(instance)
        self._subscription_fault = subscription_fault
        self._fault: str | None = None

    async def look(self) -> str | None:
        fault = await self._write() or self._subscription_fault()
        if fault and fault != self._fault:
            logger.warning("Redis is not usable", fault=fault)
        elif self._fault and not fault:
            logger.info("Redis is usable again")
        self._fault = fault
        return fault

    async def close(self) -> None:
        try:
            await self._client.aclose()
        except FAILED as error:
            logger.debug("closing the probe's connection failed", error=str(error))

    async def _write(self) -> str | None:
        try:
            await self._probe(keys=[self._key], args=[_CHANNEL])
        except FAILED as error:
            return fault_of(error)
        return None
