from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import redis
from sqlalchemy import Engine

from models.core.limits import Limits
from runtime.postgres import sync_engine
from runtime.redis_client import sync_client
from runtime.settings import Settings
from runtime.wakeups import ActorWakeupSender


@dataclass(slots=True)
class Pages:
    """Places to which this process has come: of dispatch in its pages, of schedules in the times of former zones."""

    after: str = ""
    recomputed: bool = False


@dataclass(frozen=True, slots=True)
class WorkerContext:
    settings: Settings
    engine: Engine
    redis: redis.Redis
    wakeups: ActorWakeupSender
    limits: Limits
    pages: Pages = field(default_factory=Pages)


@contextmanager
def worker_context(settings: Settings, *, threads: int) -> Iterator[WorkerContext]:
    """Open a pool for `threads` actors, ticker, webhooks and one to spare. Nothing connects before its first use."""
    engine = sync_engine(settings, pool_size=threads + 3, name="coordinator worker")
    client = sync_client(settings.redis_url)
    try:
        yield WorkerContext(settings, engine, client, ActorWakeupSender(client), Limits(**settings.deadlines()))
    finally:
        # Close only idle ones: an actor that outlasts the grace must not be cut in the middle of a command.
        client.connection_pool.disconnect(inuse_connections=False)
        engine.dispose()
