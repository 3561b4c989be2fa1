"""Submissions: the run that a client asks for, what is planned for it, and the answer."""

from dataclasses import dataclass, field
from datetime import datetime

from models.claims.matching import NO_DEMANDS, Demands
from models.core.callers import Caller
from models.core.statuses import RunType


@dataclass(frozen=True, slots=True)
class NewRun:
    """Submission of a run. ``parameters`` and ``scope`` are JSON text; times in seconds; ids made before the first try.

    ``session_id`` is the client's; ``new_session_id`` is used when a start has none. ``not_before`` and
    ``delay_seconds`` are two ways to say the same, the latter from now by the clock of Postgres. Without ``affinity`` a
    resume goes to any runner, wherever its session lives.
    """

    run_id: str
    session_id: str | None
    new_session_id: str
    caller: Caller
    type: RunType
    parameters: str
    agent_name: str | None = None
    project_dir: str | None = None
    parent_session_id: str | None = None
    scope: str | None = None
    execution_mode: str = "sync"
    additional_demands: Demands = NO_DEMANDS
    affinity: bool = True
    priority: int = 0
    not_before: datetime | None = None
    delay_seconds: float | None = None
    max_attempts: int = 1
    run_timeout_seconds: int | None = None
    no_match_timeout_seconds: int = 300
    labels: dict[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    body_hash: str | None = None

    @property
    def own_session(self) -> str:
        return self.session_id or self.new_session_id

    @property
    def key(self) -> tuple[str, str] | None:
        """Idempotency key with its namespace, that of the caller."""
        return None if self.idempotency_key is None else (self.caller.key_space, self.idempotency_key)

    @property
    def former_key(self) -> tuple[str, str] | None:
        """Key where it may have been stored before (``Caller.former_key_space``)."""
        space = self.caller.former_key_space
        return None if self.idempotency_key is None or space is None else (space, self.idempotency_key)


@dataclass(frozen=True, slots=True)
class Submitted:
    """Accepted run; ``replayed`` when its idempotency key had been answered before."""

    run_id: str
    session_id: str
    status: str = "pending"
    replayed: bool = False


@dataclass(slots=True)
class Plan:
    """Submission with the values inherited from its session and parent."""

    item: NewRun
    owner: str | None
    depth: int
    agent_name: str | None
    project_dir: str | None
    scope: str | None
    demands: Demands
    session_seq: int = 1
