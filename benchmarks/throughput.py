"""Rows about rates and latencies that begin with an empty database."""

from collections.abc import Callable

from benchmarks.figures import Figures
from benchmarks.stage import Stage

Measure = Callable[[Stage], list[Figures]]
BATCHES = (1, 10, 100, 1000)
REPLICAS = (1, 2, 4)


def submissions(stage: Stage) -> list[Figures]:
    """Measure one run a request, 32 clients."""
    with stage.cluster() as cluster:
        return stage.repeat(cluster, "submissions", seconds=stage.seconds, clients=32)


def submissions_batch(stage: Stage) -> list[Figures]:
    """Measure a hundred runs a request, 8 clients."""
    with stage.cluster() as cluster:
        return stage.repeat(cluster, "submissions", seconds=stage.seconds, clients=8, batch=100)


def lives(runners: int, batch: int = 1) -> Measure:
    """Return the measurement of claim, started and completed by so many runners, with so many runs a request."""

    def measure(stage: Stage) -> list[Figures]:
        with stage.cluster() as cluster:
            return stage.repeat(cluster, "lives", seconds=stage.seconds, runners=runners, batch=batch)

    return measure


def submit_to_runner(stage: Stage) -> list[Figures]:
    with stage.cluster() as cluster:
        return stage.repeat(cluster, "submit-to-runner", samples=100 if stage.quick else 300)


def submit_to_runner_without_redis(stage: Stage) -> list[Figures]:
    """Measure the same after Redis was killed."""
    with stage.cluster() as cluster:
        stage.servers.redis.kill()
        try:
            return stage.repeat(cluster, "submit-to-runner", samples=8 if stage.quick else 15, uncounted=2)
        finally:
            stage.servers.start_redis()


def stop_to_runner(stage: Stage) -> list[Figures]:
    with stage.cluster() as cluster:
        return stage.repeat(cluster, "stop-to-runner", samples=100 if stage.quick else 300)


def event_to_client(stage: Stage) -> list[Figures]:
    """Measure 100 events a second, 50 clients."""
    with stage.cluster() as cluster:
        return stage.repeat(cluster, "event-to-client", seconds=stage.seconds, clients=50, rate=100)


def feed_1000_clients(stage: Stage) -> list[Figures]:
    """Measure 20 events a second, 1,000 clients of one process; `kib` is the growth of that process for each
    connection.
    """
    clients = 1000
    with stage.cluster(web=1) as cluster:

        def resident() -> Figures:
            return {"resident": sum(process.memory_info().rss for process in cluster.processes()["web"])}

        repetitions: list[dict[str, float]] = []
        for _ in range(stage.repetitions):
            before = resident()["resident"]
            figures = stage.run(
                cluster, "event-to-client", seconds=stage.seconds, clients=clients, rate=20, watch=resident
            )
            # Later repetitions reuse the memory of the first one, and would show less than a connection takes.
            grown = figures["first_resident"] - before
            kib = repetitions[0]["kib"] if repetitions else grown / 1024 / clients
            repetitions.append({**figures, "kib": kib})
        return list(repetitions)


def replicas(stage: Stage) -> list[Figures]:
    """Measure lives of 64 runners with 1, 2 and 4 web processes."""
    repetitions: list[dict[str, float]] = [{} for _ in range(stage.repetitions)]
    for web in REPLICAS:
        with stage.cluster(web=web) as cluster:
            for figures in repetitions:
                figures[f"lives_{web}"] = stage.run(cluster, "lives", seconds=stage.seconds / 2, runners=64)["rate"]
                measured = stage.run(cluster, "submissions", seconds=stage.seconds / 2, clients=32)
                figures[f"submissions_{web}"] = measured["rate"]
    return list(repetitions)


def batch_sizes(stage: Stage) -> list[Figures]:
    """Measure submissions of 1 to 1,000 runs a request, 8 clients; lives of 1 to 100, 8 runners."""
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
