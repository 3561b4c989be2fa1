from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Goal:
    """Target of one figure of a row. ``figure`` is its key in the load's measurements.

    ``limit`` is the key of the raw limit's figure that it is compared with; empty: none.
    """

    figure: str
    sense: Literal[">=", "<="]
    target: float
    unit: str
    limit: str = ""

    def met_by(self, value: float) -> bool:
        return value >= self.target if self.sense == ">=" else value <= self.target


@dataclass(frozen=True, slots=True)
class Spread:
    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(min(values), median(values), max(values))


@dataclass(frozen=True, slots=True)
class GoalResult:
    goal: Goal
    spread: Spread
    limit: float | None = None

    @property
    def met(self) -> bool:
        return self.goal.met_by(self.spread.middle)

    @property
    def ratio(self) -> float | None:
        return self.spread.middle / self.limit if self.limit else None


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of one row: its repetitions, the raw limit's figures, CPU shares by part, and, taken before it
    began, the load average of the machine and its pace (``machine.pace``). ``quick`` ones were smaller and shorter.
    """

    repetitions: Sequence[Figures]
    limit: Figures = field(default_factory=dict)
    cpu: Figures = field(default_factory=dict)
    load_before: float = 0.0
    quick: bool = False
    pace_before: float = 0.0

    def spread(self, figure: str) -> Spread:
        return Spread.of([figures[figure] for figures in self.repetitions])

    def verdicts(self, goals: Sequence[Goal]) -> list[GoalResult]:
        return [GoalResult(goal, self.spread(goal.figure), self.limit.get(goal.limit)) for goal in goals]


def with_costs(figures: Figures) -> dict[str, float]:
    """Add the CPU milliseconds of each counted thing: `ms_<part>` of every part, `ms` of all but the load generator."""
    parts = {name: share for name, share in figures.items() if name.startswith("cpu_")}
    costs = {name.replace("cpu_", "ms_", 1): 10 * share / figures["rate"] for name, share in parts.items()}
    return {**figures, **costs, "ms": sum(cost for name, cost in costs.items() if name != "ms_generator")}


def averaged(shares: Sequence[Figures]) -> dict[str, float]:
    names = dict.fromkeys(name for figures in shares for name in figures)
    return {
        name: sum(found) / len(found)
        for name in names
        if (found := [figures[name] for figures in shares if name in figures])
    }
