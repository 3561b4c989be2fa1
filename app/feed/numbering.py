import asyncio
from collections.abc import Callable
from typing import Final

import redis.asyncio
from sqlalchemy.exc import DBAPIError

from app.writes.attempts import Attempts, Unavailable
from models.feed.sequence import PASS_EVENTS, Numbered, number_unless_busy
from runtime import logs
from runtime.loops import run_forever
from runtime.metrics import NUMBERING_PASSES, SEQUENCED
from runtime.pubsub import publish_head_async
from runtime.redis_client import FAILED

# Begin a pass at least so long after the one before: commits of the meantime share it.
GATHER_SECONDS: Final = 0.004
LONGEST_GATHER_SECONDS: Final = 0.04
# Look again so soon after another process was found numbering, and twice as late each further time.
BUSY_SECONDS: Final = 0.001
LONGEST_BUSY_SECONDS: Final = 0.05
PAUSE_AFTER_FAILURE_SECONDS: Final = 0.5

log = logs.log(__name__)


class Numbering:
    """Passes of numbering of one web process, one at a time; commits during a pass share the next one.

    `on_head` gets the position that the feed has reached. A pass that fails is repeated, and left to the workers by
    `wake_actor`.
    """

    def __init__(
        self,
        attempts: Attempts,
        client: redis.asyncio.Redis,
        on_head: Callable[[int], None],
        wake_actor: Callable[[], None],
    ) -> None:
        self._attempts = attempts
        self._on_head = on_head
        self._wake_actor = wake_actor
        self._client = client
        self._due = asyncio.Event()
        self._begin_at = 0.0
        self._busy_seconds = BUSY_SECONDS
        self._head = 0
        self._unpublished = asyncio.Event()

    def notify(self) -> None:
        """Number soon what has been committed. Never blocks, never raises."""
        self._due.set()

    async def number_forever(self) -> None:
        await run_forever(
            self._run_pass,
            failure="numbering failed, left to the workers",
            woken=self._due,
            pause_after_failure=PAUSE_AFTER_FAILURE_SECONDS,
            expected=(DBAPIError,),
            silent=(Unavailable,),
        )

    async def publish_forever(self) -> None:
        await run_forever(
            self._publish,
            failure="feed head not published",
            woken=self._unpublished,
            pause_after_failure=PAUSE_AFTER_FAILURE_SECONDS,
            expected=FAILED,
        )

    async def finish(self) -> None:
        """Number and publish what the last commits wrote; leave it to the workers when it fails."""
        try:
            while self._due.is_set():
                await self._run_pass()
            if self._unpublished.is_set():
                await self._publish()
        except Exception as fault:  # noqa: BLE001 -- sweeps of the workers number what is left
            log.info("last events left to the workers", error=type(fault).__name__)

    async def _run_pass(self) -> None:
        loop = asyncio.get_running_loop()
        if self._begin_at > loop.time():
            await asyncio.sleep(self._begin_at - loop.time())
        # A pass covers what was committed before it began: a commit from here on makes the next one due.
        self._due.clear()
        begun = loop.time()
        try:
            numbered = await self._attempts.autocommit(number_unless_busy)
        except BaseException:
            self._due.set()
            self._wake_actor()
            NUMBERING_PASSES.labels("failed").inc()
            raise
        if numbered is None:
            NUMBERING_PASSES.labels("busy").inc()
            self._due.set()
            self._begin_at = loop.time() + self._busy_seconds
            self._busy_seconds = min(2 * self._busy_seconds, LONGEST_BUSY_SECONDS)
            return
        self._busy_seconds = BUSY_SECONDS
        self._begin_at = begun + min(max(GATHER_SECONDS, 2 * (loop.time() - begun)), LONGEST_GATHER_SECONDS)
        self._take(numbered)

    def _take(self, numbered: Numbered) -> None:
        NUMBERING_PASSES.labels("numbered" if numbered.count else "empty").inc()
        SEQUENCED.labels("commits").inc(numbered.count)
        self._on_head(numbered.head)
        if numbered.count:
            self._head = numbered.head
            self._unpublished.set()
        if numbered.count >= PASS_EVENTS:
            self._due.set()

    async def _publish(self) -> None:
        self._unpublished.clear()
        await publish_head_async(self._client, self._head)
