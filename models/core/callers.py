from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

# Name of callers without one, as all are while authentication is off.
UNNAMED: Final = "open"


class Role(StrEnum):
    ADMIN = "admin"
    USER = "user"
    RUNNER = "runner"


@dataclass(frozen=True, slots=True)
class Caller:
    """Origin of a request: a role and, except for some admins, an owner; a runner's owner is the subject of its
    registrations.

    While authentication is off every caller is an admin without an owner. ``by``: name for the audit log, ``key:`` and
    an id or ``subject:`` and an owner; excluded from equality.
    """

    role: Role = Role.ADMIN
    owner: str | None = None
    by: str | None = field(default=None, compare=False)

    @property
    def subject(self) -> str | None:
        """Name as which the caller acts, "" without an owner; None for an admin, which acts for all owners.

        ``owner_filter`` (models/state/visibility.py) limits rows by owner: not those of a runner, which sees trees.
        """
        return None if self.role is Role.ADMIN else (self.owner or "")

    @property
    def key_space(self) -> str:
        """Namespace of the caller's idempotency keys.

        A runner does not share that of the user of the same name, and each admin without an owner has one by its key.
        """
        if self.role is Role.RUNNER:
            return f"runner\x1f{self.owner or ''}"
        return self.owner or (f"admin\x1f{self.by}" if self.by is not None else "")

    @property
    def former_key_space(self) -> str | None:
        """Namespace of an admin's idempotency keys in the version before this one and without authentication, None if
        the same.
        """
        return "" if self.owner is None and self.by is not None and self.role is Role.ADMIN else None


ADMIN = Caller()
