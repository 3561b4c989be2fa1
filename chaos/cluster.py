import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from sqlalchemy import Engine

from chaos import clock
from chaos.network import Network, network
from chaos.schedule import BALANCER, OURS, WEBS, WORKERS
from runtime.postgres import sync_engine
from runtime.processes import family
from runtime.settings import Settings
from testkit.ports import own_ports
from testkit.servers import OwnPostgres, OwnRedis, new_directory
from testkit.up_process import Up
from testkit.waiting import eventually

# Short time limits, so that minutes cover what takes an hour with the defaults.
SETTINGS = {
    "told_heartbeat_seconds": "4",
    "told_heartbeat_instance_seconds": "2",
    "stale_after_seconds": "8",
    "lost_after_seconds": "12",
    "claim_timeout_seconds": "5",
    "start_timeout_seconds": "20",
    "stop_timeout_seconds": "15",
    "orphan_after_seconds": "20",
    "no_match_timeout_seconds": "600",
    "poll_timeout_seconds": "10",
    "drain_seconds": "3",
    "graceful_shutdown_seconds": "2",
    "worker_grace_seconds": "5",
    "sse_heartbeat_seconds": "5",
    "stream_lifetime_seconds": "60",
    "log_level": "warning",
}


@dataclass
class ChaosCluster:
    """Cluster under test; its processes are found by name. ``engine`` bypasses the network, straight to Postgres."""

    up: Up
    postgres: OwnPostgres
    redis: OwnRedis
    to_postgres: Network
    to_redis: Network
    engine: Engine
    clocks: Path
    logs: Path

    @property
    def urls(self) -> list[str]:
        return self.up.urls

    @property
    def balancer(self) -> str:
        return self.up.balancer

    def process(self, name: str) -> psutil.Process | None:
        return self.up.process(name)

    def family(self, name: str) -> list[psutil.Process]:
        process = self.process(name)
        return [] if process is None else family([process])

    def server_family(self, name: str) -> list[psutil.Process]:
        server = self.postgres.server if name == "postgres" else self.redis.server
        with suppress(psutil.NoSuchProcess):
            return family([psutil.Process(server.pid)])
        return []

    def processes(self) -> dict[str, list[psutil.Process]]:
        return {name: self.family(name) for name in (*OURS, BALANCER)}

    def until_well(self, within: float) -> float:
        """Wait until every web process and the balancer report ready and not degraded; return the seconds it took.

        Raises AssertionError after `within` seconds.
        """
        begun = time.monotonic()
        eventually(self._is_well, within, every=0.2, what="a cluster that is well")
        return time.monotonic() - begun

    def _is_well(self) -> bool:
        with suppress(httpx.HTTPError):
            answers = [httpx.get(f"{url}/health/ready", timeout=2) for url in (*self.urls, self.balancer)]
            well = all(answer.status_code == 200 and answer.json().get("status") != "degraded" for answer in answers)
            return well and all(self.process(name) for name in (*OURS, BALANCER))
        return False


@contextmanager
def running_cluster(directory: Path, *, fast_paths: bool) -> Iterator[ChaosCluster]:
    with ExitStack() as held:
        postgres = OwnPostgres(new_directory(directory, "postgres"))
        held.callback(lambda: postgres.server.stop("immediate"))
        redis = OwnRedis(new_directory(directory, "redis"))
        held.callback(redis.kill)
        to_postgres = held.enter_context(network(postgres.url))
        to_redis = held.enter_context(network(redis.url))
        settings = Settings(
            database_url=postgres.url,
            redis_url=redis.url,
            statement_timeout_seconds=600,
            idle_in_transaction_seconds=600,
        )
        engine = sync_engine(settings, pool_size=6, name="chaos")
        held.callback(engine.dispose)
        clocks = clock.install(new_directory(directory, "clocks"))
        data = new_directory(directory, "up")
        port = own_ports(len(WEBS) + 1)
        replicas = ("--web", str(len(WEBS)), "--workers", str(len(WORKERS)), "--no-runner")
        environment = {f"COORDINATOR_{name.upper()}": value for name, value in SETTINGS.items()}
        environment["COORDINATOR_FAST_PATHS"] = str(int(fast_paths))
        servers = {"DATABASE_URL": to_postgres.url, "REDIS_URL": to_redis.url}
        balanced = ("--lb", "--lb-port", str(port + len(WEBS)))
        up = Up(data, port, *replicas, *balanced, PYTHONPATH=str(clocks), **servers, **environment)
        held.callback(up.end)
        cluster = ChaosCluster(up, postgres, redis, to_postgres, to_redis, engine, clocks, data / "logs")
        up.line("balancer: ")
        cluster.until_well(60)
        yield cluster


def signal_all(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
