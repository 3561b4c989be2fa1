"""Compare the matches remembered from pass to pass with the matchmaker's own function, for random fleets
and demands.
"""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.claims import fleet as fleets
from models.claims.fleet import Fleet
from models.claims.matching import Demands, Offer
from models.expiry.match_deadlines import latest_start, merged
from models.expiry.no_match import PREFIX, no_match_text

HOSTS, TAGS = ("h1", "h2", "h3"), ("a", "b", "c")

OFFERS = st.builds(
    Offer,
    st.just(0),
    st.sampled_from(HOSTS),
    st.just("/p"),
    st.sampled_from(("x", "y")),
    st.sampled_from(("autonomous", None)),
    st.frozensets(st.sampled_from(TAGS)),
    st.booleans(),
)
DEMANDS = st.builds(
    Demands,
    st.sampled_from((None, *HOSTS)),
    st.sampled_from((None, "/p", "/q")),
    st.sampled_from((None, "x", "y")),
    st.just("autonomous"),
    st.sets(st.sampled_from(TAGS)).map(sorted).map(tuple),
)
# Step: offers that come, indexes of the fleet that go, profiles that come, indexes of profiles that go.
Step = tuple[list[Offer], set[int], list[Demands], set[int]]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.lists(OFFERS, max_size=4),
        st.sets(st.integers(0, 9)),
        st.lists(DEMANDS, max_size=3),
        st.sets(st.integers(0, 9), max_size=2),
    ),
    min_size=1,
    max_size=8,
)


def numbered(offer: Offer, number: int) -> Offer:
    return replace(offer, registration=number)


class FleetModel:
    """A fleet, with the registrations and profiles that it should know."""

    def __init__(self) -> None:
        self.fleet, self.live, self.profiles = Fleet(), dict[int, Offer](), dict[int, Demands]()
        self._numbers = count(1)

    def change(self, step: Step) -> None:
        offers, going, demands, dropped = step
        for known, places in ((self.live, going), (self.profiles, dropped)):
            for number in [one for place, one in enumerate(sorted(known)) if place in places]:
                known.pop(number)
        for offer in offers:
            number = next(self._numbers)
            self.live[number] = numbered(offer, number)
        self.profiles.update((next(self._numbers), one) for one in demands)

    def refresh(self) -> None:
        self.fleet.update(
            set(self.live),
            lambda ids: {one: self.live[one] for one in ids},
            set(self.profiles),
            lambda ids: {one: self.profiles[one] for one in ids},
        )

    def matched(self, wanted: Demands, excluded: Collection[int] = ()) -> bool:
        return any(offer.satisfies(wanted) for one, offer in self.live.items() if one not in excluded)


@pytest.mark.parametrize("comparisons", [1, 500_000])
@settings(deadline=None)
@given(steps=STEPS, excluded=st.sets(st.integers(1, 6)))
def test_remembered_matches_are_those_of_matchmaker(comparisons: int, steps: list[Step], excluded: set[int]) -> None:
    """Compare after any change, also when a pass has time for one comparison only; the error text never
    contradicts it.
    """
    beside = FleetModel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleets, "MOST_COMPARISONS", comparisons)
        for step in steps:
            beside.change(step)
            beside.refresh()
            while beside.fleet.behind:
                passed = [one for one in beside.profiles if not beside.fleet.satisfies(one)]
                assert not any(beside.matched(beside.profiles[one]) for one in passed), "taken for unmatched too early"
                beside.refresh()
            for profile_id, wanted in beside.profiles.items():
                assert beside.fleet.satisfies(profile_id) == beside.matched(wanted)
                assert beside.fleet.satisfies(profile_id, excluded) == beside.matched(wanted, excluded)
                if not beside.matched(wanted, excluded):
                    _check_text(no_match_text(wanted, beside.fleet, excluded=excluded), beside, wanted)


def _check_text(text: str, beside: FleetModel, wanted: Demands) -> None:
    """Check that each reason is given where it holds, and that one is always given."""
    reason = text.removeprefix(PREFIX)
    offers = beside.live.values()
    offered = {tag for offer in offers for tag in offer.tags}
    if reason == "no runner is registered":
        assert not offers
    elif reason.startswith("every runner"):
        assert beside.matched(wanted)
    elif reason.startswith("no runner offers"):
        assert all((f"tag {tag!r}" in reason) == (tag not in offered) for tag in wanted.tags)
        assert ("hostname" in reason) == (wanted.hostname not in {None, *(offer.hostname for offer in offers)})
    elif reason.startswith("the runners that offer"):
        assert not wanted.tags
    else:
        assert reason.startswith("no single runner offers")
        assert not beside.matched(wanted)


NOW = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(-1000, 0).map(lambda seconds: NOW + timedelta(seconds=seconds))
GAPS = st.lists(st.tuples(MOMENTS, MOMENTS).map(sorted).map(tuple), max_size=6)


@given(gaps=GAPS, seconds=st.integers(1, 500))
def test_latest_start_is_last_moment_that_is_long_enough_ago(
    gaps: list[tuple[datetime, datetime]], seconds: int
) -> None:
    """Count second by second outside all outages, however they overlap."""
    start = latest_start(NOW, seconds, merged(sorted(gaps)))
    assert _counted(start, gaps) == seconds
    assert _counted(start + timedelta(seconds=1), gaps) < seconds


def _counted(start: datetime, gaps: list[tuple[datetime, datetime]]) -> int:
    whole = int((NOW - start).total_seconds())
    moments = (start + timedelta(seconds=place) for place in range(whole))
    return sum(not any(began <= moment < ended for began, ended in gaps) for moment in moments)
