"""Publish and receive messages of Redis pub/sub: assignments and re-checks for one instance, the feed's head for all.

A message may be lost at any time: the re-check of parked polls and the feed's reader find the same in Postgres.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import redis
import redis.asyncio
from redis.asyncio.client import PubSub

from runtime.logs import log
from runtime.names import HEAD_CHANNEL, assignments_channel, recheck_channel, submissions_channel
from runtime.redis_client import FAILED, async_client, fault_of
from runtime.settings import Settings

logger = log(__name__)

# Ping a subscription after QUIET seconds without a message, and drop it when the pong is PATIENCE late: a frozen Redis
# or a vanished peer looks like silence.
QUIET: Final = 5.0
PATIENCE: Final = 2.0
FIRST_BACKOFF: Final = 0.1
LONGEST_BACKOFF: Final = 2.0

# Runners per message; more of one instance are sent in several.
RUNNERS_A_MESSAGE: Final = 1000

Assignment = Mapping[str, str]


def publish_assignments(client: redis.Redis, assignments: Mapping[str, Sequence[Assignment]]) -> None:
    """Publish to each instance the assignments of its polls, `{"poll_id", "run_id", "claim_token"}` each, in one round
    trip. Raises what Redis raises; no instance may be listening.
    """
    if not assignments:
        return
    with client.pipeline(transaction=False) as pipeline:
        for instance, items in assignments.items():
            pipeline.publish(assignments_channel(instance), orjson.dumps([dict(item) for item in items]))
        pipeline.execute()


def recheck_messages(runners: Mapping[str, Sequence[str]]) -> list[tuple[str, bytes]]:
    return [
        (recheck_channel(instance), orjson.dumps(runner_ids[first : first + RUNNERS_A_MESSAGE]))
        for instance, runner_ids in runners.items()
        for first in range(0, len(runner_ids), RUNNERS_A_MESSAGE)
    ]


def publish_rechecks(client: redis.Redis, runners: Mapping[str, Sequence[str]]) -> None:
    """Have each instance re-check the parked polls of these runners, in one round trip. Raises what Redis raises.

    The message carries no facts: it says that Postgres may have something for these polls.
    """
    if not runners:
        return
    with client.pipeline(transaction=False) as pipeline:
        for channel, payload in recheck_messages(runners):
            pipeline.publish(channel, payload)
        pipeline.execute()


async def publish_rechecks_async(client: redis.asyncio.Redis, runners: Mapping[str, Sequence[str]]) -> None:
    if not runners:
        return
    async with client.pipeline(transaction=False) as pipeline:
        for channel, payload in recheck_messages(runners):
            pipeline.publish(channel, payload)
        await pipeline.execute()


async def publish_submissions(
    client: redis.asyncio.Redis, submissions: Mapping[str, Sequence[Mapping[str, Any]]]
) -> set[str]:
    """Publish to each instance submitted runs and polls to claim them, `{"poll_id", "run_id", "demands"}` each, in one
    round trip; return the instances that listen. Raises what Redis raises.
    """
    if not submissions:
        return set()
    async with client.pipeline(transaction=False) as pipeline:
        for instance, items in submissions.items():
            pipeline.publish(submissions_channel(instance), orjson.dumps(items))
        numbers = await pipeline.execute()
    return {instance for instance, number in zip(submissions, numbers, strict=True) if number}


def publish_head(client: redis.Redis, position: int) -> None:
    """Publish to every instance the position that the feed reaches. Raises what Redis raises; no instance may be
    listening.
    """
    client.publish(HEAD_CHANNEL, position)


async def publish_head_async(client: redis.asyncio.Redis, position: int) -> None:
    await client.publish(HEAD_CHANNEL, position)


@dataclass(frozen=True, slots=True)
class MessageHandlers:
    """Callbacks for messages: `assignments` gets those of one message, `head` a position of the feed, `rechecks` the
    runners of one message, `submissions` the runs of one message.

    `listening` is called on every confirmation: messages published before it are lost. None of them may block.
    """

    assignments: Callable[[list[dict[str, str]]], None]
    head: Callable[[int], None]
    rechecks: Callable[[list[str]], None]
    submissions: Callable[[list[dict[str, Any]]], None]
    listening: Callable[[], None]


class Subscription:
    def __init__(self, settings: Settings, instance: str, handlers: MessageHandlers) -> None:
        self._url = settings.redis_url
        self._channel = assignments_channel(instance)
        self._rechecks = recheck_channel(instance)
        self._submissions = submissions_channel(instance)
        self._handlers = handlers
        self._task: asyncio.Task[None] | None = None
        self._backoff = FIRST_BACKOFF
        self.connected = False
        self._fault = "Redis does not answer"

    @property
    def fault(self) -> str | None:
        return None if self.connected else self._fault

    async def start(self) -> None:
        self._task = asyncio.create_task(self._keep_listening(), name="subscription")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_listening(self) -> None:
        while True:
            try:
                await self._listen()
            except FAILED as error:
                self._fault = fault_of(error)
                if self._backoff == FIRST_BACKOFF:
                    logger.warning("subscription lost, trying again", error=str(error))
            except Exception:
                # Never end silently: every dispatched run would wait for the re-check.
                logger.exception("subscription failed, trying again")
            self.connected = False
            await asyncio.sleep(self._backoff * random.uniform(0.5, 1))
            self._backoff = min(self._backoff * 2, LONGEST_BACKOFF)

    async def _listen(self) -> None:
        # A new client for each attempt: redis-py reconnects silently, and messages published meanwhile are lost.
        client = async_client(self._url, answer_timeout=PATIENCE, retries=0)
        try:
            async with client.pubsub() as pubsub:
                await pubsub.subscribe(self._channel, self._rechecks, self._submissions, HEAD_CHANNEL)
                self._take(await _expect(pubsub))
                while True:
                    message = await pubsub.get_message(timeout=QUIET)
                    if message is None:
                        await pubsub.ping()
                        message = await _expect(pubsub)
                    self._take(message)
        finally:
            with contextlib.suppress(*FAILED):
                await client.aclose()

    def _take(self, message: Mapping[str, Any]) -> None:
        try:
            if message["type"] == "subscribe" and message["channel"] == HEAD_CHANNEL.encode():
                # Last of the confirmations: from here on no message is missed.
                self._backoff = FIRST_BACKOFF
                self.connected = True
                self._handlers.listening()
            elif message["type"] == "message" and message["channel"] == HEAD_CHANNEL.encode():
                self._handlers.head(int(message["data"]))
            elif message["type"] == "message" and message["channel"] == self._rechecks.encode():
                self._handlers.rechecks(_runner_ids(message["data"]))
            elif message["type"] == "message" and message["channel"] == self._submissions.encode():
                self._handlers.submissions(orjson.loads(message["data"]))
            elif message["type"] == "message":
                self._handlers.assignments(_assignments(message["data"]))
        except Exception:
            logger.exception("handling a message failed")


async def _expect(pubsub: PubSub) -> Mapping[str, Any]:
    message: Mapping[str, Any] | None = await pubsub.get_message(timeout=PATIENCE)
    if message is None:
        raise redis.TimeoutError("no answer from Redis")
    return message


def _assignments(payload: bytes) -> list[dict[str, str]]:
    return [{key: item[key] for key in ("poll_id", "run_id", "claim_token")} for item in orjson.loads(payload)]


def _runner_ids(payload: bytes) -> list[str]:
    runner_ids = orjson.loads(payload)
    if not isinstance(runner_ids, list) or not all(isinstance(runner_id, str) for runner_id in runner_ids):
        raise TypeError("no list of runners")
    return runner_ids
