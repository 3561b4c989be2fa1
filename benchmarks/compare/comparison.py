from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from benchmarks.figures import Figures, Spread, with_costs
from benchmarks.report import ASIDES, aligned, short, target
from benchmarks.rows import Row

NOTHING: Final = "-"
# Figures of one version by turn; None: the row failed.
Taken = Sequence[Figures | None]


@dataclass
class Comparison:
    before: str
    after: str
    taken: dict[str, tuple[list[Figures | None], list[Figures | None]]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def failed(self) -> list[str]:
        return [
            f"{row} at {version}"
            for row, versions in self.taken.items()
            for version, turns in zip((self.before, self.after), versions, strict=True)
            if None in turns
        ]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def present(rows: Sequence[str], before: Sequence[str], after: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the rows that both versions have, those that `before` lacks, and those that `after` lacks."""
    both = [row for row in rows if row in before and row in after]
    return both, [row for row in rows if row not in before], [row for row in rows if row not in after]


def turn_order(turn: int) -> tuple[int, int]:
    """Return the order of the two versions: each comes first in every other turn, since the machine's speed drifts."""
    return (0, 1) if turn % 2 == 0 else (1, 0)


def table(comparison: Comparison, rows: Mapping[str, Row]) -> str:
    lines: list[tuple[str, ...]] = [("row", "figure", comparison.before, comparison.after, "ratio", "target")]
    for name, versions in comparison.taken.items():
        shown = [_line(figure, versions, rows[name]) for figure in _figures(versions, rows[name])]
        lines += [(name if number == 0 else "", *line) for number, line in enumerate(shown)]
    notes = [f"not at {version}: {', '.join(missing)}" for version, missing in comparison.missing.items() if missing]
    return "\n".join([aligned(lines), *notes, *(f"failed: {what}" for what in comparison.failed)])


def _figures(versions: Sequence[Taken], row: Row) -> list[str]:
    named = [goal.figure for goal in row.goals] + [figure for figure, _ in row.besides]
    found = dict.fromkeys(name for turns in versions for figures in turns if figures for name in _costed(figures))
    if not named:
        named = [name for name in found if not name.startswith((*ASIDES, "ms"))]
    return [name for name in named if name in found]


def _line(figure: str, versions: Sequence[Taken], row: Row) -> tuple[str, ...]:
    before, after = (
        [None if figures is None else _costed(figures).get(figure) for figures in turns] for turns in versions
    )
    goals = [target(goal) for goal in row.goals if goal.figure == figure]
    return (figure, _spread(before), _spread(after), _ratio(before, after), *(goals or [""]))


def _costed(figures: Figures) -> Figures:
    return {**with_costs(figures), **figures} if "rate" in figures else figures


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return NOTHING
    spread = Spread.of(known)
    return f"{short(spread.middle)} ({short(spread.least)} to {short(spread.most)})"


def _ratio(before: Sequence[float | None], after: Sequence[float | None]) -> str:
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old is not None and new is not None]
    if not pairs or not all(old for old, _ in pairs):
        return NOTHING
    turns = [new / old for old, new in pairs]
    middle = median([new for _, new in pairs]) / median([old for old, _ in pairs])
    return f"{middle:.2f} ({min(turns):.2f} to {max(turns):.2f})"
