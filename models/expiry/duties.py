from sqlalchemy import Connection, text

from models.expiry.outages import record_heartbeat

_TRY = text("SELECT pg_try_advisory_xact_lock(hashtextextended('coordinator.duty.' || :duty, 0))")

_TAKE = text("""
    INSERT INTO duties AS d (duty, last_run) VALUES (:duty, clock_timestamp())
    ON CONFLICT (duty) DO UPDATE SET last_run = excluded.last_run
    WHERE d.last_run IS NULL OR d.last_run <= clock_timestamp() - make_interval(secs => :older_than)
    RETURNING d.duty
""")

_DONE = text("UPDATE duties SET done_at = clock_timestamp() WHERE duty = :duty")

_PING = text("SELECT 1")

_AGES = text(
    "SELECT duty, extract(epoch FROM clock_timestamp() - last_run) AS age FROM duties WHERE last_run IS NOT NULL"
)


def duty_ages(conn: Connection) -> dict[str, float]:
    """Return how many seconds ago each duty ran last; one that never ran is left out."""
    return {row.duty: float(row.age) for row in conn.execute(_AGES)}


def try_duty(conn: Connection, duty: str) -> bool:
    """Lock the duty until this transaction ends; return False if another transaction has it."""
    return bool(conn.execute(_TRY, {"duty": duty}).scalar_one())


def duty_due(conn: Connection, duty: str, older_than: float) -> bool:
    """Lock the duty and record it as run now; return False if it is locked, or ran less than ``older_than`` seconds
    ago.

    Of any number of contenders one gets True.
    """
    if not try_duty(conn, duty):
        return False
    return conn.execute(_TAKE, {"duty": duty, "older_than": older_than}).first() is not None


def record_done(conn: Connection, duty: str) -> None:
    """Record the duty as done now, after its work has been committed; its begin is recorded by ``duty_due``."""
    conn.execute(_DONE, {"duty": duty})


def ping(conn: Connection) -> None:
    conn.execute(_PING)


def record_instance_heartbeat(conn: Connection, instance: str) -> None:
    """Record the heartbeat of a web process, every 2 s, in a transaction of its own.

    The first one after more than 15 s without any also records that outage, in which no runner could be heard.
    """
    record_heartbeat(conn, instance)
