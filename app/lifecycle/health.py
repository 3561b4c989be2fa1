"""What this process knows of the parts it depends on, and what it says when asked whether it is ready."""

from collections.abc import Mapping
from typing import Any

from app.lifecycle.drain import Drain


class Health:
    """Ready after the first good look at the schema and until draining; what goes away later only degrades it.

    Otherwise a restart of Postgres would empty the load balancer, and the deployed runners would end their work.
    """

    def __init__(self, drain: Drain) -> None:
        self._drain = drain
        self._started = False
        self._away: set[str] = set()
        self._redis: str | None = None
        self._reasons: Mapping[str, str] = {}

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return self._started and not self._drain.draining

    @property
    def started(self) -> bool:
        """Whether the database was there once and had the tables that this version needs."""
        return self._started

    @property
    def schema_fault(self) -> str | None:
        """What is wrong with the tables, when that is known: nothing can be served with them."""
        return None if self._started else self._reasons.get("schema")

    def start(self) -> None:
        """Note that it was and had."""
        self._started = True
        self._away.clear()

    @property
    def away(self) -> frozenset[str]:
        """Pools of connections over which Postgres did not answer when it was asked last."""
        return frozenset(self._away)

    def postgres_contact(self, pool: str, there: bool) -> bool:  # noqa: FBT001 -- a callback takes its arguments by position
        """Note whether Postgres answered over this pool; True when it is back there after having been away.

        Each pool speaks for itself: a role may have no connection left for one while the others go on.
        """
        back = there and pool in self._away
        (self._away.discard if there else self._away.add)(pool)
        return back

    def note_redis(self, fault: str | None) -> None:
        """Set what is wrong with Redis; None when it does its part."""
        self._redis = fault

    def note(self, reasons: Mapping[str, str]) -> None:
        """Set what else is away, by part; empty when all is well."""
        self._reasons = dict(reasons)

    def report(self) -> tuple[int, dict[str, Any]]:
        """Return status and body of ``/health/ready`` (PROTOCOL, Health)."""
        # A balancer that asks us on a connection it kept means our successor, which it will reach by the next one.
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
