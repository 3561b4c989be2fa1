from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, text

from models.claims.claim import PollCandidate
from models.schema.driver import fetch_all

_PARK = text("""
    INSERT INTO waiting_polls (poll_id, runner_id, registration, instance, wanted, subject, seen_at)
    SELECT * , clock_timestamp()
    FROM unnest(CAST(:polls AS text[]), CAST(:runner_ids AS text[]), CAST(:registrations AS bigint[]),
                CAST(:instances AS text[]), CAST(:wanted AS smallint[]), CAST(:subjects AS text[]))
    ON CONFLICT (poll_id) DO UPDATE SET seen_at = clock_timestamp()
""")

_UNPARK = text("DELETE FROM waiting_polls WHERE poll_id = ANY(CAST(:polls AS text[])) RETURNING poll_id")

_DROP = text("""
    DELETE FROM waiting_polls WHERE poll_id IN (
        SELECT poll_id FROM waiting_polls WHERE runner_id = ANY(CAST(:runner_ids AS text[]))
        ORDER BY poll_id FOR UPDATE SKIP LOCKED)
    RETURNING runner_id, instance
""")

_HOLDERS = text("""
    SELECT DISTINCT instance, runner_id FROM waiting_polls WHERE runner_id = ANY(CAST(:runner_ids AS text[]))
    ORDER BY instance, runner_id
""")

_ANYONE = text("SELECT EXISTS (SELECT FROM waiting_polls)")

_LEAVE = text("DELETE FROM waiting_polls WHERE instance = :instance")


def park_polls(conn: Connection, idle: Sequence[PollCandidate]) -> None:
    if idle:
        conn.execute(
            _PARK,
            {
                "polls": [poll.ask.poll_id for poll in idle],
                "runner_ids": [poll.ask.runner_id for poll in idle],
                "registrations": [poll.offer.registration for poll in idle],
                "instances": [poll.ask.instance for poll in idle],
                "wanted": [poll.ask.wanted for poll in idle],
                "subjects": [poll.ask.subject for poll in idle],
            },
        )


def unpark_polls(conn: Connection, poll_ids: Iterable[str]) -> None:
    """Delete the rows of these polls; wait for rows that a dispatcher has locked."""
    conn.execute(_UNPARK, {"polls": list(poll_ids)})


def drop_polls(conn: Connection, runner_ids: Iterable[str]) -> dict[str, frozenset[str]]:
    """Delete the unlocked rows of the runners' polls; return the instances that hold the polls, by runner."""
    instances: dict[str, set[str]] = {}
    for row in conn.execute(_DROP, {"runner_ids": list(runner_ids)}):
        instances.setdefault(row.runner_id, set()).add(row.instance)
    return {runner_id: frozenset(found) for runner_id, found in instances.items()}


def poll_holders(conn: Connection, runner_ids: Iterable[str]) -> dict[str, list[str]]:
    """Return those of the runners that have polls parked, by the instance that holds the polls.

    Call it after the commit of the stop or leave. A poll that is not parked by then claims once more after it is
    (``models.claims.polls.claim_parked``), and finds what was committed.
    """
    holders: dict[str, list[str]] = {}
    for row in conn.execute(_HOLDERS, {"runner_ids": list(runner_ids)}):
        holders.setdefault(row.instance, []).append(row.runner_id)
    return holders


def any_poll_parked(conn: Connection) -> bool:
    """Return whether any poll is parked. A poll that is parked later claims by itself what is committed by now."""
    ((parked,),) = fetch_all(conn, _ANYONE)
    return bool(parked)


def leave_instance(conn: Connection, instance: str) -> None:
    conn.execute(_LEAVE, {"instance": instance})
