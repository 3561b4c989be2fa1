"""Read the state of the coordinator itself: processes, duties, outages, feed, schema."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from models.feed.sequence import read_head
from models.schema.revisions import newest_revision, revision
from models.state.cursors import FeedHead

MOST_ROWS: Final = 200

_INSTANCES = text("""
    SELECT instance AS name, seen_at AS at, CAST(extract(epoch FROM clock_timestamp() - seen_at) AS float) AS age
    FROM instances ORDER BY seen_at DESC LIMIT :most
""")
_DUTIES = text("""
    SELECT duty AS name, last_run AS at, CAST(extract(epoch FROM clock_timestamp() - last_run) AS float) AS age
    FROM duties WHERE last_run IS NOT NULL ORDER BY duty LIMIT :most
""")
_GAPS = text("SELECT kind, started_at, ended_at FROM gaps ORDER BY ended_at DESC, gap_id DESC LIMIT :most")
_COUNTED = text("SELECT position FROM run_totals_head")


@dataclass(frozen=True, slots=True)
class Sign:
    """Last sign of life of a process or duty, ``age`` seconds ago."""

    name: str
    at: datetime
    age: float


@dataclass(frozen=True, slots=True)
class Gap:
    kind: str
    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class System:
    """``counted``: the position up to which the history is in the rollup; ``schema``: revision found and needed."""

    instances: list[Sign]
    duties: list[Sign]
    gaps: list[Gap]
    feed: FeedHead
    counted: int
    schema: tuple[str | None, str]


def read_system(conn: Connection) -> System:
    """Return the newest 200 of each kind."""
    most = {"most": MOST_ROWS}
    return System(
        instances=[Sign(*row) for row in conn.execute(_INSTANCES, most)],
        duties=[Sign(*row) for row in conn.execute(_DUTIES, most)],
        gaps=[Gap(*row) for row in conn.execute(_GAPS, most)],
        feed=read_head(conn),
        counted=conn.execute(_COUNTED).one().position,
        schema=(revision(conn), newest_revision()),
    )
