"""Rows of parked polls: dispatch gives runs to them, and they say which instance holds the poll of a runner."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, text

from models.claim import Seeker

_PARK = text("""
    INSERT INTO waiting_polls (poll_id, runner_id, registration, instance, wanted, seen_at)
    SELECT * , clock_timestamp()
    FROM unnest(CAST(:polls AS text[]), CAST(:runner_ids AS text[]), CAST(:registrations AS bigint[]),
                CAST(:instances AS text[]), CAST(:wanted AS smallint[]))
    ON CONFLICT (poll_id) DO UPDATE SET seen_at = clock_timestamp()
""")

_UNPARK = text("DELETE FROM waiting_polls WHERE poll_id = ANY(CAST(:polls AS text[])) RETURNING poll_id")

_ANYONE = text("SELECT EXISTS (SELECT FROM waiting_polls)")

_LEAVE = text("DELETE FROM waiting_polls WHERE instance = :instance")


def park_polls(conn: Connection, idle: Sequence[Seeker]) -> None:
    """Insert a row for each poll; one that has a row already is seen again."""
    if idle:
        conn.execute(
            _PARK,
            {
                "polls": [one.ask.poll_id for one in idle],
                "runner_ids": [one.ask.runner_id for one in idle],
                "registrations": [one.offer.registration for one in idle],
                "instances": [one.ask.instance for one in idle],
                "wanted": [one.ask.wanted for one in idle],
            },
        )


def unpark_polls(conn: Connection, poll_ids: Iterable[str]) -> None:
    """Delete the rows of these polls; one that a dispatcher holds is waited for."""
    conn.execute(_UNPARK, {"polls": list(poll_ids)})


def anyone_waits(conn: Connection) -> bool:
    """Return whether a poll is parked anywhere. Of what is committed by now, a poll parked later claims by itself."""
    return bool(conn.execute(_ANYONE).scalar_one())


def leave_instance(conn: Connection, instance: str) -> None:
    """Delete the rows of a process that shuts down."""
    conn.execute(_LEAVE, {"instance": instance})
