"""Check the names that web and workers share before either runs."""

import pytest

from runtime.names import QUEUE_OF, Actor, Queue, assignments_channel, hint_key, messages_key, queue_key, slot_key


def test_every_actor_has_queue_and_every_queue_actor() -> None:
    """A wake-up for an actor without a queue would be lost."""
    assert set(QUEUE_OF) == set(Actor)
    assert set(QUEUE_OF.values()) == set(Queue)


@pytest.mark.parametrize("actor", Actor)
def test_our_redis_keys_differ_from_those_of_dramatiq(actor: Actor) -> None:
    """Both share one logical database and one prefix."""
    ours = {hint_key(actor), slot_key(actor, 1), assignments_channel("dispatch")}
    theirs = {queue_key(queue) + ending for queue in Queue for ending in ("", ".msgs", ".XQ", ".XQ.msgs", ".DQ")}

    assert not ours & theirs
    assert {messages_key(queue) for queue in Queue} <= theirs
