"""Facts about runs that a verb notes on its connection; the process counts and logs them once they are committed.

Noted on connections that ``runtime.postgres`` opened, and dropped with a transaction that fails. No other connection
keeps any.
"""

from typing import Final

from sqlalchemy import Connection

# Key of ``Connection.info``; runtime/facts.py reads the same one, and cannot be imported from here.
NOTED: Final = "coordinator.facts"
SUBMITTED: Final = "submitted"
DELIVERED: Final = "delivered"
STARTED: Final = "started"
ENDED: Final = "ended"
REQUEUED: Final = "requeued"


def note(
    conn: Connection, name: str, *labels: str, value: float | None = None, about: dict[str, str | None] | None = None
) -> None:
    """Note one fact: its labels, a number (seconds, or how many) and, for one worth a line in the log, its ids."""
    noted: list[tuple[str, tuple[str, ...], float | None, dict[str, str | None] | None]] | None = conn.info.get(NOTED)
    if noted is not None:
        noted.append((name, labels, value, about))
