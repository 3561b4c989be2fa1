from collections.abc import Mapping
from typing import Any

from app.lifecycle.drain import Drain


class Health:
    """Readiness of one process: ready after the first successful check of the schema and until draining.

    An outage later only degrades it: otherwise a restart of Postgres would empty the load balancer, and the deployed
    runners would end their work.
    """

    def __init__(self, drain: Drain) -> None:
        self._drain = drain
        self._started = False
        self._away: set[str] = set()
        self._redis: str | None = None
        self._reasons: Mapping[str, str] = {}

    @property
    def ready(self) -> bool:
        return self._started and not self._drain.draining

    @property
    def started(self) -> bool:
        return self._started

    @property
    def schema_fault(self) -> str | None:
        return None if self._started else self._reasons.get("schema")

    def start(self) -> None:
        self._started = True
        self._away.clear()

    @property
    def away(self) -> frozenset[str]:
        return frozenset(self._away)

    def postgres_contact(self, pool: str, there: bool) -> bool:  # noqa: FBT001 -- a callback takes its arguments by position
        """Note whether Postgres answered over this pool; return True when it answers again after an outage.

        Each pool is tracked for itself: a role may have no connection left for one while the others go on.
        """
        back = there and pool in self._away
        (self._away.discard if there else self._away.add)(pool)
        return back

    @property
    def redis_fault(self) -> str | None:
        return self._redis

    def note_redis(self, fault: str | None) -> None:
        self._redis = fault

    def note(self, reasons: Mapping[str, str]) -> None:
        self._reasons = dict(reasons)

    def report(self) -> tuple[int, dict[str, Any]]:
        # After a handover a balancer asks this process only over a kept connection; the address itself stays ready.
        if self._drain.draining and not self._drain.handed_over:
            return 503, {"status": "draining"}
        if not self._started:
            return 503, {"status": "starting", "reason": self._reasons.get("schema", "waiting for the database")}
        reasons = dict(self._reasons)
        if self._away:
            reasons["postgres"] = f"Postgres does not answer ({', '.join(sorted(self._away))})"
        if self._redis is not None:
            reasons["redis"] = self._redis
        if reasons:
            return 200, {"status": "degraded", "reason": "; ".join(reasons[part] for part in sorted(reasons))}
        return 200, {"status": "ready"}
