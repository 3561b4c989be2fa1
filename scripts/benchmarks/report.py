"""What the benchmark says: a table for people."""

from collections.abc import Sequence

from scripts.benchmarks.figures import Goal, Measured, Verdict
from scripts.benchmarks.rows import Row

HEADINGS = ("row", "figure", "target", "met", "least / most", "of the raw limit", "CPU % of one core", "load before")


def line_of(row: Row) -> str:
    """The row as `--list` shows it."""
    return f"{row.name:<32} {', '.join(_target(goal) for goal in row.goals):<44} {row.what}"


def cells(row: Row, measured: Measured) -> list[tuple[str, ...]]:
    """The row's lines of the table: one for each goal, the CPU on the first."""
    cpu = " ".join(f"{name} {share:.0f}" for name, share in measured.cpu.items())
    lines: list[tuple[str, ...]] = []
    for number, verdict in enumerate(measured.verdicts(row.goals)):
        first = number == 0
        lines.append(
            (
                row.name if first else "",
                _figure(verdict),
                _target(verdict.goal),
                "yes" if verdict.met else "NO",
                f"{short(verdict.spread.least)} / {short(verdict.spread.most)}",
                "" if verdict.ratio is None else f"{verdict.ratio:.2f}",
                cpu if first else "",
                f"{measured.load_before:.1f}" if first else "",
            )
        )
    return lines


def table(rows: Sequence[tuple[Row, Measured]]) -> str:
    """All rows, in columns as wide as they need."""
    lines = [HEADINGS, *(line for row, measured in rows for line in cells(row, measured))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def short(value: float) -> str:
    """A figure with as many digits as mean something."""
    if value and abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def _figure(verdict: Verdict) -> str:
    return f"{verdict.goal.figure} {short(verdict.spread.middle)} {verdict.goal.unit}"


def _target(goal: Goal) -> str:
    return f"{goal.figure} {goal.sense} {short(goal.target)} {goal.unit}"
