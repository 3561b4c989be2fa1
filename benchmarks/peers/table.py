from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.peers.roster import Guarantees
from benchmarks.report import short

Figures = Mapping[str, float]
HEADINGS = (
    "product",
    "version",
    "submissions/s",
    "whole lives/s",
    "submit to start, p50 ms",
    "CPU ms a life",
    "durable",
    "fenced owner",
    "ordered history",
    "cancel",
    "remote runners over HTTP",
)
# Longer reasons are cut in the table; they are below it in full.
MOST_CELL = 60
FIGURES = ("submissions", "lives", "start_p50_ms", "cpu_ms_a_life")


@dataclass
class Compared:
    version: str
    setup: str
    guarantees: Guarantees
    visits: list[Figures] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def table(compared: Mapping[str, Compared]) -> str:
    lines = [HEADINGS, *(_cells(name, product) for name, product in compared.items())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    head, *rows = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    notes = [f"- {name}: {product.setup}" for name, product in compared.items()]
    failed = [f"- {name}: FAILED: {failure}" for name, product in compared.items() for failure in product.failures]
    return "\n".join([head, rule, *rows, "", *failed, *notes])


def _cells(name: str, product: Compared) -> tuple[str, ...]:
    known = product.guarantees
    answers = (known.durable, known.fenced, known.history, known.cancel, known.remote)
    return (name, product.version, *_figures(product.visits, product.failures), *answers)


def _figures(visits: Sequence[Figures], failures: Sequence[str]) -> list[str]:
    if not visits:
        return [f"FAILED: {failures[0]}"[:MOST_CELL] if failures else "not measured", "", "", ""]
    cells = []
    for figure in FIGURES:
        values = [visit[figure] for visit in visits]
        ends = f" ({short(min(values))} to {short(max(values))})" if len(values) > 1 else ""
        cells.append(f"{short(median(values))}{ends}")
    return cells
