"""What web and workers call each other's things in Redis; neither imports the other, both import these names."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

NAMESPACE: Final = "coordinator"

HEAD_CHANNEL: Final = f"{NAMESPACE}:feed:head"


class Queue(StrEnum):
    """The queues of the engine room."""

    DISPATCH = "dispatch"
    FEED = "feed"
    UPKEEP = "upkeep"


class Actor(StrEnum):
    """The actors that may be rung. A contract test asserts that each exists."""

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
        # A parent waits for it as a runner does, behind no clean-up.
        Actor.CALLBACKS: Queue.DISPATCH,
        Actor.EXPIRE: Queue.UPKEEP,
        Actor.UPKEEP: Queue.UPKEEP,
        Actor.RETENTION: Queue.UPKEEP,
    }
)


def assignments_channel(instance: str) -> str:
    """Where the web process `instance` hears of runs assigned to its parked polls."""
    return f"{NAMESPACE}:mailbox:{instance}"


def recheck_channel(instance: str) -> str:
    """Channel on which the web process `instance` hears of runners whose parked polls it should re-check now."""
    return f"{NAMESPACE}:recheck:{instance}"


def queue_key(queue: str) -> str:
    """The list in which Dramatiq keeps the ids of waiting messages."""
    return f"{NAMESPACE}:{queue}"


def wakeup_key(queue: str) -> str:
    """A list with an entry for each waiting message: who takes one out has been woken, and nobody else with him."""
    return f"{queue_key(queue)}.bell"


def messages_key(queue: str) -> str:
    """The hash in which Dramatiq keeps the messages themselves, by id."""
    return f"{queue_key(queue)}.msgs"


def hint_key(actor: Actor) -> str:
    """The id of the last message that a ring for `actor` enqueued: while it waits there, further rings add nothing."""
    return f"{NAMESPACE}:hint:{actor}"


def slot_key(actor: Actor, slot: int) -> str:
    """Who sets it first enqueues the periodic run of `actor` in time slot `slot`."""
    return f"{NAMESPACE}:slot:{actor}:{slot}"


def probe_key(instance: str) -> str:
    """Key that the web process `instance` writes and deletes to see whether Redis takes writes."""
    return f"{NAMESPACE}:probe:{instance}"
