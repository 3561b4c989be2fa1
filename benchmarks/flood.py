import subprocess

from benchmarks.cluster import Cluster
from benchmarks.figures import Figures
from benchmarks.stage import Stage, measured, started
from devserver.supervisor import ROOT, own_command

# By then the flood has used up its submissions of a minute.
_SETTLE_SECONDS = 3
_RATE = 20


def flood(stage: Stage) -> list[Figures]:
    seconds = 2 * stage.seconds
    repetitions = []
    with stage.cluster(settings={"COORDINATOR_AUTH": "1"}) as cluster:
        for number in range(stage.repetitions):
            alone = stage.run(cluster, "calm", seconds=seconds, token=key_of(cluster, f"alone-{number}"), rate=_RATE)
            calm, loud = (key_of(cluster, f"{name}-{number}") for name in ("calm", "loud"))
            job = {"urls": cluster.urls, "seconds": seconds + _SETTLE_SECONDS, "token": loud, "clients": 32}
            with started("flood", job) as flooding:
                beside = stage.run(cluster, "calm", seconds=seconds, token=calm, rate=_RATE, warm_up=_SETTLE_SECONDS)
                flooded = measured("flood", flooding)
            repetitions.append(
                {
                    "ratio": beside["p99"] / alone["p99"],
                    "flood_rate": flooded["rate"],
                    "flood_refused": flooded["refused"],
                    **{f"alone_{name}": value for name, value in alone.items()},
                    **{f"beside_{name}": value for name, value in beside.items()},
                }
            )
    return list(repetitions)


def key_of(cluster: Cluster, owner: str | None) -> str:
    """Create a key of a user, or of an administrator if no owner is given."""
    role = ["--role", "admin"] if owner is None else ["--role", "user", "--owner", owner]
    made = subprocess.run(
        own_command("keys", "create", *role),
        env=cluster.child_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout.strip()
