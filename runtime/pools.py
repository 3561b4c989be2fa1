from sqlalchemy import Pool, QueuePool

from runtime.metrics import POOL_CONNECTIONS


def note_pool(name: str, pool: Pool) -> None:
    """Set the gauges of a pool of connections to Postgres."""
    if isinstance(pool, QueuePool):
        POOL_CONNECTIONS.labels(name, "in_use").set(pool.checkedout())
        POOL_CONNECTIONS.labels(name, "idle").set(pool.checkedin())
