"""Numbers committed events, so that all clients see one history (promise 3)."""

from typing import Final

from models.duties import duty_due
from models.feed import sequence_feed
from runtime.metrics import SEQUENCED
from runtime.names import Actor
from runtime.postgres import autocommit, transaction
from workers.room import Room

PASSES: Final = 50
FULL_PASS: Final = 1000


def broadcast(room: Room) -> None:
    """Number all that is committed. Two at once are as good as one: `sequence_feed` takes turns by itself."""
    with autocommit(room.engine) as connection:
        for _ in range(PASSES):
            numbered = sequence_feed(connection)
            SEQUENCED.inc(numbered)
            if numbered < FULL_PASS:
                return
    room.ringer.ring(Actor.BROADCAST)


def sweep_broadcast(room: Room, older_than: float) -> bool:
    """The same if it was not swept for `older_than` seconds; whether it was done."""
    with transaction(room.engine) as connection:
        due = duty_due(connection, Actor.BROADCAST, older_than)
    if due:
        broadcast(room)
    return due
