"""Addresses at which processes serve their metrics, for scrapers that ask one of them for all."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

# A process records its address so often, and is listed for so long after it was last seen: a killed one has to be a
# target that does not answer, not one that is not known.
RECORD_SECONDS: Final = 15.0
LISTED_SECONDS: Final = 300.0

_RECORD = text("""
    INSERT INTO metrics_targets (address, job, instance, seen_at)
    VALUES (:address, :job, :instance, clock_timestamp())
    ON CONFLICT (address) DO UPDATE
    SET job = excluded.job, instance = excluded.instance, seen_at = excluded.seen_at
""")
_DROP = text("DELETE FROM metrics_targets WHERE address = :address AND instance = :instance")
_LIST = text("""
    SELECT address, job FROM metrics_targets
    WHERE seen_at > clock_timestamp() - make_interval(secs => :listed)
    ORDER BY job, address LIMIT 10000
""")


@dataclass(frozen=True, slots=True)
class Target:
    """Address of one process. ``job``: web or worker; ``instance`` tells it from its successor at that address."""

    address: str
    job: str
    instance: str


def record_target(conn: Connection, target: Target) -> None:
    conn.execute(_RECORD, {"address": target.address, "job": target.job, "instance": target.instance})


def drop_target(conn: Connection, target: Target) -> None:
    """Remove the address of a process that ends in order, unless its successor has it already."""
    conn.execute(_DROP, {"address": target.address, "instance": target.instance})


def list_targets(conn: Connection) -> dict[str, list[str]]:
    """Return the addresses seen in the last five minutes, by job."""
    found: dict[str, list[str]] = {}
    for row in conn.execute(_LIST, {"listed": LISTED_SECONDS}):
        found.setdefault(row.job, []).append(row.address)
    return found
