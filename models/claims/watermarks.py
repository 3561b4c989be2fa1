"""Watermarks of the busiest queues of ready runs, by which a claim skips the dead index entries at their heads.

While a long transaction pins the xmin horizon the entries of claimed runs cannot be removed, and each claim would pass
all of them again (measured: 3,500 claims/s fall to 190).
"""

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from models.claims.per_engine import PerEngine
from models.schema.sql import sql

# Allow for clocks of web processes and late commits: a run may appear this far below the lowest id read.
SLACK_MILLISECONDS = 60_000
READ_AGAIN_SECONDS = 2.0
# Ignore queues with fewer claims between two readings; a busy queue keeps its watermark for a while.
BUSY_CLAIMS = 200
STAYS_BUSY_SECONDS = 600.0
LOWEST, HIGHEST = -32_768, 32_767

Queue = tuple[int, int]

_HEADS = sql("""
    SELECT q.profile_id, q.priority, head.run_id
    FROM unnest(CAST(:profiles AS bigint[]), CAST(:priorities AS smallint[])) AS q(profile_id, priority)
    CROSS JOIN LATERAL (
        SELECT r.run_id FROM runs r
        WHERE r.status = $PENDING AND r.ready AND r.profile_id = q.profile_id AND r.priority = q.priority
        ORDER BY r.run_id LIMIT 1
    ) head
""")


@dataclass(frozen=True, slots=True)
class ScanRange:
    profile_id: int
    low: int
    high: int
    watermark: str | None = None


class ClaimWatermarks:
    """Watermarks of the busiest queues of one database, as read by this process. A queue: a profile and a priority."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[Queue] = Counter()
        self._busy_until: dict[Queue, float] = {}
        self._watermarks: dict[Queue, str] = {}
        self._read_at = 0.0

    def count(self, queues: Iterable[Queue]) -> None:
        with self._lock:
            self._taken.update(queues)

    def refresh(self, conn: Connection) -> None:
        """Read the heads of busy queues anew if the last reading is older than 2 s: no older watermark is ever used.

        An empty queue keeps its watermark: later runs have higher ids, and a claim that finds nothing looks below.
        """
        now = time.monotonic()
        with self._lock:
            if now - self._read_at < READ_AGAIN_SECONDS:
                return
            self._read_at = now
            busy = [queue for queue, taken in self._taken.items() if taken >= BUSY_CLAIMS]
            self._taken.clear()
            self._busy_until.update(dict.fromkeys(busy, now + STAYS_BUSY_SECONDS))
            self._busy_until = {queue: until for queue, until in self._busy_until.items() if until > now}
            queues = list(self._busy_until)
            self._watermarks = {
                queue: watermark for queue, watermark in self._watermarks.items() if queue in self._busy_until
            }
        if queues:
            values = {"profiles": [queue[0] for queue in queues], "priorities": [queue[1] for queue in queues]}
            heads = {(row.profile_id, row.priority): with_slack(row.run_id) for row in conn.execute(_HEADS, values)}
            with self._lock:
                self._watermarks.update(
                    {queue: watermark for queue, watermark in heads.items() if watermark is not None}
                )

    def ranges(self, profile_ids: Collection[int]) -> list[ScanRange]:
        with self._lock:
            by_profile: dict[int, list[tuple[int, str]]] = {}
            for (profile_id, priority), watermark in self._watermarks.items():
                by_profile.setdefault(profile_id, []).append((priority, watermark))
        result: list[ScanRange] = []
        for profile_id in profile_ids:
            high = HIGHEST
            for priority, watermark in sorted(by_profile.get(profile_id, ()), reverse=True):
                result.append(ScanRange(profile_id, priority + 1, high))
                result.append(ScanRange(profile_id, priority, priority, watermark))
                high = priority - 1
            result.append(ScanRange(profile_id, LOWEST, high))
        return result


def with_slack(run_id: str) -> str | None:
    """Return an id ``SLACK_MILLISECONDS`` older than ``run_id``, None when it is not one that sorts by time."""
    prefix, _, digits = run_id.rpartition("_")
    try:
        milliseconds = int(digits[:12], 16) - SLACK_MILLISECONDS
    except ValueError:
        return None
    return f"{prefix}_{max(milliseconds, 0):012x}"


claim_watermarks = PerEngine(ClaimWatermarks)
