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


QUEUE_OF: Final[Mapping[Actor, Queue]] = MappingProxyType(
    {
        Actor.DISPATCH: Queue.DISPATCH,
        Actor.BROADCAST: Queue.FEED,
        # Resuming a parent is as urgent as a claim: never queued behind clean-up.
        Actor.CALLBACKS: Queue.DISPATCH,
        Actor.EXPIRE: Queue.UPKEEP,
        Actor.UPKEEP: Queue.UPKEEP,
        Actor.RETENTION: Queue.UPKEEP,
    }
)


def assignments_channel(instance: str) -> str:
    return f"{NAMESPACE}:mailbox:{instance}"


def recheck_channel(instance: str) -> str:
    return f"{NAMESPACE}:recheck:{instance}"


def queue_key(queue: str) -> str:
    """Return the list in which Dramatiq keeps the ids of waiting messages."""
    return f"{NAMESPACE}:{queue}"


def wakeup_key(queue: str) -> str:
    """Return the list with an entry for each waiting message: taking one out wakes a single consumer."""
    return f"{queue_key(queue)}.bell"


def messages_key(queue: str) -> str:
    """Return the hash in which Dramatiq keeps the messages, by id."""
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
