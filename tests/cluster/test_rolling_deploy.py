"""Promise 4: every web and worker process is replaced under load, and no client, none of which repeats anything, notices."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from runtime.settings import Settings
from tests.support.following import all_numbered, head, ledger, told
from tests.support.servers import new_directory
from tests.support.traffic import Traffic
from tests.support.traffic_streams import Streams
from tests.support.up import Up, free_ports
from tests.support.verdict import assert_nothing_lost_or_doubled, finish, reports_refused
from tests.support.waiting import eventually

REPLICAS = ("web-1", "web-2", "worker-1", "worker-2")
WATCHING, SILENT, PARKED = 3, 22, 25
ENVIRONMENT = {"COORDINATOR_DRAIN_SECONDS": "4", "COORDINATOR_SSE_HEARTBEAT_SECONDS": "2"}


@pytest.fixture
def up(scratch: Path, settings: Settings) -> Iterator[Up]:
    """Two web and two worker processes behind a balancer, on this test's servers."""
    port = free_ports(3)
    servers = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    arguments = ("--web", "2", "--workers", "2", "--no-runner", "--lb", "--lb-port", str(port + 2))
    up = Up(new_directory(scratch, "up"), port, *arguments, **servers, **ENVIRONMENT)
    yield up
    up.end()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", ["through the balancer", "at each address"])
def test_a_rolling_deploy_fails_no_request_loses_nothing_and_doubles_nothing(up: Up, engine: Engine, way: str) -> None:
    """Submissions, reads, polls and reports go on all the time, and every stream tells what the database has."""
    urls = [up.balancer] if way == "through the balancer" else up.urls
    former = {name: up.running(name).pid for name in REPLICAS}
    queries: list[dict[str, str]] = [{}] * WATCHING + [{"session_id": "nobody"}] * SILENT
    with (
        Streams(urls, queries) as streams,
        Traffic(urls, keyed=False, readers=2, idle=PARKED, poll_seconds=20, pace=0.04) as traffic,
    ):
        traffic.until_completed(20)
        deployed = up.rolling_deploy()
        traffic.until_completed(20)
        finish(traffic, engine)
        eventually(lambda: all_numbered(engine), what="positions")
        streams.until_at(head(engine))

    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert all(up.running(name).pid != pid for name, pid in former.items())
    assert traffic.ledger.failed() == {}
    assert streams.faults == []
    assert reports_refused(traffic.ledger) == []
    assert_nothing_lost_or_doubled(engine, traffic.ledger)
    history = ledger(engine)
    for stream in streams.all[:WATCHING]:
        assert told(stream.events) == history
    assert not any(stream.events for stream in streams.all[WATCHING:])
    # None was on a process that is gone.
    assert all(stream.connections > 1 for stream in streams.all)
