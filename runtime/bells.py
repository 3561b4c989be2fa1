"""Wake-ups for the engine room: hints that may be lost, never block the one who rings and never fail him."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import redis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from runtime.logs import log
from runtime.metrics import RINGS
from runtime.names import NAMESPACE, QUEUE_OF, Actor, queue_key, rung_key
from runtime.redis_client import FAILED, sync_client
from runtime.settings import Settings

logger = log(__name__)

COALESCE_MILLISECONDS: Final = 200
HUSH_SECONDS: Final = 1.0
# Enough to wake every worker; with no worker alive rings would pile up for as long as clients submit.
MAX_WAITING_HINTS: Final = 100


class Ringer:
    """Rings from threads: one message per actor while an earlier one is under way."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        # For its message format only; maintenance is the business of those who consume.
        self._broker = RedisBroker(  # type: ignore[no-untyped-call]  # dramatiq annotates no broker
            client=self._client, namespace=NAMESPACE, middleware=[], maintenance_chance=0
        )
        self._hushed_until = 0.0
        self._failing = False

    def send(self, actor: Actor) -> bool:
        """Enqueue `actor` unless a message for it is under way or its queue is long enough. True: a message was sent.
        Raises what Redis raises.
        """
        queue = QUEUE_OF[actor]
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.set(rung_key(actor), b"1", nx=True, px=COALESCE_MILLISECONDS)
            pipeline.llen(queue_key(queue))
            first, waiting = pipeline.execute()
        if not first or waiting >= MAX_WAITING_HINTS:
            RINGS.labels(actor, "coalesced").inc()
            return False
        self._broker.enqueue(Message(queue_name=queue, actor_name=actor, args=(), kwargs={}, options={}))
        RINGS.labels(actor, "sent").inc()
        self._failing = False
        return True

    def ring(self, actor: Actor) -> bool:
        """The same, but False instead of an exception; none is tried for a second after one failed."""
        if time.monotonic() < self._hushed_until:
            return False
        try:
            return self.send(actor)
        except FAILED as error:
            self._hush(actor, error)
            return False

    def heard(self, actor: Actor) -> None:
        """Let the next ring through. An actor does this BEFORE its first read: a commit that the read misses must be
        able to ring again (ARCHITECTURE, Dispatch).
        """
        if time.monotonic() < self._hushed_until:
            return
        try:
            self._client.delete(rung_key(actor))
        except FAILED as error:
            # The key goes by itself within COALESCE_MILLISECONDS.
            self._hush(actor, error)

    def _hush(self, actor: Actor, error: BaseException) -> None:
        self._hushed_until = time.monotonic() + HUSH_SECONDS
        RINGS.labels(actor, "failed").inc()
        if not self._failing:
            logger.warning("a bell does not ring", bell=actor, error=str(error))
        self._failing = True


class Bells:
    """The bells of one web process. A ring sets a flag; one task per bell takes it and sends off the event loop, one
    message in flight per bell, none for a second after a failure.
    """

    def __init__(self, settings: Settings) -> None:
        self._client = sync_client(settings.redis_url)
        self._ringer = Ringer(self._client)
        self._flags = {actor: asyncio.Event() for actor in Actor}
        self._threads = ThreadPoolExecutor(max_workers=len(Actor), thread_name_prefix="bell")
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to take flags."""
        self._tasks = [
            asyncio.create_task(self._take(actor, flag), name=f"bell {actor}") for actor, flag in self._flags.items()
        ]

    async def stop(self) -> None:
        """Send nothing more; flags not yet taken are lost, as any ring may be."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def ring(self, actor: Actor) -> None:
        """Wake `actor` soon. From the event loop's thread; never blocks, never raises."""
        self._flags[actor].set()

    async def _take(self, actor: Actor, flag: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        failing = False
        while True:
            await flag.wait()
            flag.clear()
            try:
                await loop.run_in_executor(self._threads, self._ringer.send, actor)
                failing = False
                continue
            except FAILED as error:
                RINGS.labels(actor, "failed").inc()
                if not failing:
                    logger.warning("a bell does not ring", bell=actor, error=str(error))
            except Exception:
                logger.exception("a bell does not ring", bell=actor)
            failing = True
            await asyncio.sleep(HUSH_SECONDS)
