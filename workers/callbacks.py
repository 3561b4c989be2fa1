"""Resumes parents with the results of their children, and tells those who have to do with the new runs."""

from typing import Final

from models.callbacks.resume_parents import deliver_results
from models.expiry.duties import duty_due
from runtime.metrics import PARENTS_RESUMED
from runtime.names import Actor
from runtime.postgres import transaction
from workers.room import Room

PARENTS_A_PASS: Final = 100


def resume_parents(room: Room) -> None:
    """One pass over the parents that are due. Twice, or never, is as good: results are rows, and each is delivered in
    the transaction that notes it as delivered.
    """
    with transaction(room.engine) as connection:
        delivered = deliver_results(connection, limits=room.limits, at_most=PARENTS_A_PASS)
    if delivered.runs:
        PARENTS_RESUMED.inc(len(delivered.runs))
        room.ringer.ring(Actor.DISPATCH)
        room.ringer.ring(Actor.BROADCAST)
    if delivered.again:
        room.ringer.ring(Actor.CALLBACKS)


def sweep_callbacks(room: Room, older_than: float) -> bool:
    """A pass if none was swept for `older_than` seconds; whether there was one."""
    with transaction(room.engine) as connection:
        due = duty_due(connection, Actor.CALLBACKS, older_than)
    if due:
        resume_parents(room)
    return due
