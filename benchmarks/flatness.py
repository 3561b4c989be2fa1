from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg

from benchmarks import fill
from benchmarks.cluster import Cluster
from benchmarks.figures import Figures
from benchmarks.stage import Stage

DEPTHS = (0, 10_000, 100_000, 1_000_000)
DEMAND_SETS = 1000
# Claimed runs are never started here, and must not return to pending during the measurement.
NO_START_TIMEOUT = {"COORDINATOR_START_TIMEOUT_SECONDS": "86400"}

_STATEMENTS = """
    SELECT coalesce(sum(calls), 0),
        coalesce(sum(calls) FILTER (WHERE query !~* '^(begin|commit|rollback|set|reset|discard)'), 0)
    FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = 'measured'
"""


def claim_behind_backlog(stage: Stage) -> list[Figures]:
    depths = DEPTHS[:-1] if stage.quick else DEPTHS
    samples = 200 if stage.quick else 500
    tags = [f"other-{number}" for number in range(DEMAND_SETS)]
    repetitions: list[dict[str, float]] = [{} for _ in range(stage.repetitions)]
    with stage.cluster() as cluster:
        filled = 0
        for depth in depths:
            if depth > filled:
                fill.pending_runs(cluster.database_url, "b", filled + 1, depth, tags)
                filled = depth
            for number, figures in enumerate(repetitions):
                measured = stage.run(cluster, "claims", samples=samples, tag=f"mine-{depth}-{number}")
                figures.update({f"p50_{depth}": measured["p50"], f"p99_{depth}": measured["p99"]})
    for figures in repetitions:
        figures["deep"] = figures[f"p99_{depths[-1]}"] / figures["p99_0"]
        figures["deep_p50"] = figures[f"p50_{depths[-1]}"] / figures["p50_0"]
    return list(repetitions)


def claim_behind_history(stage: Stage) -> list[Figures]:
    ended = 50_000 if stage.quick else 1_000_000
    samples = 200 if stage.quick else 500
    repetitions: list[dict[str, float]] = [{} for _ in range(stage.repetitions)]
    for after, count in (("empty", 0), ("full", ended)):
        with stage.cluster() as cluster:
            if count:
                fill.ended_runs(cluster.database_url, count, "mine-full-0", events_each=10)
            for number, figures in enumerate(repetitions):
                measured = stage.run(cluster, "claims", samples=samples, tag=f"mine-{after}-{number}")
                figures.update({f"p50_{after}": measured["p50"], f"p99_{after}": measured["p99"]})
    for figures in repetitions:
        figures["deep"] = figures["p99_full"] / figures["p99_empty"]
        figures["deep_p50"] = figures["p50_full"] / figures["p50_empty"]
    return list(repetitions)


def delayed_runs(stage: Stage) -> list[Figures]:
    count = 20_000 if stage.quick else 100_000
    samples = 200 if stage.quick else 500
    with stage.cluster() as cluster:
        without = [stage.run(cluster, "claims", samples=samples, tag="mine") for _ in range(stage.repetitions)]
        fill.pending_runs(cluster.database_url, "d", 1, count, ["mine"], ready=False)
        beside = [stage.run(cluster, "claims", samples=samples, tag="mine") for _ in range(stage.repetitions)]
    return [
        {"ratio": after["p50"] / before["p50"], "without": before["p50"], "beside": after["p50"]}
        for before, after in zip(without, beside, strict=True)
    ]


def pinned_horizon(stage: Stage) -> list[Figures]:
    """Measure claims a second, one a poll, 16 runners: before, and while another transaction pins the xmin horizon and
    100 k runs have been claimed since it began. Nothing is reported, so that no other row changes.
    """
    claimed = 20_000 if stage.quick else 100_000
    seconds = stage.seconds
    with stage.cluster(settings=NO_START_TIMEOUT) as cluster:
        fill.pending_runs(cluster.database_url, "p", 1, 4 * claimed, ["pinned"])
        free = stage.repeat(cluster, "claim-rate", seconds=seconds, runners=16, batch=1, tag="pinned")
        with _pinned(cluster):
            while _claimed(cluster) < claimed:
                stage.run(cluster, "claim-rate", seconds=2, runners=4, batch=100, tag="pinned")
            held = stage.repeat(cluster, "claim-rate", seconds=seconds, runners=16, batch=1, tag="pinned")
    return [
        {"ratio": after["rate"] / before["rate"], "free": before["rate"], "pinned": after["rate"]}
        for before, after in zip(free, held, strict=True)
    ]


def parked_polls_idle(stage: Stage) -> list[Figures]:
    """Measure 5,000 polls of 600 s at two replicas.

    `web` is the CPU of both replicas together; `statements` the statements a second that each sent to Postgres, BEGIN
    and COMMIT included, without any worker.
    """
    count = 1000 if stage.quick else 5000
    seconds = 8 if stage.quick else 20
    repetitions = []
    for _ in range(stage.repetitions):
        with stage.cluster(workers=0) as cluster:
            figures = stage.run(
                cluster,
                "parked-polls",
                seconds=seconds,
                runner_ids=fill.runners(cluster.database_url, count),
                wait=600,
                spread=4,
                watch=lambda: _statements(cluster),
            )
            repetitions.append({**figures, "web": figures["cpu_web"], "statements": figures["all"] / cluster.web})
    return list(repetitions)


def parked_polls_turnover(stage: Stage) -> list[Figures]:
    """Measure 167 polls that begin and end each second: 5,000 of 30 s, quickly 1,000 of 6 s. `queries` counts those of
    a poll.
    """
    count, wait = (1000, 6) if stage.quick else (5000, 30)
    seconds = 8 if stage.quick else 20
    repetitions = []
    for _ in range(stage.repetitions):
        with stage.cluster(workers=0) as cluster:
            figures = stage.run(
                cluster,
                "parked-polls",
                seconds=seconds,
                runner_ids=fill.runners(cluster.database_url, count),
                wait=wait,
                spread=wait,
                watch=lambda: _statements(cluster),
            )
            queries = figures["queries"] / max(figures["rate"], 1)
            repetitions.append({**figures, "web": figures["cpu_web"], "queries": queries})
    return list(repetitions)


def heartbeats(stage: Stage) -> list[Figures]:
    with stage.cluster() as cluster:
        runner_ids = fill.runners(cluster.database_url, 10_000)
        repetitions = stage.repeat(cluster, "heartbeats", seconds=stage.seconds, runner_ids=runner_ids, every=10)
    return [{**figures, "postgres": figures["cpu_postgres"]} for figures in repetitions]


def memory(stage: Stage) -> list[Figures]:
    """Measure resident memory of a web process after 100,000 more finished runs, in percent of that after 10,000; of
    the replica that grew more. Once: a second time it would begin full.
    """
    first, last = (5000, 15_000) if stage.quick else (10_000, 110_000)
    with stage.cluster() as cluster:
        before = _resident_after(stage, cluster, first)
        after = _resident_after(stage, cluster, last)
    late, early = max(zip(after, before, strict=True), key=lambda pair: pair[0] / pair[1])
    return [{"growth": 100 * (late / early - 1), "before_mib": early / 2**20, "after_mib": late / 2**20}]


def _resident_after(stage: Stage, cluster: Cluster, finished: int) -> list[int]:
    while _count(cluster, "SELECT count(*) FROM runs WHERE status = 'completed'") < finished:
        stage.run(cluster, "lives", seconds=5, runners=8, batch=100)
    return [process.memory_info().rss for process in cluster.processes()["web"]]


def _claimed(cluster: Cluster) -> int:
    return _count(cluster, "SELECT count(*) FROM runs WHERE status = 'claimed'")


def _count(cluster: Cluster, query: LiteralString) -> int:
    with psycopg.connect(cluster.database_url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0


def _statements(cluster: Cluster) -> Figures:
    """Count the statements so far: all, and queries only. Reads from another database, so that it counts none of its
    own.
    """
    with psycopg.connect(cluster.servers.postgres.url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        row = connection.execute(_STATEMENTS).fetchone()
        return {"all": float(row[0]), "queries": float(row[1])} if row else {"all": 0.0, "queries": 0.0}


@contextmanager
def _pinned(cluster: Cluster) -> Iterator[None]:
    with psycopg.connect(cluster.database_url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT pg_current_xact_id(), count(*) FROM runs WHERE run_id = ''")
        yield
