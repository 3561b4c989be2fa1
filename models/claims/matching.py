import functools
import hashlib
import json
import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final
from weakref import WeakValueDictionary

from sqlalchemy import Connection, TextClause, text

from models.claims.per_engine import PerEngine
from models.schema.columns import array_rows, names_of
from models.schema.sql import sql
from models.schema.tables import demand_profiles, runners

PROPERTIES = ("hostname", "project_dir", "executor_profile", "executor_type")
AUTONOMOUS = "autonomous"
PROCEDURAL = "procedural"


@dataclass(frozen=True, slots=True)
class Demands:
    """Properties that a run demands of a runner; None demands nothing. ``tags`` are unordered and all required."""

    hostname: str | None = None
    project_dir: str | None = None
    executor_profile: str | None = None
    executor_type: str | None = None
    tags: tuple[str, ...] = ()

    def merged(self, other: "Demands") -> "Demands":
        """Return the union of both: the first to name a property wins, tags are united (PROTOCOL, Runs)."""
        return Demands(
            self.hostname if self.hostname is not None else other.hostname,
            self.project_dir if self.project_dir is not None else other.project_dir,
            self.executor_profile if self.executor_profile is not None else other.executor_profile,
            self.executor_type if self.executor_type is not None else other.executor_type,
            tuple(sorted({*self.tags, *other.tags})),
        )

    def as_json(self) -> str:
        return _written(self)[0]

    @property
    def hash(self) -> str:
        return _written(self)[1]


@functools.lru_cache(1024)
def _written(demands: Demands) -> tuple[str, str]:
    named = {name: getattr(demands, name) for name in PROPERTIES}
    tags = sorted(set(demands.tags))
    given = {name: value for name, value in named.items() if value is not None} | {"tags": tags}
    digest = hashlib.sha256(json.dumps([*named.values(), tags], separators=(",", ":")).encode()).hexdigest()
    return json.dumps(given, ensure_ascii=False, separators=(",", ":")), digest


@dataclass(frozen=True, slots=True)
class Offer:
    registration: int
    hostname: str
    project_dir: str
    executor_profile: str
    executor_type: str | None
    tags: frozenset[str]
    require_matching_tags: bool = False

    def satisfies(self, demands: Demands) -> bool:
        for name in PROPERTIES:
            wanted = getattr(demands, name)
            if wanted is not None and wanted != getattr(self, name):
                return False
        if not self.tags.issuperset(demands.tags):
            return False
        return not self.require_matching_tags or not self.tags.isdisjoint(demands.tags)


# Columns of the runners ``n`` that are an offer.
OFFER_COLUMNS_OF_N: Final = names_of("n", [runners.c[field.name] for field in fields(Offer)])
# Number of runs in hand up to which the runner ``n`` may claim, NULL without a bound; 0 while it drains. The column is
# then 0, too, unless a replica of the last release has registered it since.
CLAIM_CAPACITY_OF_N: Final = "CASE WHEN n.draining_since IS NULL THEN n.capacity ELSE 0 END"
# Cache offers: parked polls are read every 2 s and offer the same each time.
_offer = functools.lru_cache(maxsize=20_000)(Offer)


def offer_of(
    registration: int,
    hostname: str,
    project_dir: str,
    executor_profile: str,
    executor_type: str | None,
    tags: Iterable[str],
    require_matching_tags: bool,  # noqa: FBT001 -- the columns of a row come by position
) -> Offer:
    return _offer(
        registration,
        hostname,
        project_dir,
        executor_profile,
        executor_type,
        frozenset(tags),
        require_matching_tags,
    )


NO_DEMANDS = Demands()

REMEMBERED_SECONDS = 30.0
MOST_REMEMBERED = 1_000
_KNOWN = "demand profiles"

# settled: the row was there before this transaction, which may be rolled back
_FIND = text("""
    SELECT hash, profile_id, last_used_at > now() - interval '1 hour' AS fresh, last_used_at < now() AS settled
    FROM demand_profiles WHERE hash = ANY(CAST(:hashes AS text[]))
""")

# Protect a profile from upkeep by using it, once an hour at most; wait for an upkeep that is removing it.
_TOUCH = text("""
    UPDATE demand_profiles p SET last_used_at = now()
    FROM (SELECT profile_id FROM demand_profiles WHERE hash = ANY(CAST(:hashes AS text[]))
          ORDER BY hash FOR NO KEY UPDATE) locked
    WHERE p.profile_id = locked.profile_id
    RETURNING p.hash, p.profile_id
""")

# Wait here for a transaction that adds the same set first; the next statement sees its row.
_ADD = sql(
    """
    INSERT INTO demand_profiles ($columns, tags)
    SELECT $values, ARRAY(SELECT jsonb_array_elements_text(CAST(p.tags AS jsonb)))
    FROM unnest($arrays, CAST(:tags AS text[])) AS p($columns, tags)
    ORDER BY p.hash
    ON CONFLICT (hash) DO NOTHING
    """,
    **array_rows("p", demand_profiles, ["hash", *PROPERTIES, "made_by"]),
)


# Read all profiles, when a submission brings a new one: there are thousands of them, not millions.
_COUNT_BY_MAKER = text("""
    SELECT made_by, count(*) AS number FROM demand_profiles WHERE made_by = ANY(CAST(:makers AS text[]))
    GROUP BY made_by
""")


def ensure_profiles(
    conn: Connection, demands: Iterable[Demands], makers: Sequence[str | None] = (), most: int = 0
) -> dict[str, int]:
    """Return the profile id of each distinct set by its hash, adding those that are new; first in the lock order.

    ``makers`` gives an owner for each of the demands. A new set is left out, also of the answer, when its maker has
    ``most`` already; None and 0 are not bounded. Concurrent transactions do not see each other's new sets.

    A profile used within the hour is safe from upkeep, and is cached for 30 s with the connection: a server that has
    lost it, restored or failed over, is met by other connections.
    """
    asked = list(demands)
    wanted = {distinct.hash: distinct for distinct in asked}
    found = _remembered(conn, wanted)
    unknown = [key for key in wanted if key not in found]
    if not unknown:
        return found
    rows = conn.execute(_FIND, {"hashes": unknown}).all()
    fresh = {row.hash: row.profile_id for row in rows if row.fresh}
    _remember(conn, {row.hash: row.profile_id for row in rows if row.fresh and row.settled})
    found.update(fresh)
    stale = sorted(row.hash for row in rows if not row.fresh)
    if stale:
        found.update({row.hash: row.profile_id for row in conn.execute(_TOUCH, {"hashes": stale})})
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        maker_of = _makers(conn, missing, asked, makers, most)
        missing = [key for key in missing if key in maker_of]
        _add(conn, [wanted[key] for key in missing], [maker_of[key] for key in missing])
        found.update({row.hash: row.profile_id for row in conn.execute(_FIND, {"hashes": missing})})
    return found


def _remembered(conn: Connection, hashes: Collection[str]) -> dict[str, int]:
    known: dict[str, tuple[int, float]] = conn.info.get(_KNOWN, {})
    since = time.monotonic() - REMEMBERED_SECONDS
    return {key: known[key][0] for key in hashes if key in known and known[key][1] > since}


def _remember(conn: Connection, found: Mapping[str, int]) -> None:
    known: dict[str, tuple[int, float]] = conn.info.setdefault(_KNOWN, {})
    if len(known) + len(found) > MOST_REMEMBERED:
        known.clear()
    now = time.monotonic()
    known.update({key: (profile_id, now) for key, profile_id in found.items()})


def _makers(
    conn: Connection, missing: Sequence[str], asked: Sequence[Demands], makers: Sequence[str | None], most: int
) -> dict[str, str | None]:
    """Return for each new set the maker that it counts for; sets without a maker that may add it are left out."""
    if not makers or not most:
        return dict.fromkeys(missing)
    requests = [(demands.hash, maker) for demands, maker in zip(asked, makers, strict=True)]
    owners = sorted({maker for _, maker in requests if maker is not None})
    counts = {row.made_by: row.number for row in conn.execute(_COUNT_BY_MAKER, {"makers": owners})} if owners else {}
    new, found = set(missing), dict[str, str | None]()
    for key, maker in requests:
        if key not in new or key in found or counts.get(maker, 0) >= most:
            continue
        found[key] = maker
        if maker is not None:
            counts[maker] = counts.get(maker, 0) + 1
    return found


def _add(conn: Connection, sets: Sequence[Demands], makers: Sequence[str | None]) -> None:
    conn.execute(
        _ADD,
        {
            "hash": [demands.hash for demands in sets],
            "hostname": [demands.hostname for demands in sets],
            "project_dir": [demands.project_dir for demands in sets],
            "executor_profile": [demands.executor_profile for demands in sets],
            "executor_type": [demands.executor_type for demands in sets],
            "tags": [json.dumps(sorted(set(demands.tags))) for demands in sets],
            "made_by": list(makers),
        },
    )


_NEWER = text("""
    SELECT profile_id, hostname, project_dir, executor_profile, executor_type, tags FROM demand_profiles
    WHERE profile_id > :known
    UNION ALL
    SELECT profile_id, hostname, project_dir, executor_profile, executor_type, tags FROM demand_profiles
    WHERE profile_id = ANY(CAST(:skipped AS bigint[]))
""")


def read_demands(conn: Connection, statement: TextClause, values: Mapping[str, Any]) -> dict[int, Demands]:
    """Return the demands that a statement selects as profile id, properties and tags, by profile id."""
    return {
        profile_id: Demands(hostname, project_dir, executor_profile, executor_type, tuple(tags))
        for profile_id, hostname, project_dir, executor_profile, executor_type, tags in conn.execute(statement, values)
    }


_EXISTING = text("SELECT profile_id FROM demand_profiles")


@dataclass(slots=True)
class _Matches:
    upto: int = 0
    profile_ids: frozenset[int] = frozenset()
    used_at: float = 0.0


class MatchSets:
    """Cache of the profiles that each registration satisfies, for one database and this process.

    Profiles never change and registrations never change their offer, so no entry goes wrong; a profile that upkeep
    removed has no runs and finds nothing, and is forgotten within a minute. Equal sets of registrations are stored
    once. Ids become visible in the order of commits, not in their own.
    """

    MOST_REGISTRATIONS = 20_000
    # Look again for skipped ids: their transaction is not committed yet, or never will be.
    MOST_SKIPPED = 1_000
    SKIPPED_SECONDS = 600.0
    FORGET_SECONDS = 60.0
    # Forget a registration that was not asked about for so long.
    UNUSED_SECONDS = 3600.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[tuple[int, Demands]] = []
        self._newest = 0
        self._skipped: dict[int, float] = {}
        self._matches: OrderedDict[int, _Matches] = OrderedDict()
        self._shared: WeakValueDictionary[int, frozenset[int]] = WeakValueDictionary()
        self._forgot_at = time.monotonic()

    def refresh(self, conn: Connection, newest: int | None = None) -> None:
        """Read the new profiles: higher ids, and lower ones whose transaction took longer to commit.

        ``newest`` is the highest id there is, when the caller knows it: then there may be nothing to read.
        """
        known, skipped = self.upkeep(conn)
        if newest is not None and newest <= known and not skipped:
            return
        values = {"known": known, "skipped": skipped}
        existing = read_demands(conn, _NEWER, values)
        if not existing:
            return
        now = time.monotonic()
        with self._lock:
            fresh = [
                profile_id
                for profile_id in sorted(existing)
                if profile_id > self._newest or profile_id in self._skipped
            ]
            self._known += [(profile_id, existing[profile_id]) for profile_id in fresh]
            newest = max(self._newest, *existing)
            passed = range(max(self._newest + 1, newest - self.MOST_SKIPPED), newest)
            self._skipped.update({profile_id: now for profile_id in passed if profile_id not in existing})
            self._skipped = {profile_id: at for profile_id, at in self._skipped.items() if profile_id not in existing}
            self._newest = newest

    def upkeep(self, conn: Connection) -> tuple[int, list[int]]:
        """Return the newest id that was read, and the skipped ones; forget the removed profiles if that is due."""
        now = time.monotonic()
        if now - self._forgot_at >= self.FORGET_SECONDS:
            self._forgot_at = now
            self._forget(conn, now)
        with self._lock:
            self._skipped = {
                profile_id: at for profile_id, at in self._skipped.items() if now - at < self.SKIPPED_SECONDS
            }
            return self._newest, list(self._skipped)

    def of(self, offer: Offer) -> frozenset[int]:
        with self._lock:
            matches = self._matches.setdefault(offer.registration, _Matches())
            self._matches.move_to_end(offer.registration)
            matches.used_at = time.monotonic()
            if len(self._matches) > self.MOST_REGISTRATIONS:
                self._matches.popitem(last=False)
            if matches.upto == len(self._known):
                return matches.profile_ids
            newer = self._known[matches.upto :]
            more = {profile_id for profile_id, demands in newer if offer.satisfies(demands)}
            matches.profile_ids = self._kept_once(matches.profile_ids | more)
            matches.upto = len(self._known)
            return matches.profile_ids

    def _forget(self, conn: Connection, now: float) -> None:
        with self._lock:
            known = [profile_id for profile_id, _ in self._known]
        # Read the existing ids: a known profile that is missing now was removed, since it was visible before this
        # statement.
        existing = set(conn.execute(_EXISTING).scalars()) if known else set()
        gone = {profile_id for profile_id in known if profile_id not in existing}
        with self._lock:
            places = [place for place, (profile_id, _) in enumerate(self._known) if profile_id in gone]
            self._known = [entry for entry in self._known if entry[0] not in gone]
            for registration, matches in list(self._matches.items()):
                if now - matches.used_at >= self.UNUSED_SECONDS:
                    del self._matches[registration]
                elif places:
                    matches.upto -= bisect_left(places, matches.upto)
                    matches.profile_ids = self._kept_once(matches.profile_ids - gone)

    def _kept_once(self, profile_ids: frozenset[int]) -> frozenset[int]:
        same = self._shared.setdefault(hash(profile_ids), profile_ids)
        return same if same == profile_ids else profile_ids


match_sets = PerEngine(MatchSets)
