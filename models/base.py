"""What every noun of the truth is made of: ids, callers, time limits and the JSON-as-text column type."""

import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

from sqlalchemy import ARRAY, ColumnElement, Text, any_, bindparam, cast
from sqlalchemy.types import UserDefinedType

RunId = NewType("RunId", str)
SessionId = NewType("SessionId", str)
RunnerId = NewType("RunnerId", str)


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


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, built once from the settings and passed to the verbs that need them.

    ``priority_ageing``: how long a ready run waits for one more priority (``models.ageing``); 0: it gains none.
    """

    claim_timeout: float = 15
    start_timeout: float = 120
    stop_timeout: float = 60
    stale_after: float = 30
    lost_after: float = 60
    forget_runner: float = 86_400
    orphan_after: float = 900
    no_match_timeout: int = 300
    priority_ageing: float = 0
    told_heartbeat: int = 60
    told_heartbeat_instance: int = 10
    report_hold: float = 25
    max_depth: int = 10


DEFAULT_LIMITS = Limits()


class _Clock:
    """The millisecond and counter of the last id, so that ids of one process never go backwards."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.milliseconds = 0
        self.counter = 0


_clock = _Clock()


def uuid7() -> str:
    """Return a UUIDv7 as 32 hex digits; strictly increasing within one process."""
    with _clock.lock:
        now = time.time_ns() // 1_000_000
        if now > _clock.milliseconds:
            _clock.milliseconds = now
            _clock.counter = int.from_bytes(os.urandom(4), "big") >> 2
        else:
            _clock.counter += 1
            if _clock.counter >= 1 << 32:
                _clock.milliseconds += 1
                _clock.counter = 0
        milliseconds, counter = _clock.milliseconds, _clock.counter
    # 48 bits of time, version, 12 + 20 bits of counter around the variant, 42 bits of chance
    high = (milliseconds << 16) | 0x7000 | (counter >> 20)
    low = (0b10 << 62) | ((counter & 0xFFFFF) << 42) | (int.from_bytes(os.urandom(6), "big") >> 6)
    return f"{high:016x}{low:016x}"


def new_id(prefix: str) -> str:
    """Return ``prefix`` followed by a UUIDv7: ids of one prefix sort by creation time."""
    return prefix + uuid7()


def runner_identity(
    hostname: str, project_dir: str, executor_profile: str, command: str | None, owner: str | None = None
) -> RunnerId:
    """Return the id that the same four properties always give (PROTOCOL, Nouns); with an ``owner``, the id of that
    owner's runner where another owner's has the plain one. The length keeps the two kinds apart.
    """
    identity = f"{hostname}:{project_dir}:{executor_profile}:{command or ''}"
    whose, digits = ("", 12) if owner is None else (f"{owner}\x1f", 24)
    return RunnerId("lnch_" + hashlib.sha256((whose + identity).encode("utf-8", "replace")).hexdigest()[:digits])


# Arrays, not joined sets: a plan that was made while the tables were empty reads them by key when they are full, too.
def any_of(name: str) -> Any:
    """Return the parameter of this name, an array of texts, to be compared with a column."""
    return any_(bindparam(name, type_=ARRAY(Text)))


class JsonText(UserDefinedType[str]):
    """A ``json`` column whose values go in and come out as text, untouched.

    ``json`` keeps NUL escapes and lone surrogates that ``jsonb`` refuses, and text spares two conversions per row.
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"

    def bind_expression(self, bindvalue: Any) -> ColumnElement[Any]:
        return cast(bindvalue, _PlainJson())

    def column_expression(self, column: Any) -> ColumnElement[Any]:
        return cast(column, Text)


class _PlainJson(UserDefinedType[str]):
    """The target of the cast in ``JsonText``; has no expressions of its own, so that the cast ends."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"
