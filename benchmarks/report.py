from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.figures import Goal, GoalResult, Measured
from benchmarks.rows import ROWS, Row

HEADINGS = (
    "row",
    "figure",
    "target",
    "met",
    "least / most",
    "raw limit",
    "of it",
    "CPU, % of one core",
    "load before",
    "bare web before",
    "taken",
)
# Readings that explain a goal and are no figures of their own.
ASIDES = ("cpu_", "first_", "last_")


@dataclass
class Results:
    machine: Mapping[str, str]
    generator: Mapping[str, float]
    measured: dict[str, Measured] = field(default_factory=dict)


def line_of(row: Row) -> str:
    return f"{row.name:<32} {', '.join(map(target, row.goals)):<58} {row.what}"


def fact_lines(results: Results) -> list[str]:
    shown = {**results.machine, "generator": cost_line(results.generator)}
    return [f"{name:<10} {value}" for name, value in shown.items()]


def cost_line(own: Mapping[str, float]) -> str:
    cost, most = own["microseconds"], short(own["rate"])
    return f"{cost:.0f} µs of CPU a request, {most} requests/s against a server that does nothing"


def cells(row: Row, measured: Measured) -> list[tuple[str, ...]]:
    lines = [_judged(verdict) for verdict in measured.verdicts(row.goals)]
    lines += [_plain(measured, name, unit) for name, unit in row.besides]
    if not row.goals:
        lines = [_plain(measured, name) for name in measured.repetitions[0] if not name.startswith(ASIDES)]
    cpu = ", ".join(f"{name} {share:.0f}" for name, share in measured.cpu.items())
    pace = short(measured.pace_before) if measured.pace_before else ""
    first, *others = lines
    return [
        (row.name, *first, cpu, f"{measured.load_before:.1f}", pace, _taken(measured)),
        *(("", *other, "", "", "", "") for other in others),
    ]


def all_cells(results: Results) -> list[tuple[str, ...]]:
    return [line for row in ROWS if row.name in results.measured for line in cells(row, results.measured[row.name])]


def table(results: Results) -> str:
    return aligned([HEADINGS, *all_cells(results)])


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def short(value: float) -> str:
    if value and abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def target(goal: Goal) -> str:
    return f"{goal.figure} {goal.sense} {goal.target:,g} {goal.unit}"


def _judged(verdict: GoalResult) -> tuple[str, ...]:
    goal, spread = verdict.goal, verdict.spread
    return (
        f"{goal.figure} {short(spread.middle)} {goal.unit}",
        target(goal),
        "yes" if verdict.met else "NO",
        f"{short(spread.least)} / {short(spread.most)}",
        "" if verdict.limit is None else short(verdict.limit),
        "" if verdict.ratio is None else f"{verdict.ratio:.2f}",
    )


def _plain(measured: Measured, name: str, unit: str = "") -> tuple[str, ...]:
    spread = measured.spread(name)
    ends = f"{short(spread.least)} / {short(spread.most)}"
    return (f"{name} {short(spread.middle)} {unit}".rstrip(), "", "", ends, "", "")


def _taken(measured: Measured) -> str:
    times = len(measured.repetitions)
    return f"{times} x{', quick' if measured.quick else ''}"
