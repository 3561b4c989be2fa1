"""Registrations: the process to register, and its relation to the one that is stored. Decisions only.

An identity belongs to its owner: the same four properties of another owner are another runner (docs/decisions/0023).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from models.core.ids import runner_identity, uuid7
from models.state.agents import RunnerAgent
from models.state.visibility import acts_for


@dataclass(frozen=True, slots=True)
class Registration:
    """Process to register. ``executor`` is JSON text; ``agents`` have distinct names.

    ``registration_uid`` is made before the first try, so that a repeat is recognised. ``owner``: the owner of the
    registration, None while authentication is off; ``subject``: the caller, which may replace only registrations of its
    own, None for an admin.
    """

    hostname: str
    project_dir: str
    executor_profile: str
    tags: tuple[str, ...] = ()
    executor: str | None = None
    executor_type: str | None = None
    command: str | None = None
    require_matching_tags: bool = False
    agents: tuple[RunnerAgent, ...] = ()
    capacity: int | None = None
    instance_id: str | None = None
    owner: str | None = None
    subject: str | None = None
    registration_uid: str = field(default_factory=uuid7)

    @property
    def runner_id(self) -> str:
        """Id that these four properties always give, unless another owner's runner has it."""
        return runner_identity(self.hostname, self.project_dir, self.executor_profile, self.command)

    @property
    def own_id(self) -> str | None:
        if self.owner is None:
            return None
        return runner_identity(self.hostname, self.project_dir, self.executor_profile, self.command, self.owner)


class Relation(Enum):
    REPEATED = auto()
    DUPLICATE = auto()
    SAME_PROCESS = auto()
    SAME_PROCESS_OTHER_OFFER = auto()
    ANOTHER_PROCESS = auto()


# Relations that give the runner a new number.
CHANGING = frozenset({Relation.ANOTHER_PROCESS, Relation.SAME_PROCESS_OTHER_OFFER})


@dataclass(frozen=True, slots=True)
class Existing:
    """Stored registration; ``is_stale`` by the rule of expiry."""

    runner_id: str
    registration: int
    registration_uid: str
    instance_id: str | None
    owner: str | None
    executor_type: str | None
    tags: list[str]
    require_matching_tags: bool
    sends_tokens: bool
    lost_at: datetime | None
    left_at: datetime | None
    leave_told_at: datetime | None
    is_stale: bool


def relation_to(row: Existing, item: Registration) -> Relation:
    if row.registration_uid == item.registration_uid:
        return Relation.REPEATED
    same = item.instance_id is not None and item.instance_id == row.instance_id
    if not acts_for(item.subject, row.owner):
        return Relation.DUPLICATE
    if row.left_at is not None:
        return Relation.ANOTHER_PROCESS
    if same:
        # Renumber for another owner, since a number has one owner. An admin that reconnects another's process changes
        # no owner.
        owner = row.owner if item.subject is None else item.owner
        offers = (row.owner, row.executor_type, frozenset(row.tags), row.require_matching_tags)
        unchanged = offers == (owner, item.executor_type, frozenset(item.tags), item.require_matching_tags)
        return Relation.SAME_PROCESS if unchanged else Relation.SAME_PROCESS_OTHER_OFFER
    if row.is_stale or row.lost_at is not None or row.leave_told_at is not None:
        return Relation.ANOTHER_PROCESS
    return Relation.DUPLICATE


def identity(item: Registration, rows: Mapping[str, Existing]) -> str:
    """Return the runner id of the item; ``rows`` are the existing ones of its two ids.

    The owner's own id if that exists, else the plain one, unless that is another owner's, or online without an owner
    (from a time without authentication), which must not keep an owner out.
    """
    own_id, plain = item.own_id, rows.get(item.runner_id)
    if own_id is not None and (own_id in rows or (plain is not None and not is_open_to(item, plain))):
        return own_id
    return item.runner_id


def is_open_to(item: Registration, row: Existing) -> bool:
    if item.owner is None or row.owner == item.owner:
        return True
    relation = relation_to(row, item)
    if row.owner is None:
        return relation is not Relation.DUPLICATE
    same = {Relation.REPEATED, Relation.SAME_PROCESS, Relation.SAME_PROCESS_OTHER_OFFER}
    return item.subject is None and relation in same
