from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlalchemy import Connection, text

from models.core.errors import RunnerNotRegistered
from models.core.limits import DEFAULT_LIMITS, Limits
from models.schema.sql import sql
from models.state.endings import MAX_MISSED_HEARTBEATS
from models.state.visibility import acts_for

# Count two heartbeats only if they are so far apart: one repeated after a lost answer counts once.
BEATS_APART_SECONDS = 3


# Do not expect a run that started so lately in a list that may be older.
STARTED_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Touch:
    """Sign of life of a runner; ``holding`` names all its runs, None when it does not say.

    ``subject``: the caller, which must have made the runner's registration; None for an admin. ``admin``: the owner
    name of an admin's credential, whose list counts only for registrations of its own and of those without an owner.
    """

    runner_id: str
    holding: tuple[str, ...] | None = None
    subject: str | None = None
    admin: str | None = None


@dataclass(frozen=True, slots=True)
class Touched:
    """Accepted heartbeat; ``not_yours`` names the runs of ``holding`` that the registration does not have."""

    not_yours: tuple[str, ...] = ()


TouchResult: TypeAlias = Touched | RunnerNotRegistered


def told_interval(instance_id: str | None, limits: Limits) -> int:
    """Return the heartbeat interval in seconds that a runner is told; deployed ones (without instance) ignore it."""
    return limits.told_heartbeat if instance_id is None else limits.told_heartbeat_instance


def stale_after(interval: float, limits: Limits) -> float:
    return max(limits.stale_after, 2 * interval)


def lost_after(interval: float, limits: Limits) -> float:
    return max(limits.lost_after, 3 * interval)


# Condition on a runner: it is stale, unless an outage of ours may be the reason of its silence.
IS_STALE: Final = "last_seen < silent_before(greatest(CAST(:stale_after AS float), 2 * told_interval))"

# Skip locked rows: one frozen lock must not stop the heartbeats of all others. The runner of a skipped row is known all
# the same, and its next request counts.
_TOUCH = text("""
    WITH asked AS (
        SELECT * FROM unnest(CAST(:runner_ids AS text[]), CAST(:beats AS boolean[])) AS a(runner_id, beats)
    ), known AS (
        SELECT n.runner_id FROM runners n JOIN asked ON asked.runner_id = n.runner_id
        WHERE n.left_at IS NULL AND n.leave_told_at IS NULL
          AND (n.last_seen > now() - make_interval(secs => :forget)
               OR n.last_seen >= (SELECT silent_before(CAST(:forget AS float))))
    ), held AS MATERIALIZED (
        SELECT n.runner_id, n.counted_beat_at FROM runners n
        WHERE n.runner_id IN (SELECT runner_id FROM known) AND n.left_at IS NULL AND n.leave_told_at IS NULL
        ORDER BY n.runner_id FOR NO KEY UPDATE SKIP LOCKED
    ), touched AS (
        UPDATE runners n
        SET last_seen = clock_timestamp(), lost_at = NULL, sends_holding = n.sends_holding OR asked.beats,
            counted_beat_at = CASE
                WHEN asked.beats
                    AND coalesce(held.counted_beat_at, '-infinity') <= now() - make_interval(secs => :apart)
                THEN clock_timestamp() ELSE n.counted_beat_at END
        FROM held JOIN asked ON asked.runner_id = held.runner_id
        WHERE n.runner_id = held.runner_id
        RETURNING n.runner_id,
            asked.beats AND n.counted_beat_at IS DISTINCT FROM held.counted_beat_at AS counted
    )
    SELECT known.runner_id, touched.runner_id IS NOT NULL AS touched, coalesce(touched.counted, false) AS counted
    FROM known LEFT JOIN touched ON touched.runner_id = known.runner_id
""")


# Count in unheld_beats how many counted heartbeats in a row did not name the run; expiry takes it away at
# MAX_MISSED_HEARTBEATS. A delivered claim is counted only while a later poll of its registration is parked: until then
# the answer may be on its way. At that number its deadline has come. Returns named runs that are not in hand. One
# snapshot for runners and runs: a registration renumbers both in one transaction.
_HOLDING = sql(
    """
    WITH named AS (
        SELECT h.runner_id, h.run_id, n.registration
        FROM unnest(CAST(:holders AS text[]), CAST(:named AS text[])) AS h(runner_id, run_id)
        JOIN runners n ON n.runner_id = h.runner_id
    ), held AS MATERIALIZED (
        SELECT r.run_id, r.status, r.claim_token, named.run_id IS NOT NULL AS is_named
        FROM runs r LEFT JOIN named ON named.runner_id = r.runner_id AND named.run_id = r.run_id
        WHERE r.status IN $HELD_BY_TOKEN AND r.runner_id = ANY(CAST(:beating AS text[]))
          AND CASE WHEN named.run_id IS NOT NULL THEN r.unheld_beats > 0
                   ELSE r.runner_id = ANY(CAST(:counted AS text[])) AND r.unheld_beats < $max_missed_heartbeats
                       AND CASE WHEN r.status = $RUNNING THEN r.started_at < now() - make_interval(secs => :started)
                           ELSE r.delivered_at IS NOT NULL AND EXISTS (
                               SELECT FROM waiting_polls w WHERE w.runner_id = r.runner_id
                                   AND w.registration = r.registration AND w.poll_id > r.claim_poll_id) END END
        ORDER BY r.run_id FOR NO KEY UPDATE OF r SKIP LOCKED
    ), counted AS (
        UPDATE runs r
        SET unheld_beats = CASE WHEN held.is_named THEN 0 ELSE r.unheld_beats + 1 END,
            claim_deadline_at = CASE WHEN r.status <> $CLAIMED THEN r.claim_deadline_at
                WHEN held.is_named THEN clock_timestamp() + make_interval(secs => :start_timeout)
                WHEN r.unheld_beats + 1 >= $max_missed_heartbeats THEN least(r.claim_deadline_at, clock_timestamp())
                ELSE r.claim_deadline_at END
        FROM held
        WHERE r.run_id = held.run_id AND r.status = held.status AND r.claim_token = held.claim_token
    )
    SELECT named.runner_id, named.run_id
    FROM named LEFT JOIN runs r ON r.run_id = named.run_id AND r.run_id = ANY(CAST(:named AS text[]))
        AND r.runner_id = named.runner_id AND r.registration = named.registration
        AND r.status IN $IN_HAND
    WHERE r.run_id IS NULL
    """,
    max_missed_heartbeats=str(MAX_MISSED_HEARTBEATS),
)


_OWNERS = text("SELECT runner_id, owner FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[]))")


def _authorised(conn: Connection, items: Sequence[Touch]) -> tuple[list[bool], list[bool]]:
    """Return which signs of life come from a caller that may act for the registration, and whose lists count.

    An admin must not end runs of another owner by leaving them out, which no audit log would hold.
    """
    asked = sorted({item.runner_id for item in items if item.subject is not None or item.admin is not None})
    rows = conn.execute(_OWNERS, {"runner_ids": asked}) if asked else ()
    owners = {row.runner_id: row.owner for row in rows}
    authorised = [acts_for(item.subject, owners.get(item.runner_id)) for item in items]
    return authorised, [acts_for(item.admin, owners.get(item.runner_id)) for item in items]


def touch_runners(conn: Connection, items: Sequence[Touch], *, limits: Limits = DEFAULT_LIMITS) -> list[TouchResult]:
    """Record the runners' signs of life; stale and lost ones are online again, without the runs that were taken away.

    RunnerNotRegistered for a runner that is unknown, of another owner, has left, was told to leave or is forgotten.
    Locked rows are skipped, and the commit does not wait for the disk: the next sign of life replaces a lost one.
    """
    conn.execute(text("SET LOCAL synchronous_commit = off"))
    authorised, lists_count = _authorised(conn, items)
    holding: dict[str, dict[str, None]] = {}
    for item, is_authorised, counts in zip(items, authorised, lists_count, strict=True):
        if is_authorised and counts and item.holding is not None:
            holding.setdefault(item.runner_id, {}).update(dict.fromkeys(item.holding))
    runner_ids = sorted(
        {item.runner_id for item, is_authorised in zip(items, authorised, strict=True) if is_authorised}
    )
    rows = conn.execute(
        _TOUCH,
        {
            "runner_ids": runner_ids,
            "beats": [runner_id in holding for runner_id in runner_ids],
            "forget": limits.forget_runner,
            "apart": BEATS_APART_SECONDS,
        },
    ).all()
    known = {row.runner_id for row in rows}
    ended = _compare_holding(
        conn,
        {runner_id: runs for runner_id, runs in holding.items() if runner_id in known},
        beating=[row.runner_id for row in rows if row.touched and row.runner_id in holding],
        counted=[row.runner_id for row in rows if row.counted],
        limits=limits,
    )
    return [
        Touched(tuple(run_id for run_id in item.holding or () if (item.runner_id, run_id) in ended))
        if is_authorised and item.runner_id in known
        else RunnerNotRegistered(item.runner_id)
        for item, is_authorised in zip(items, authorised, strict=True)
    ]


def _compare_holding(
    conn: Connection,
    holding: Mapping[str, Iterable[str]],
    *,
    beating: list[str],
    counted: list[str],
    limits: Limits,
) -> set[tuple[str, str]]:
    if not holding:
        return set()
    named = [(runner_id, run_id) for runner_id, runs in holding.items() for run_id in runs]
    rows = conn.execute(
        _HOLDING,
        {
            "holders": [runner_id for runner_id, _ in named],
            "named": [run_id for _, run_id in named],
            "beating": beating,
            "counted": counted,
            "started": STARTED_SECONDS,
            "start_timeout": limits.start_timeout,
        },
    )
    return {(row.runner_id, row.run_id) for row in rows}
