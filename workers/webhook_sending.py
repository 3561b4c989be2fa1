"""Send messages to webhooks, in a thread with an event loop of its own, so that no actor waits for a receiver."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from models.webhooks.deliveries import Attempt, Delivery, Outcome, record_attempts, take_deliveries
from runtime.logs import log
from runtime.loops import jittered, run_forever
from runtime.metrics import WEBHOOK_DELIVERIES, WEBHOOK_SECONDS
from runtime.postgres import transaction
from runtime.webhooks.addresses import ATTEMPT_SECONDS, Targets
from workers.context import WorkerContext

if TYPE_CHECKING:
    from runtime.webhooks.sending import Sender

logger = log(__name__)

Result = TypeVar("Result")

LOOK_SECONDS: Final = 1.0
# Let a few attempts end before the next look.
LINGER_SECONDS: Final = 0.02
MOST_AT_ONCE: Final = 64
# A look-up that hangs holds its thread for longer than its attempt lasts.
LOOK_UP_THREADS: Final = 64
RECORD_TRIES: Final = 10
RECORD_PAUSE_SECONDS: Final = 1.0
# Let attempts in progress end with the process: those that it leaves are made again once their leases have ended.
LAST_SECONDS: Final = ATTEMPT_SECONDS + 1


@contextmanager
def sending_webhooks(context: WorkerContext) -> Iterator[threading.Thread]:
    """Send messages that are due during the block; yield the thread, which ends when the attempts in progress have."""
    thread = WebhookSending(context)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


class WebhookSending(threading.Thread):
    """Sends messages of all webhooks, up to 64 at once: leases them, sends them, and records what came of it.

    A process that dies in between leaves a lease, after whose end another sends the message again: at least once.
    """

    def __init__(self, context: WorkerContext) -> None:
        super().__init__(name="webhooks", daemon=True)
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._woken = asyncio.Event()
        self._attempts: set[asyncio.Task[None]] = set()
        # One connection of the pool, however many attempts there are.
        self._database = ThreadPoolExecutor(1, "webhooks database")

    def run(self) -> None:
        self._loop.set_default_executor(ThreadPoolExecutor(LOOK_UP_THREADS, "webhooks look-up"))
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:
            logger.exception("sending of webhooks has ended")
        finally:
            self._loop.close()

    def stop(self) -> None:
        """Take no more messages; return at once."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended.set)

    async def _serve(self) -> None:
        from runtime.webhooks.sending import Sender  # noqa: PLC0415  # slow: in the thread, beside the start

        sender = Sender(Targets(self._context.settings.webhook_allow))
        looking = asyncio.create_task(
            run_forever(
                partial(self._step, sender),
                failure="messages to webhooks wait",
                every=lambda: jittered(LOOK_SECONDS),
                woken=self._woken,
                pause_after_failure=LOOK_SECONDS,
                expected=(SQLAlchemyError,),
            )
        )
        await self._ended.wait()
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=LAST_SECONDS)
        await sender.close()
        self._database.shutdown(wait=False)

    async def _step(self, sender: "Sender") -> None:
        if self._woken.is_set():
            await asyncio.sleep(LINGER_SECONDS)
        self._woken.clear()
        free = MOST_AT_ONCE - len(self._attempts)
        if free <= 0:
            return
        for delivery in await self._in_transaction(partial(take_deliveries, most=free)):
            attempt = asyncio.create_task(self._attempt(sender, delivery))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._end_attempt)

    def _end_attempt(self, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        self._woken.set()
        if not attempt.cancelled() and (fault := attempt.exception()) is not None:
            logger.error("message to a webhook not handled", exc_info=fault)

    async def _attempt(self, sender: "Sender", delivery: Delivery) -> None:
        began = time.monotonic()
        answer = await sender.send(delivery.url, delivery.event_id, delivery.payload, delivery.secrets)
        WEBHOOK_SECONDS.observe(time.monotonic() - began)
        attempt = Attempt(delivery, answer.status, answer.error, answer.retry_after)
        outcome = await self._record(attempt)
        if outcome is None:
            return
        WEBHOOK_DELIVERIES.labels(outcome).inc()
        if outcome is not Outcome.DELIVERED:
            logger.info(
                "webhook not reached",
                webhook=delivery.webhook_id,
                message=delivery.event_id,
                outcome=outcome,
                status=answer.status,
                error=answer.error,
            )

    async def _record(self, attempt: Attempt) -> Outcome | None:
        for _ in range(RECORD_TRIES):
            try:
                (outcome,) = await self._in_transaction(partial(record_attempts, items=[attempt]))
            except SQLAlchemyError as error:
                logger.warning("attempt not recorded yet", error=str(error).partition("\n")[0])
                await asyncio.sleep(RECORD_PAUSE_SECONDS)
            else:
                return outcome
        return None

    async def _in_transaction(self, work: Callable[[Connection], Result]) -> Result:
        def run() -> Result:
            with transaction(self._context.engine) as connection:
                return work(connection)

        return await self._loop.run_in_executor(self._database, run)
