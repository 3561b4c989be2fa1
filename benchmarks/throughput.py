from collections.abc import Callable

from benchmarks import wal
from benchmarks.cluster import Cluster
from benchmarks.figures import Figures, with_costs
from benchmarks.stage import Stage

Measure = Callable[[Stage], list[Figures]]
BATCHES = (1, 10, 100, 1000)
REPLICAS = (1, 2, 4)


def submissions(stage: Stage) -> list[Figures]:
    with stage.cluster() as cluster:
        return stage.repeat(cluster, "submissions", seconds=stage.seconds, clients=32)


def submissions_batch(stage: Stage) -> list[Figures]:
    with stage.cluster() as cluster:
        return stage.repeat(cluster, "submissions", seconds=stage.seconds, clients=8, batch=100)


def lives(runners: int, batch: int = 1) -> Measure:
    """Return the measurement of claim, started and completed by so many runners, with so many runs a request.

    Its figures include the CPU and the WAL of a life, those of its submission too: as many are submitted as end.
    """

    def measure(stage: Stage) -> list[Figures]:
        with stage.cluster() as cluster:
            return [_lives(stage, cluster, runners, batch) for _ in range(stage.repetitions)]

    return measure


def _lives(stage: Stage, cluster: Cluster, runners: int, batch: int) -> Figures:
    wal.checkpoint(cluster)
    figures = stage.run(
        cluster,
        "lives",
        seconds=stage.seconds,
        runners=runners,
        batch=batch,
        watch=lambda: wal.position(cluster),
    )
    return {**with_costs(figures), **wal.kib_each(cluster, figures)}


def submit_to_runner(stage: Stage) -> list[Figures]:
    with stage.cluster() as cluster:
        return stage.repeat(cluster, "submit-to-runner", samples=100 if stage.quick else 300)


def submit_to_runner_without_redis(stage: Stage) -> list[Figures]:
    with stage.cluster() as cluster:
        stage.servers.redis.kill()
        try:
            return stage.repeat(cluster, "submit-to-runner", samples=8 if stage.quick else 15, uncounted=2)
        finally:
            stage.servers.start_redis()


def stop_to_runner(stage: Stage) -> list[Figures]:
    with stage.cluster() as cluster:
        return stage.repeat(cluster, "stop-to-runner", samples=100 if stage.quick else 300)


def replicas(stage: Stage) -> list[Figures]:
    repetitions: list[dict[str, float]] = [{} for _ in range(stage.repetitions)]
    for web in REPLICAS:
        with stage.cluster(web=web) as cluster:
            for figures in repetitions:
                figures[f"lives_{web}"] = stage.run(cluster, "lives", seconds=stage.seconds / 2, runners=64)["rate"]
                measured = stage.run(cluster, "submissions", seconds=stage.seconds / 2, clients=32)
                figures[f"submissions_{web}"] = measured["rate"]
    return list(repetitions)


def batch_sizes(stage: Stage) -> list[Figures]:
    repetitions: list[dict[str, float]] = [{} for _ in range(stage.repetitions)]
    with stage.cluster() as cluster:
        for figures in repetitions:
            for batch in BATCHES:
                seconds = stage.seconds / 2
                submitted = stage.run(cluster, "submissions", seconds=seconds, clients=8, batch=batch)
                figures[f"submissions_{batch}"] = submitted["rate"]
        # Runs submitted so far would be a head start that later sizes do not have.
    with stage.cluster() as cluster:
        for figures in repetitions:
            for batch in BATCHES[:-1]:
                lived = stage.run(cluster, "lives", seconds=stage.seconds / 2, runners=8, batch=batch)
                figures[f"lives_{batch}"] = lived["rate"]
    return list(repetitions)
