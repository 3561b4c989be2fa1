"""Live registrations and the demand profiles that they satisfy, kept by a process from pass to pass.

Read by expiry alone, one pass at a time. Each pass compares with the rows as they are, so nothing missed stays wrong.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from sqlalchemy import Connection, text

from models.claims.matching import OFFER_COLUMNS_OF_N, PROPERTIES, Demands, Offer, offer_of, read_demands
from models.claims.per_engine import PerEngine
from models.schema.sql import sql

# Compare at most so many offers with demands in one pass, about 0.3 s: remaining profiles are left to the next one.
MOST_COMPARISONS = 500_000
TAG = "tag"

Value = tuple[str, str]

# Read live registrations: not left, not asked to leave, not lost; the same may be given runs by models.claims.polls.
_LOOK = text("""
    SELECT ARRAY(SELECT registration FROM runners
                 WHERE left_at IS NULL AND lost_at IS NULL AND leave_requested_at IS NULL AND leave_told_at IS NULL)
            AS live,
        ARRAY(SELECT profile_id FROM demand_profiles) AS profiles,
        ARRAY(SELECT profile_id FROM demand_profiles WHERE unmatched_since IS NOT NULL) AS unmatched
""")

_OFFERS = sql(
    "SELECT $offer FROM runners n WHERE n.registration = ANY(CAST(:registrations AS bigint[]))",
    offer=OFFER_COLUMNS_OF_N,
)

_DEMANDS = text("""
    SELECT profile_id, hostname, project_dir, executor_profile, executor_type, tags
    FROM demand_profiles WHERE profile_id = ANY(CAST(:profiles AS bigint[]))
""")


@dataclass(frozen=True, slots=True)
class Differences:
    matched: list[int]
    unmatched: list[int]


class Fleet:
    """Offers of live registrations by value, and for each profile a witness: one registration that satisfies it.

    A profile is looked at again only when its witness is gone, or while it has none and registrations were added.
    """

    def __init__(self) -> None:
        self._offers: dict[int, Offer] = {}
        self._offering: defaultdict[Value, set[int]] = defaultdict(set)
        self._demands: dict[int, Demands] = {}
        self._witness: dict[int, int | None] = {}
        self._open: dict[int, AbstractSet[int] | None] = {}
        self._left = 0
        self.excluded_from = 0

    def refresh(self, conn: Connection) -> Differences:
        state = conn.execute(_LOOK).one()

        def offers(registrations: Collection[int]) -> dict[int, Offer]:
            rows = conn.execute(_OFFERS, {"registrations": list(registrations)})
            return {row.registration: offer_of(*row) for row in rows}

        def demands(profile_ids: Collection[int]) -> dict[int, Demands]:
            return read_demands(conn, _DEMANDS, {"profiles": list(profile_ids)})

        self.update(set(state.live), offers, set(state.profiles), demands)
        stored = set(state.unmatched)
        known = [profile_id for profile_id in self._witness if profile_id not in self._open]
        return Differences(
            matched=[
                profile_id for profile_id in known if self._witness[profile_id] is not None and profile_id in stored
            ],
            unmatched=[
                profile_id for profile_id in known if self._witness[profile_id] is None and profile_id not in stored
            ],
        )

    def update(
        self,
        live: AbstractSet[int],
        offers: Callable[[Collection[int]], Mapping[int, Offer]],
        profiles: AbstractSet[int],
        demands: Callable[[Collection[int]], Mapping[int, Demands]],
    ) -> None:
        self._left = MOST_COMPARISONS
        for registration in self._offers.keys() - live:
            self._forget(registration)
        for profile_id in self._demands.keys() - profiles:
            del self._demands[profile_id], self._witness[profile_id]
            self._open.pop(profile_id, None)
        new = live - self._offers.keys()
        added = dict(offers(new)) if new else {}
        for registration, offer in added.items():
            self._offers[registration] = offer
            for value in _values(offer):
                self._offering[value].add(registration)
        for profile_id, witness in self._witness.items():
            if witness is not None and witness not in self._offers:
                self._open[profile_id] = None
            elif witness is None and added:
                self._open[profile_id] = None if profile_id in self._open else added.keys()
        unread = profiles - self._demands.keys()
        for profile_id, wanted in (demands(unread) if unread else {}).items():
            self._demands[profile_id], self._witness[profile_id], self._open[profile_id] = wanted, None, None
        self._find_witnesses()

    def _forget(self, registration: int) -> None:
        for value in _values(self._offers.pop(registration)):
            self._offering[value].discard(registration)
            if not self._offering[value]:
                del self._offering[value]

    def _find_witnesses(self) -> None:
        """Find a registration for each open profile; those that exceed the comparisons of the pass stay open."""
        for profile_id in list(self._open):
            if self._left <= 0:
                return
            found = self.find(self._demands[profile_id], among=self._open[profile_id])
            self._witness[profile_id] = found
            del self._open[profile_id]

    @property
    def empty(self) -> bool:
        return not self._offers

    @property
    def behind(self) -> bool:
        return bool(self._open)

    def demands(self, profile_id: int) -> Demands | None:
        return self._demands.get(profile_id)

    def satisfies(self, profile_id: int, excluded: Collection[int] = ()) -> bool:
        """Return whether a live registration other than the excluded satisfies the profile; True also while that is
        unknown.
        """
        if profile_id not in self._demands or profile_id in self._open:
            return True
        witness = self._witness[profile_id]
        if witness is None or witness not in excluded:
            return witness is not None
        return self.find(self._demands[profile_id], excluded=excluded) is not None

    def find(
        self, demands: Demands, *, excluded: Collection[int] = (), among: AbstractSet[int] | None = None
    ) -> int | None:
        """Return a live registration that satisfies the demands, None when there is none.

        Only those registrations are compared that offer the rarest of the demanded values.
        """
        for registration in self._candidates(demands, self._offers.keys() if among is None else among):
            self._left -= 1
            offer = self._offers.get(registration)
            if offer is not None and registration not in excluded and offer.satisfies(demands):
                return registration
        return None

    def offers_but_for_its_tags(self, demands: Demands) -> bool:
        offers = (self._offers[registration] for registration in self._candidates(demands, self._offers.keys()))
        return any(replace(offer, require_matching_tags=False).satisfies(demands) for offer in offers)

    def _candidates(self, demands: Demands, among: AbstractSet[int]) -> AbstractSet[int]:
        sets: list[AbstractSet[int]] = [self._offering.get(value, frozenset()) for value in demanded(demands)]
        return min([*sets, among], key=len)

    def is_offered(self, value: Value) -> bool:
        return value in self._offering


def demanded(demands: Demands) -> list[Value]:
    named = [(name, getattr(demands, name)) for name in PROPERTIES]
    return [(name, value) for name, value in named if value is not None] + [(TAG, tag) for tag in sorted(demands.tags)]


def _values(offer: Offer) -> Iterable[Value]:
    named = [(name, getattr(offer, name)) for name in PROPERTIES]
    return [(name, value) for name, value in named if value is not None] + [(TAG, tag) for tag in offer.tags]


fleet_of = PerEngine(Fleet)
