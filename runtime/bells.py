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

    def send(self, *actors: Actor) -> set[Actor]:
        """Enqueue those of the actors for which no message is under way and whose queue is not long enough; returns
        them. One round trip looks at all. Raises what Redis raises.
        """
        with self._client.pipeline(transaction=False) as pipeline:
            for actor in actors:
                pipeline.set(rung_key(actor), b"1", nx=True, px=COALESCE_MILLISECONDS)
                pipeline.llen(queue_key(QUEUE_OF[actor]))
            found = pipeline.execute()
        sent = set()
        for actor, first, waiting in zip(actors, found[::2], found[1::2], strict=True):
            if first and waiting < MAX_WAITING_HINTS:
                self._broker.enqueue(
                    Message(queue_name=QUEUE_OF[actor], actor_name=actor, args=(), kwargs={}, options={})
                )
                sent.add(actor)
            RINGS.labels(actor, "sent" if actor in sent else "coalesced").inc()
        self._failing = self._failing and not sent
        return sent

    def ring(self, actor: Actor) -> bool:
        """The same, but False instead of an exception; none is tried for a second after one failed."""
        if time.monotonic() < self._hushed_until:
            return False
        try:
            return bool(self.send(actor))
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
    """The bells of one web process. A ring marks an actor; one task takes what is marked and sends it off the event
    loop, all of it together, nothing for a second after a failure.
    """

    def __init__(self, settings: Settings) -> None:
        self._client = sync_client(settings.redis_url)
        self._ringer = Ringer(self._client)
        self._marked: set[Actor] = set()
        self._rung = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bells")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._send_forever(), name="bells")

    async def stop(self) -> None:
        """Send nothing more; what is marked is lost, as any ring may be."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def ring(self, actor: Actor) -> None:
        """Wake `actor` soon. From the event loop's thread; never blocks, never raises."""
        self._marked.add(actor)
        self._rung.set()

    async def _send_forever(self) -> None:
        loop = asyncio.get_running_loop()
        failing = False
        while True:
            await self._rung.wait()
            self._rung.clear()
            marked = [actor for actor in Actor if actor in self._marked]
            self._marked.clear()
            try:
                await loop.run_in_executor(self._thread, self._ringer.send, *marked)
                failing = False
                continue
            except FAILED as error:
                for actor in marked:
                    RINGS.labels(actor, "failed").inc()
                if not failing:
                    logger.warning("bells do not ring", bells=marked, error=str(error))
            except Exception:
                logger.exception("bells do not ring", bells=marked)
            failing = True
            await asyncio.sleep(HUSH_SECONDS)
