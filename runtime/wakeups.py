"""Send wake-ups to workers: hints that may be lost, and that never block or fail the sender."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import uuid4

import redis
from dramatiq import Message

from runtime.logs import log
from runtime.loops import run_forever
from runtime.metrics import WAKEUPS
from runtime.names import QUEUE_OF, Actor, hint_key, messages_key, queue_key, stored_queue, wakeup_key
from runtime.redis_client import FAILED, sync_client
from runtime.settings import Settings

logger = log(__name__)

PAUSE_AFTER_FAILURE_SECONDS: Final = 1.0
# Under load a process wakes an actor no more often than this, so that more commits share a message and a pass.
INTERVAL_SECONDS: Final = 0.005
# Enough to wake every worker; without a worker, wake-ups would pile up for as long as clients submit.
MAX_WAITING_HINTS: Final = 100
# Ignore a message that was not fetched by then: workers drop messages that are older than a minute.
HINT_SECONDS: Final = 30

# A message that still waits in its queue will see everything committed before this wake-up; a fetched one may have
# begun to read before. Message and queue are where Dramatiq's own enqueue puts them. An entry in the wake-up list wakes
# one consumer.
_NOTIFY: Final = """
local sent = {}
for place = 1, #KEYS / 4 do
    local hint, queue, messages, wakeups = unpack(KEYS, 4 * place - 3, 4 * place)
    local id, message = ARGV[2 * place + 1], ARGV[2 * place + 2]
    local last = redis.call('GET', hint)
    local waits = last and redis.call('LPOS', queue, last)
    if not waits and redis.call('LLEN', queue) < tonumber(ARGV[1]) then
        redis.call('HSET', messages, id, message)
        redis.call('RPUSH', queue, id)
        redis.call('SET', hint, id, 'EX', ARGV[2])
        if redis.call('LLEN', wakeups) < redis.call('LLEN', queue) then
            redis.call('RPUSH', wakeups, '')
        end
        sent[#sent + 1] = place
    end
end
return sent
"""


class ActorWakeupSender:
    def __init__(self, client: redis.Redis) -> None:
        self._notify = client.register_script(_NOTIFY)
        self._paused_until = 0.0
        self._failing = False

    def send(self, *actors: Actor) -> set[Actor]:
        """Enqueue a message for each actor that has none waiting and whose queue is not too long; return those actors.

        One round trip, whatever the number of actors. Raises what Redis raises.
        """
        keys: list[str] = []
        values: list[str | bytes | int] = [MAX_WAITING_HINTS, HINT_SECONDS]
        for actor in actors:
            queue = QUEUE_OF[actor]
            keys += [hint_key(actor), queue_key(queue), messages_key(queue), wakeup_key(queue)]
            values += _message(actor)
        places = self._notify(keys=keys, args=values)
        sent = {actors[place - 1] for place in places}
        for actor in actors:
            WAKEUPS.labels(actor, "sent" if actor in sent else "coalesced").inc()
        self._failing = self._failing and not sent
        return sent

    def notify(self, actor: Actor) -> bool:
        """Send a wake-up; return False instead of raising, and try none for 1 s after a failure."""
        if time.monotonic() < self._paused_until:
            return False
        try:
            return bool(self.send(actor))
        except FAILED as error:
            self._pause_after_failure(actor, error)
            return False

    def _pause_after_failure(self, actor: Actor, error: BaseException) -> None:
        self._paused_until = time.monotonic() + PAUSE_AFTER_FAILURE_SECONDS
        WAKEUPS.labels(actor, "failed").inc()
        if not self._failing:
            logger.warning("wake-up not sent", actor=actor, error=str(error))
        self._failing = True


def _message(actor: Actor) -> tuple[str, bytes]:
    id_in_redis = str(uuid4())
    options = {"redis_message_id": id_in_redis}
    queue = stored_queue(actor)
    message: Message[None] = Message(queue_name=queue, actor_name=actor, args=(), kwargs={}, options=options)
    return id_in_redis, message.encode()


class ActorWakeups:
    """Wake-ups of one web process. `notify` marks an actor; one task sends for all marked actors together, off the
    event loop, and pauses for 1 s after a failure. With fast paths an actor is woken every few milliseconds at most.
    """

    def __init__(self, settings: Settings) -> None:
        self._client = sync_client(settings.redis_url)
        self._sender = ActorWakeupSender(self._client)
        self._marked: set[Actor] = set()
        self._interval = INTERVAL_SECONDS if settings.fast_paths else 0.0
        self._next_at: dict[Actor, float] = {}
        self._notified = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wake-ups")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._send_forever(), name="wake-ups")

    async def stop(self) -> None:
        """Stop sending; marked actors are dropped, since any wake-up may be lost."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def notify(self, actor: Actor) -> None:
        """Wake `actor` soon. Call it on the event loop's thread; never blocks, never raises."""
        self._marked.add(actor)
        self._notified.set()

    async def _send_forever(self) -> None:
        await run_forever(
            self._send,
            failure="wake-ups not sent",
            woken=self._notified,
            pause_after_failure=PAUSE_AFTER_FAILURE_SECONDS,
            expected=FAILED,
        )

    async def _send(self) -> None:
        self._notified.clear()
        loop = asyncio.get_running_loop()
        due = [actor for actor in Actor if actor in self._marked and self._next_at.get(actor, 0.0) <= loop.time()]
        self._marked.difference_update(due)
        if self._marked:
            loop.call_at(min(self._next_at[actor] for actor in self._marked), self._notified.set)
        if not due:
            return
        self._next_at.update(dict.fromkeys(due, loop.time() + self._interval))
        try:
            await loop.run_in_executor(self._thread, self._sender.send, *due)
        except FAILED:
            for actor in due:
                WAKEUPS.labels(actor, "failed").inc()
            raise
