from collections.abc import Mapping

import psycopg

from benchmarks.cluster import Cluster
from benchmarks.figures import Figures

_LSN = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8"
# The images are full pages: the first change of a page after a checkpoint logs all of it.
_IMAGES = """
    SELECT coalesce(sum(fpi_size), 0)::float8
    FROM pg_get_wal_stats('0/0'::pg_lsn + %(first)s::numeric, '0/0'::pg_lsn + %(last)s::numeric)
"""


def checkpoint(cluster: Cluster) -> None:
    """Begin a checkpoint and wait for its end, so that none falls into the window that follows."""
    with psycopg.connect(cluster.servers.postgres.url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def position(cluster: Cluster) -> Figures:
    with psycopg.connect(cluster.servers.postgres.url, autocommit=True) as connection:
        row = connection.execute(_LSN).fetchone()
        return {"wal": float(row[0]) if row else 0.0}


def kib_each(cluster: Cluster, figures: Mapping[str, float]) -> dict[str, float]:
    """Return the KiB of WAL for each thing that the load counted: `wal` without full-page images, `wal_images` those.

    `figures` are of a window that watched `position`. The images are read from the WAL itself: call this soon after.
    """
    first, last, count = figures["first_wal"], figures["last_wal"], figures["count"]
    with psycopg.connect(cluster.servers.postgres.url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
        row = connection.execute(_IMAGES, {"first": first, "last": last}).fetchone()
        images = float(row[0]) if row else 0.0
    return {"wal": (last - first - images) / 1024 / count, "wal_images": images / 1024 / count}
