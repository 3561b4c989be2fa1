from contextlib import suppress
from dataclasses import dataclass

import psutil
from sqlalchemy import text

from chaos.cluster import ChaosCluster
from chaos.schedule import OURS
from chaos.verdict import Verdict
from runtime.redis_client import sync_client

_CONNECTIONS = text("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'coordinator%'")
_MIB = 1024 * 1024
# Allowed growth, MiB and connections. A web process keeps up to 16 MiB of frames (and their objects) for its streams,
# pools fill under load.
_MORE_MEMORY, _MORE_CONNECTIONS = 96, 15


@dataclass(frozen=True)
class Usage:
    memory: dict[str, int]
    postgres: int
    redis: int
    processes: dict[str, int]

    def __str__(self) -> str:
        memory = ", ".join(f"{name} {mib}" for name, mib in self.memory.items())
        return f"MiB: {memory}; connections: Postgres {self.postgres}, Redis {self.redis}"


def usage(cluster: ChaosCluster) -> Usage:
    families = {name: cluster.family(name) for name in OURS}
    client = sync_client(cluster.redis.url, answer_timeout=10)
    try:
        connected = int(client.info("clients")["connected_clients"])
    finally:
        client.close()
    with cluster.engine.connect() as connection:
        postgres = int(connection.execute(_CONNECTIONS).scalar_one())
    memory = {name: sum(map(_memory, members)) // _MIB for name, members in families.items()}
    return Usage(memory, postgres, connected, {name: len(members) for name, members in families.items()})


def _memory(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def judge_usage(before: Usage, after: Usage) -> Verdict:
    findings = [
        f"{name} had {before.memory[name]} MiB, has {mib}"
        for name, mib in after.memory.items()
        if mib > before.memory[name] + _MORE_MEMORY
    ]
    for server, then, now in (("Postgres", before.postgres, after.postgres), ("Redis", before.redis, after.redis)):
        if now > then + _MORE_CONNECTIONS:
            findings.append(f"{then} connections to {server} have become {now}")
    if after.processes != before.processes:
        findings.append(f"processes: {before.processes} have become {after.processes}")
    return Verdict(
        "Memory, connections and processes are back at their level", f"before {before}; after {after}", findings
    )
