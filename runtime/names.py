"""Name the keys, queues and channels in Redis that web and workers share; neither imports the other."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

NAMESPACE: Final = "coordinator"

HEAD_CHANNEL: Final = f"{NAMESPACE}:feed:head"


class Queue(StrEnum):
    DISPATCH = "dispatch"
    FEED = "feed"
    UPKEEP = "upkeep"


class Actor(StrEnum):
    """Actors that may be woken. A contract test asserts that each exists."""

    DISPATCH = "dispatch"
    BROADCAST = "broadcast"
    CALLBACKS = "callbacks"
    EXPIRE = "expire"
    UPKEEP = "upkeep"
    RETENTION = "retention"
    STATS = "stats"
    BULK = "bulk"
    SCHEDULES = "schedules"
    WEBHOOKS = "webhooks"


# Names of the queues in Redis. A release that adds an actor to a queue gives it the next number there, since workers of
# the release before serve it too, and log an error for each message of an actor that they do not know.
STORED_AS: Final[Mapping[str, str]] = MappingProxyType(
    {Queue.DISPATCH: "dispatch", Queue.FEED: "feed", Queue.UPKEEP: "upkeep-3"}
)
QUEUE_OF: Final[Mapping[Actor, Queue]] = MappingProxyType(
    {
        Actor.DISPATCH: Queue.DISPATCH,
        Actor.BROADCAST: Queue.FEED,
        # Resuming a parent is as urgent as a claim: never queued behind clean-up.
        Actor.CALLBACKS: Queue.DISPATCH,
        Actor.EXPIRE: Queue.UPKEEP,
        Actor.UPKEEP: Queue.UPKEEP,
        Actor.RETENTION: Queue.UPKEEP,
        Actor.STATS: Queue.UPKEEP,
        Actor.BULK: Queue.UPKEEP,
        Actor.SCHEDULES: Queue.UPKEEP,
        Actor.WEBHOOKS: Queue.UPKEEP,
    }
)


def assignments_channel(instance: str) -> str:
    return f"{NAMESPACE}:mailbox:{instance}"


def recheck_channel(instance: str) -> str:
    return f"{NAMESPACE}:recheck:{instance}"


def submissions_channel(instance: str) -> str:
    return f"{NAMESPACE}:submissions:{instance}"


def stored_queue(actor: Actor) -> str:
    """Return the name in Redis of the queue that messages for the actor go to."""
    return STORED_AS[QUEUE_OF[actor]]


def queue_key(queue: str) -> str:
    """Return the key of a queue, which is given by its name or by that in Redis."""
    return f"{NAMESPACE}:{STORED_AS.get(queue, queue)}"


def wakeup_key(queue: str) -> str:
    """Return the list with an entry for each waiting message: taking one out wakes a single consumer."""
    return f"{queue_key(queue)}.bell"


def messages_key(queue: str) -> str:
    return f"{queue_key(queue)}.msgs"


def hint_key(actor: Actor) -> str:
    """Return the key of the last wake-up message for `actor`: while it waits, further wake-ups add nothing."""
    return f"{NAMESPACE}:hint:{actor}"


def slot_key(actor: Actor, slot: int) -> str:
    """Return the key of the time slot `slot`: the worker that sets it first enqueues the periodic run of `actor`."""
    return f"{NAMESPACE}:slot:{actor}:{slot}"


def probe_key(instance: str) -> str:
    """Return the key that the web process `instance` writes and deletes to test whether Redis accepts writes."""
    return f"{NAMESPACE}:probe:{instance}"
