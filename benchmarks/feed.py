import resource
from pathlib import Path
from typing import Final

from benchmarks.figures import Figures, with_costs
from benchmarks.stage import LoadFailed, Stage

# Files of a process besides its streams: connections to Postgres, Redis and the replicas, libraries, pipes.
_OTHER_FILES: Final = 200
_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def event_to_client(stage: Stage) -> list[Figures]:
    with stage.cluster() as cluster:
        return stage.repeat(cluster, "event-to-client", seconds=stage.seconds, clients=50, rate=100)


def feed_1000_clients(stage: Stage) -> list[Figures]:
    return [_streams(stage, 1, "event-to-client", clients=1000, rate=20) for _ in range(stage.repetitions)]


def feed_10000_clients(stage: Stage) -> list[Figures]:
    """Measure 5 events a second, 10,000 clients of two processes, quickly 500.

    Raises LoadFailed if the system allows no process so many.
    """
    clients, web = 500 if stage.quick else 10_000, 2
    if short := shortage(clients, web, files=resource.getrlimit(resource.RLIMIT_NOFILE)[0], ports=_local_ports()):
        raise LoadFailed(short)
    return [_streams(stage, web, "event-to-crowd", clients=clients, rate=5) for _ in range(stage.repetitions)]


def shortage(clients: int, web: int, *, files: int, ports: int) -> str:
    needed = clients + _OTHER_FILES
    if files < needed:
        return f"{clients:,} streams in one process need {needed:,} open files; the limit is {files:,} (ulimit -Hn)"
    # A local port serves a connection to each replica at once.
    share = -(-clients // web)
    if ports < share:
        return f"{clients:,} streams to {web} replicas need {share:,} local ports; there are {ports:,} ({_PORTS})"
    return ""


def _local_ports() -> int:
    if not _PORTS.exists():
        return 2**16
    first, last = map(int, _PORTS.read_text().split())
    return last - first + 1


def _streams(stage: Stage, web: int, load: str, *, clients: int, rate: float) -> Figures:
    """Measure one load of streams on new processes; `kib` is their growth, and `us_web` their CPU, for each connection
    and each delivery.
    """
    with stage.cluster(web=web) as cluster:

        def resident() -> Figures:
            return {"resident": sum(process.memory_info().rss for process in cluster.processes()["web"])}

        before = resident()["resident"]
        figures = with_costs(
            stage.run(cluster, load, seconds=stage.seconds, clients=clients, rate=rate, watch=resident)
        )
        costs = {f"us_{part}": 1000 * figures[f"ms_{part}"] for part in ("web", "generator")}
        return {**figures, **costs, "kib": (figures["first_resident"] - before) / 1024 / clients}
