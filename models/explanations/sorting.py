from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from models.claims.fleet import TAG, Value, demanded
from models.claims.matching import Demands, Offer
from models.core.callers import Caller, Role
from models.explanations.reasons import OfMatching, RunnerCounts
from models.explanations.runner_facts import RunnerFacts, RunnerState
from models.explanations.words import missing
from models.state.visibility import acts_for

MOST_NAMED = 10
MOST_REJECTED = 20
OTHERWISE = "other combinations"

Lacks = tuple[Value, ...]


def lacks(offer: Offer, demands: Demands) -> Lacks:
    """Return the demanded values that an offer lacks; nothing for one that takes tagged runs only.

    Each value is asked for alone, of the matchmaker's own rule.
    """
    untagged = replace(offer, require_matching_tags=False)
    return tuple(value for value in demanded(demands) if not untagged.satisfies(_alone(value)))


def _alone(value: Value) -> Demands:
    name, wanted = value
    properties: dict[str, Any] = {"tags": (wanted,)} if name == TAG else {name: wanted}
    return Demands(**properties)


def may_name(caller: Caller, runner: RunnerFacts) -> bool:
    """Return whether the caller may list the runner (``list_runners``): users see numbers only."""
    return caller.role is not Role.USER and acts_for(caller.subject, runner.owner)


@dataclass(frozen=True, slots=True)
class Nearest:
    runner: RunnerFacts
    lacks: Lacks


class SortedRunners:
    """Known runners by what keeps each from taking a run with these demands; each is in one group."""

    def __init__(
        self, known: Sequence[RunnerFacts], demands: Demands, excluded_registrations: Collection[int] = ()
    ) -> None:
        self.known = known
        self.demands = demands
        self.rejected: Counter[Lacks] = Counter()
        self.matching: list[RunnerFacts] = []
        self.nearest: Nearest | None = None
        self._groups: dict[RunnerState, list[RunnerFacts]] = {}
        for runner in known:
            if runner.offer.satisfies(demands):
                self.matching.append(runner)
                self._groups.setdefault(runner.state(excluded_registrations), []).append(runner)
            else:
                self._reject(runner)

    def _reject(self, runner: RunnerFacts) -> None:
        lacking = lacks(runner.offer, self.demands)
        self.rejected[lacking] += 1
        nearest = Nearest(runner, lacking)
        if self.nearest is None or _distance(nearest) < _distance(self.nearest):
            self.nearest = nearest

    def group(self, state: RunnerState) -> list[RunnerFacts]:
        return self._groups.get(state, [])

    @property
    def free(self) -> int:
        return len(self.group(RunnerState.FREE))

    @cached_property
    def rejections(self) -> list[tuple[Lacks, int]]:
        """Return what runners lack with their number, the most frequent first."""
        return sorted(self.rejected.items(), key=lambda group: (-group[1], group[0]))

    @cached_property
    def counts(self) -> RunnerCounts:
        texts: Counter[str] = Counter()
        for lacking, number in self.rejections:
            text = missing(lacking)
            texts[text if text in texts or len(texts) < MOST_REJECTED else OTHERWISE] += number
        of_matching = OfMatching(**{state.value: len(self.group(state)) for state in RunnerState})
        return RunnerCounts(len(self.known), len(self.matching), dict(texts), of_matching)


def _distance(nearest: Nearest) -> tuple[bool, int]:
    """Order runners that do not match: live ones first, then those that lack the least."""
    return not nearest.runner.live or nearest.runner.stale, len(nearest.lacks)
