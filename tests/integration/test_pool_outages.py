"""Outage of one connection pool of a web process: the others go on and are not reported as down."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.pool import QueuePool

from app.lifecycle.drain import Drain
from app.lifecycle.health import Health
from app.web import Web
from runtime.postgres import async_engine
from runtime.settings import Settings
from testkit.ports import own_port
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebInThread, served, until_ready


def reason(web: WebInThread) -> str:
    return str(web.client.get("/health/ready").json().get("reason", ""))


def test_recovered_pool_clears_its_own_flag_only() -> None:
    health = Health(Drain(0))
    health.start()
    assert not health.postgres_contact("reads", there=False)
    assert not health.postgres_contact("writes", there=True)
    assert health.report() == (200, {"status": "degraded", "reason": "Postgres does not answer (reads)"})
    assert not health.postgres_contact("writes", there=False)
    assert health.away == {"reads", "writes"}
    assert health.postgres_contact("reads", there=True)
    assert health.report() == (200, {"status": "degraded", "reason": "Postgres does not answer (writes)"})
    assert health.postgres_contact("writes", there=True)
    assert health.report() == (200, {"status": "ready"})


@pytest.mark.parametrize("pool", ["reads", "writes", "feed"])
def test_unreachable_pool_degrades_its_part_until_it_recovers(
    web: WebInThread, settings: Settings, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    """Probe from the process itself, without a caller; calls on other pools do not count as its recovery."""
    until_ready(web)
    inside: Web = web.app.state.web
    nudges: list[None] = []
    monkeypatch.setattr(inside.polls.recheck, "nudge", lambda: nudges.append(None))
    nowhere = settings.model_copy(update={"database_url": f"postgresql+psycopg://x:y@127.0.0.1:{own_port()}/z"})
    away = inside.pools[pool]
    engine, away._engine = away._engine, async_engine(nowhere)
    # A call in flight may still be answered over the old connections.
    pool_of_before = engine.pool
    assert isinstance(pool_of_before, QueuePool)
    eventually(lambda: pool_of_before.checkedout() == 0, what="the end of calls under way")
    reason(web)
    inside.health.postgres_contact(pool, there=False)
    eventually(lambda: f"Postgres does not answer ({pool})" in reason(web), what="the reason")
    if pool != "writes":
        for number in range(3):
            web.client.register(f"host-{number}")
        assert not nudges, "taken for its return"
        assert f"Postgres does not answer ({pool})" in reason(web)
    away._engine = engine
    eventually(lambda: "Postgres" not in reason(web), what="its return")
    assert bool(nudges) == (pool == "writes")


@pytest.fixture
def narrow(settings: Settings) -> Iterator[WebInThread]:
    """Start a web process with one connection for all writes."""
    changed = {
        "web_pool_size": 1,
        "pool_timeout_seconds": 0.2,
        "lock_timeout_seconds": 60,
        "statement_timeout_seconds": 60,
    }
    with served(settings.model_copy(update=changed)) as web:
        until_ready(web)
        yield web


def test_process_with_crowded_write_pool_keeps_its_heartbeat(narrow: WebInThread, db: DbVerbs) -> None:
    """Write it all the same, or the process and its polls would pass for dead."""
    seen = "SELECT seen_at FROM instances"
    with db.engine.begin() as holder:
        holder.execute(text("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE"))
        submission = narrow.client.meanwhile(narrow.client.submit)
        eventually(lambda: db.count("pg_locks", "NOT granted") > 0, what="a write that waits")
        heartbeats: list[object] = []

        def signed() -> bool:
            heartbeats.append(db.one(seen))
            return len(set(heartbeats)) > 2

        eventually(signed, 30, what="two more signs")
        assert not submission.done()
    assert "run_id" in str(submission.result(30))
