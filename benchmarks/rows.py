from dataclasses import dataclass
from typing import Any, Final

from benchmarks import console_reads, feed, flatness, flood, throughput
from benchmarks.figures import Goal, Measured
from benchmarks.throughput import Measure


@dataclass(frozen=True, slots=True)
class Row:
    """Row of the table. ``measure`` returns the figures of each repetition; ``raw`` and ``raw_with`` name the raw-limit
    load that goals with a ``limit`` are compared with. ``besides`` names figures that are shown without a target, each
    with its unit.
    """

    name: str
    what: str
    goals: tuple[Goal, ...]
    measure: Measure
    raw: str = ""
    raw_with: tuple[tuple[str, Any], ...] = ()
    besides: tuple[tuple[str, str], ...] = ()

    def is_complete(self, measured: Measured) -> bool:
        wanted = {goal.figure for goal in self.goals} | {name for name, _ in self.besides}
        return all(wanted <= figures.keys() for figures in measured.repetitions)


def _per_second(target: float, unit: str) -> tuple[Goal, ...]:
    return (Goal("rate", ">=", target, unit, "rate"),)


def _within(p50: float, p99: float, limit: tuple[str, str] = ("p50", "p99")) -> tuple[Goal, ...]:
    return (Goal("p50", "<=", p50, "ms", limit[0]), Goal("p99", "<=", p99, "ms", limit[1]))


_WAL = Goal("wal", "<=", 9, "KiB a life")
_COSTS = (
    *((f"ms_{part}", "ms CPU a life") for part in ("web", "workers", "postgres", "redis", "generator")),
    ("wal_images", "KiB a life"),
)
_DELIVERY = tuple((f"us_{part}", "µs CPU a frame") for part in ("web", "generator"))

ROWS: Final = (
    Row(
        "submissions",
        "submissions, one run a request, 32 clients",
        (*_per_second(2500, "runs/s"), Goal("p99", "<=", 80, "ms")),
        throughput.submissions,
        "raw-submissions",
        (("connections", 8), ("batch", 1)),
    ),
    Row(
        "submissions-batch",
        "submissions through /runs/batch, 100 a request, 8 clients",
        _per_second(20_000, "runs/s"),
        throughput.submissions_batch,
        "raw-submissions",
        (("connections", 2), ("batch", 100)),
    ),
    Row(
        "lives-64",
        "full life of a run, one a request (poll, started, completed), 64 runners",
        (*_per_second(1000, "lives/s"), Goal("ms", "<=", 1.6, "ms CPU a life"), _WAL),
        throughput.lives(64),
        "raw-lives",
        (("connections", 8), ("batch", 1)),
        _COSTS,
    ),
    Row(
        "lives-16",
        "the same, 16 runners",
        (*_per_second(500, "lives/s"), _WAL),
        throughput.lives(16),
        "raw-lives",
        (("connections", 8), ("batch", 1)),
        (("ms", "ms CPU a life"), *_COSTS),
    ),
    Row(
        "lives-batched",
        "full life of a run, batched protocol (max=100, /runner/runs/report), 8 runners",
        (*_per_second(4000, "lives/s"), _WAL),
        throughput.lives(8, 100),
        "raw-lives",
        (("connections", 2), ("batch", 100)),
        (("ms", "ms CPU a life"), *_COSTS),
    ),
    Row(
        "submit-to-runner",
        "submission at one replica to the poll's answer at the other, idle fleet of 20",
        _within(8, 20),
        throughput.submit_to_runner,
        "raw-hand-over",
    ),
    Row(
        "submit-to-runner-without-redis",
        "the same with Redis stopped",
        (Goal("p99", "<=", 2500, "ms"),),
        throughput.submit_to_runner_without_redis,
    ),
    Row(
        "stop-to-runner",
        "stop at one replica to the answer of the runner's poll at the other, idle fleet of 20",
        _within(8, 40, ("", "")),
        throughput.stop_to_runner,
    ),
    Row(
        "event-to-client",
        "event posted at one replica to 50 clients at the other, 100 events/s",
        (*_within(6, 15), Goal("lost", "<=", 0, "frames")),
        feed.event_to_client,
        "raw-events",
    ),
    Row(
        "feed-1000-clients",
        "1,000 clients of one process, 20 events/s to all",
        (Goal("lost", "<=", 0, "frames"), Goal("p99", "<=", 150, "ms"), Goal("kib", "<=", 80, "KiB a connection")),
        feed.feed_1000_clients,
        besides=_DELIVERY,
    ),
    Row(
        "feed-10000-clients",
        "10,000 clients of two processes, 5 events/s to all, each client's positions without a gap",
        (
            Goal("lost", "<=", 0, "frames"),
            Goal("gaps", "<=", 0, "frames"),
            Goal("p99", "<=", 1000, "ms"),
            Goal("kib", "<=", 60, "KiB a connection"),
        ),
        feed.feed_10000_clients,
        besides=_DELIVERY,
    ),
    Row(
        "claim-behind-backlog",
        "claim p99 behind 1 M pending runs of 1,000 demand sets the runner does not satisfy, as a multiple of empty",
        (Goal("deep", "<=", 1.5, "x p99"), Goal("deep_p50", "<=", 1.5, "x p50")),
        flatness.claim_behind_backlog,
    ),
    Row(
        "claim-behind-history",
        "claim p99 after 1 M runs have ended, with 10 M events of history, as a multiple of an empty database",
        (Goal("deep", "<=", 1.5, "x p99"), Goal("deep_p50", "<=", 1.5, "x p50")),
        flatness.claim_behind_history,
    ),
    Row(
        "parked-polls-idle",
        "5,000 parked polls, none begins or ends, two replicas together",
        (Goal("web", "<=", 5, "% of a core"), Goal("statements", "<=", 5, "/s a replica")),
        flatness.parked_polls_idle,
    ),
    Row(
        "parked-polls-turnover",
        "the same with 167 that begin and end each second",
        (Goal("web", "<=", 35, "% of a core"), Goal("queries", "<=", 1.5, "a poll")),
        flatness.parked_polls_turnover,
    ),
    Row(
        "heartbeats",
        "10,000 runners that beat every 10 s, Postgres",
        (Goal("postgres", "<=", 15, "% of a core"), Goal("rate", ">=", 950, "beats/s")),
        flatness.heartbeats,
    ),
    Row(
        "memory",
        "growth of a web process over 100,000 finished runs",
        (Goal("growth", "<=", 5, "%"),),
        flatness.memory,
    ),
    Row(
        "pinned-horizon",
        "claims a second with the xmin horizon pinned for 100 k claims, as a share of those without",
        (Goal("ratio", ">=", 0.6, "x free"),),
        flatness.pinned_horizon,
    ),
    Row(
        "delayed-runs",
        "claim p50 beside 100 k delayed runs of the same demands, as a multiple of without",
        (Goal("ratio", "<=", 1.2, "x without"),),
        flatness.delayed_runs,
    ),
    Row(
        "flood",
        "p99 of a calm caller's requests beside a caller who floods with 32 connections, as a multiple of alone",
        (Goal("ratio", "<=", 2, "x p99"),),
        flood.flood,
    ),
    Row(
        "console-reads",
        "slowest call of the console, `top` and a scraper behind 10 M ended and 200,000 unfinished runs",
        (Goal("p95", "<=", 50, "ms"),),
        console_reads.console_reads,
        besides=(("p50", "ms"),),
    ),
    Row(
        "replicas", "lives and submissions with 1, 2 and 4 web processes (a chart, no target)", (), throughput.replicas
    ),
    Row("batch-sizes", "lives and submissions by batch size (a chart, no target)", (), throughput.batch_sizes),
)
