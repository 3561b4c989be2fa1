"""Outages as scenarios have them: so long, whatever else happens meanwhile; and connections of ours cut in the server."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

from tests.support.servers import OwnPostgres

_TERMINATE = text("""
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name LIKE 'coordinator%' AND datname = current_database()
""")


@contextmanager
def outage(seconds: float, leave: Callable[[], object], come_back: Callable[[], object]) -> Iterator[None]:
    """Something is away for so many seconds, or for as long as the block takes if that is longer.

    The length is what is tried: nothing is waited for in it.
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
    """`stopped`: clients are told so. `killed`: as in a power cut; it recovers when it is back, UNLOGGED tables empty."""
    with outage(seconds, {"stopped": server.stop, "killed": server.kill}[way], server.start):
        yield


def terminate_backends(engine: Engine) -> int:
    """End all connections of our processes to this database, in the middle of whatever they do; how many there were."""
    with engine.connect() as connection:
        return int(connection.execute(_TERMINATE).scalar_one())
