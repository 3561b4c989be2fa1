"""The rows of the table: what is measured, and what it should come to (PERFORMANCE, Targets)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scripts.benchmarks.figures import Figures, Goal
from scripts.benchmarks.stage import Stage

Measure = Callable[[Stage], list[Figures]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the targets; ``measure`` returns the figures of each repetition."""

    name: str
    what: str
    goals: tuple[Goal, ...]
    measure: Measure


def submissions(stage: Stage) -> list[Figures]:
    """One run a request, 32 clients."""
    with stage.cluster() as cluster:
        return [stage.run(cluster, "submissions", seconds=stage.seconds, clients=32) for _ in range(stage.repetitions)]


def submissions_batch(stage: Stage) -> list[Figures]:
    """A hundred runs a request, 8 clients."""
    with stage.cluster() as cluster:
        return [
            stage.run(cluster, "submissions", seconds=stage.seconds, clients=8, batch=100)
            for _ in range(stage.repetitions)
        ]


def _lives(runners: int, batch: int = 1) -> Measure:
    def measure(stage: Stage) -> list[Figures]:
        with stage.cluster() as cluster:
            return [
                stage.run(cluster, "lives", seconds=stage.seconds, runners=runners, batch=batch)
                for _ in range(stage.repetitions)
            ]

    return measure


def submit_to_runner(stage: Stage) -> list[Figures]:
    """An idle fleet of 20."""
    samples = 100 if stage.quick else 300
    with stage.cluster() as cluster:
        return [stage.run(cluster, "submit-to-runner", samples=samples) for _ in range(stage.repetitions)]


def event_to_client(stage: Stage) -> list[Figures]:
    """100 events a second, 50 clients."""
    with stage.cluster() as cluster:
        return [
            stage.run(cluster, "event-to-client", seconds=stage.seconds, clients=50, rate=100)
            for _ in range(stage.repetitions)
        ]


ROWS: Final = (
    Row(
        "submissions",
        "submissions, one run a request, 32 clients",
        (Goal("rate", ">=", 1500, "runs/s"), Goal("p99", "<=", 80, "ms")),
        submissions,
    ),
    Row(
        "submissions-batch",
        "submissions through /runs/batch, 100 a request, 8 clients",
        (Goal("rate", ">=", 8000, "runs/s"),),
        submissions_batch,
    ),
    Row(
        "lives-64",
        "full life of a run, one a request (poll, started, completed), 64 runners",
        (Goal("rate", ">=", 1000, "lives/s"),),
        _lives(64),
    ),
    Row("lives-16", "the same, 16 runners", (Goal("rate", ">=", 500, "lives/s"),), _lives(16)),
    Row(
        "lives-batched",
        "full life of a run, batched protocol (max=100, /runner/runs/report), 8 runners",
        (Goal("rate", ">=", 4000, "lives/s"),),
        _lives(8, 100),
    ),
    Row(
        "submit-to-runner",
        "submission at one replica to the poll's answer at the other, idle fleet",
        (Goal("p50", "<=", 8, "ms"), Goal("p99", "<=", 25, "ms")),
        submit_to_runner,
    ),
    Row(
        "event-to-client",
        "event posted at one replica to 50 clients at the other, 100 events/s",
        (Goal("p50", "<=", 8, "ms"), Goal("p99", "<=", 25, "ms"), Goal("lost", "<=", 0, "frames")),
        event_to_client,
    ),
)
