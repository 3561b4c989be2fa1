"""What is measured against what: goals, their spread over repetitions, and whether they are met. No input or output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure of a row and what it should be. ``figure`` is its key in what a load measures.

    ``limit`` is the key of the figure of the row's raw limit that it is compared with; empty: with none.
    """

    figure: str
    sense: Literal[">=", "<="]
    target: float
    unit: str
    limit: str = ""

    def met_by(self, value: float) -> bool:
        """Whether this value is as the goal wants it."""
        return value >= self.target if self.sense == ">=" else value <= self.target


@dataclass(frozen=True, slots=True)
class Spread:
    """Least, median and greatest of the repetitions."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(min(values), median(values), max(values))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, what was measured, and the raw limit of the same Postgres in the same run if there is one."""

    goal: Goal
    spread: Spread
    limit: float | None = None

    @property
    def met(self) -> bool:
        """By the median."""
        return self.goal.met_by(self.spread.middle)

    @property
    def ratio(self) -> float | None:
        """The measured share of the raw limit."""
        return self.spread.middle / self.limit if self.limit else None


@dataclass(frozen=True, slots=True)
class Measured:
    """All that one row came to: its repetitions, the raw limit's figures, CPU shares by part, and before it began the
    load average of the machine and its pace (``machine.pace``). ``quick`` ones were smaller and shorter.
    """

    repetitions: Sequence[Figures]
    limit: Figures = field(default_factory=dict)
    cpu: Figures = field(default_factory=dict)
    load_before: float = 0.0
    quick: bool = False
    pace_before: float = 0.0

    def spread(self, figure: str) -> Spread:
        """Of one figure over the repetitions."""
        return Spread.of([one[figure] for one in self.repetitions])

    def verdicts(self, goals: Sequence[Goal]) -> list[Verdict]:
        """One for each goal."""
        return [Verdict(goal, self.spread(goal.figure), self.limit.get(goal.limit)) for goal in goals]


def averaged(shares: Sequence[Figures]) -> dict[str, float]:
    """The mean of each key over those that have it."""
    names = dict.fromkeys(name for one in shares for name in one)
    return {
        name: sum(one[name] for one in shares if name in one) / sum(name in one for one in shares) for name in names
    }
