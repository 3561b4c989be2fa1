from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

# Expected status codes of each call; anything else is a failure. 404: the session was deleted meanwhile; 409 of a
# report: the run was given to another runner; of a registration: its previous process still counts as alive.
EXPECTED = {
    "submit": {200, 201, 404},
    "event": {201, 404, 409},
    "stop": {200, 404},
    "delete": {200, 404, 409},
    "read": {200, 404},
    "register": {200, 409},
    "poll": {200, 204},
    "heartbeat": {200},
    "started": {200, 404, 409},
    "completed": {200, 404, 409},
    "failed": {200, 404, 409},
    "stopped": {200, 404, 409},
    "bind": {200, 404, 409},
}


@dataclass(frozen=True)
class Failure:
    """Call that was not answered as expected; without a ``code`` it had no answer. Times are monotonic."""

    kind: str
    where: str
    begun: float
    ended: float
    code: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.where}: {self.code or 'no answer'} {self.text[:200]!r}"

    def at(self, beginning: float) -> str:
        return f"{self} ({self.begun - beginning:.1f} to {self.ended - beginning:.1f} s)"


@dataclass(frozen=True)
class Delivery:
    run_id: str
    token: str
    runner: str
    asked: float
    at: float


@dataclass(frozen=True)
class Report:
    run_id: str
    token: str
    outcome: str
    code: int
    begun: float


@dataclass(frozen=True)
class Drain:
    """Drain of a runner, from its acknowledgement to just before its end is asked for, by the clock of Postgres."""

    runner_id: str
    since: datetime
    until: datetime


@dataclass
class Ledger:
    accepted: dict[str, str] = field(default_factory=dict)
    session_of: dict[str, str] = field(default_factory=dict)
    # Keys that got different runs at different times.
    contradictions: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    delete_asked: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    # Event keys answered with 201, by session.
    events: dict[str, list[str]] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    # Runs started by a runner that then died for good.
    orphaned: list[str] = field(default_factory=list)
    drains: list[Drain] = field(default_factory=list)

    def accept(self, key: str, run_id: str, session_id: str) -> None:
        if self.accepted.setdefault(key, run_id) != run_id:
            self.contradictions.append(f"key {key}: {self.accepted[key]} and {run_id}")
        self.session_of[run_id] = session_id
