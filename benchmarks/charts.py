from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.figures import Measured

_SIZE: Final = (7.0, 3.6)


def points(measured: Measured, series: str) -> dict[int, tuple[float, float, float]]:
    found = {}
    for name in measured.repetitions[0]:
        kind, _, number = name.rpartition("_")
        if kind == series and number.isdigit():
            spread = measured.spread(name)
            found[int(number)] = (spread.least, spread.middle, spread.most)
    return dict(sorted(found.items()))


def draw(measured: Mapping[str, Measured], directory: Path) -> dict[str, str]:
    drawn = {}
    if "claim-behind-backlog" in measured:
        drawn["performance-backlog.svg"] = "Claim latency against the backlog that the runner may not take"
        _lines(
            directory / "performance-backlog.svg",
            measured["claim-behind-backlog"],
            {"p50": "median", "p99": "99th percentile"},
            labels=("pending runs in front (of 1,000 demand sets)", "ms from poll to answer"),
        )
    if "replicas" in measured:
        drawn["performance-replicas.svg"] = "Throughput against web processes, on one machine"
        _lines(
            directory / "performance-replicas.svg",
            measured["replicas"],
            {"submissions": "submissions, 32 clients", "lives": "full lives, 64 runners"},
            labels=("web processes", "runs/s"),
        )
    if "batch-sizes" in measured:
        drawn["performance-batches.svg"] = "Throughput against the number of runs in one request"
        _lines(
            directory / "performance-batches.svg",
            measured["batch-sizes"],
            {"submissions": "submissions, 8 clients", "lives": "full lives, 8 runners"},
            labels=("runs a request", "runs/s"),
        )
    return drawn


def _lines(path: Path, measured: Measured, series: Mapping[str, str], *, labels: Sequence[str]) -> None:
    # Equal figures give equal files, and text stays text.
    with rc_context({"svg.hashsalt": "coordinator", "svg.fonttype": "none", "axes.grid": True}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        steps: list[int] = []
        for name, label in series.items():
            found = points(measured, name)
            steps = max(steps, list(found), key=len)
            middles = [middle for _, middle, _ in found.values()]
            below = [middle - least for least, middle, _ in found.values()]
            above = [most - middle for _, middle, most in found.values()]
            axes.errorbar(range(len(found)), middles, yerr=[below, above], marker="o", capsize=3, label=label)
        axes.set_xticks(range(len(steps)), [f"{step:,}" for step in steps])
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.set_ylim(bottom=0)
        axes.legend()
        figure.savefig(path, metadata={"Date": None})
