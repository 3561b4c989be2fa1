"""Outages of a given length, and cuts of our connections in the server."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

from testkit.servers import OwnPostgres
from testkit.waiting import eventually

_TERMINATE = text("""
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name LIKE 'coordinator%' AND datname = current_database()
""")

_SEEN = text("SELECT poll_id, seen_at FROM waiting_polls ORDER BY poll_id")


@contextmanager
def outage(seconds: float, leave: Callable[[], object], come_back: Callable[[], object]) -> Iterator[None]:
    """Keep something away for so many seconds, or for as long as the block takes if that is longer.

    The length itself is under test: nothing is waited for in it.
    """
    begun = time.monotonic()
    leave()
    try:
        yield
        time.sleep(max(0.0, seconds - (time.monotonic() - begun)))
    finally:
        come_back()


@contextmanager
def without_postgres(server: OwnPostgres, seconds: float, way: str) -> Iterator[None]:
    """Take Postgres away. `stopped`: clients are told so. `killed`: as in a power cut; UNLOGGED tables are empty after
    its recovery.
    """
    with outage(seconds, {"stopped": server.stop, "killed": server.kill}[way], server.start):
        yield


def terminate_backends(engine: Engine) -> int:
    """End all connections of our processes to this database, within whatever they do; return their number."""
    with engine.connect() as connection:
        return int(connection.execute(_TERMINATE).scalar_one())


def until_renewed_twice(engine: Engine) -> None:
    """Wait for a parked poll, and until its process has renewed it twice.

    The first renewal may be its second claim; after the re-check none of its queries takes more than a second, so that
    a process frozen now holds no lock that would keep dispatch away from it.
    """
    seen: set[str] = set()

    def renewed() -> bool:
        with engine.connect() as connection:
            seen.add(str(connection.execute(_SEEN).all()))
        return len(seen) >= 4

    eventually(renewed, 30, what="a parked poll that is looked after")
