"""Callers: the role and owner as which a request acts."""

from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What a caller may do (docs/security.md)."""

    ADMIN = "admin"
    USER = "user"
    RUNNER = "runner"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: a role and, but for some admins, an owner, which for a runner is the subject of its
    registrations. While authentication is off everybody is an admin without an owner.

    ``by``: as whom the audit log names it, ``key:`` and an id or ``subject:`` and an owner; no part of who it is.
    """

    role: Role = Role.ADMIN
    owner: str | None = None
    by: str | None = field(default=None, compare=False)

    @property
    def scope(self) -> str | None:
        """The owner whose rows the caller is limited to, or the subject as which it acts; None for no limit."""
        return None if self.role is Role.ADMIN else (self.owner or "")

    @property
    def key_space(self) -> str:
        """Whose idempotency keys the caller's are: a runner's name is not the user's of the same name, and admins
        without an owner are told apart by their keys.
        """
        if self.role is Role.RUNNER:
            return f"runner\x1f{self.owner or ''}"
        return self.owner or (f"admin\x1f{self.by}" if self.by is not None else "")

    @property
    def former_key_space(self) -> str | None:
        """Where the version before this one, and the time without authentication, kept an admin's keys; None: there."""
        return "" if self.owner is None and self.by is not None and self.role is Role.ADMIN else None


ADMIN = Caller()
