"""API keys: created, found and revoked, with a revision by which every process notices changes.

A token is ``crd_<12 hex>_<64 hex>``: the readable part, by which scanners and the lookup find it, and 256 random bits.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import Connection, Select, literal_column, select, text

from models.auth.audit import Act, AuditedAct, record_acts
from models.core.callers import Role
from models.core.errors import NotFound
from models.schema.columns import any_of, array_rows
from models.schema.sql import sql
from models.schema.tables import api_keys

PREFIX: Final = "crd_"
TOKEN: Final = re.compile(r"(crd_[0-9a-f]{12})_([0-9a-f]{64})")
# Write the last use of a key at most once in so many seconds.
LAST_USED_SECONDS: Final = 60


class Token(NamedTuple):
    key_id: str
    secret_hash: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """Key to create. ``expires_in`` in seconds from now by the clock of Postgres, None for never."""

    key_id: str
    secret_hash: str
    role: Role
    owner: str | None = None
    name: str | None = None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """Stored key; ``lives_for``: seconds until it expires, 0 when it is expired or revoked, None for no expiry."""

    key_id: str
    secret_hash: str
    role: Role
    owner: str | None
    name: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    lives_for: float | None

    @property
    def state(self) -> str:
        return "revoked" if self.revoked_at is not None else "expired" if self.lives_for == 0 else "good"


FindResult: TypeAlias = Key | NotFound

_READ: Select[Any] = select(
    *(api_keys.c[field.name] for field in fields(Key) if field.name != "lives_for"),
    literal_column("""
        CASE WHEN revoked_at IS NOT NULL THEN 0
             WHEN expires_at IS NOT NULL
             THEN greatest(CAST(extract(epoch FROM expires_at - clock_timestamp()) AS float), 0) END
    """).label("lives_for"),
)

_ADD = sql(
    """
    INSERT INTO api_keys ($columns, expires_at)
    SELECT $values, now() + make_interval(secs => k.expires_in)
    FROM unnest($arrays, CAST(:expires_in AS double precision[])) AS k($columns, expires_in)
    ORDER BY k.key_id
    ON CONFLICT (key_id) DO NOTHING
    RETURNING key_id, owner
    """,
    **array_rows("k", api_keys, ["key_id", "secret_hash", "role", "owner", "name"]),
)

_FIND = _READ.where(api_keys.c.key_id == any_of("key_ids"))

_LIST = _READ.order_by(api_keys.c.created_at, api_keys.c.key_id)

_REVOKE = text("""
    UPDATE api_keys SET revoked_at = clock_timestamp()
    WHERE key_id IN (
        SELECT key_id FROM api_keys WHERE key_id = ANY(CAST(:key_ids AS text[])) AND revoked_at IS NULL
        ORDER BY key_id FOR NO KEY UPDATE)
    RETURNING key_id, owner
""")

# Keep the row locked until the commit, so that a reader of a number sees every change that it counts.
_COUNT_CHANGE = text("UPDATE key_changes SET revision = revision + 1")

_REVISION = text("SELECT revision FROM key_changes")

_TOUCH = text("""
    UPDATE api_keys SET last_used_at = clock_timestamp()
    WHERE key_id IN (
        SELECT key_id FROM api_keys
        WHERE key_id = ANY(CAST(:key_ids AS text[]))
          AND coalesce(last_used_at, '-infinity') < now() - make_interval(secs => :apart)
        ORDER BY key_id FOR NO KEY UPDATE SKIP LOCKED)
""")


def mint_token() -> tuple[str, Token]:
    key_id = PREFIX + secrets.token_hex(6)
    secret = secrets.token_hex(32)
    return f"{key_id}_{secret}", Token(key_id, hash_secret(secret))


def parse_token(token: str) -> Token | None:
    found = TOKEN.fullmatch(token)
    return None if found is None else Token(found[1], hash_secret(found[2]))


def hash_secret(secret: str) -> str:
    """Return the hash that is stored of a secret: 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def is_secret(key: Key, token: Token) -> bool:
    return hmac.compare_digest(key.secret_hash, token.secret_hash)


def create_keys(conn: Connection, items: Sequence[NewKey], by: str) -> list[FindResult]:
    """Store keys; from the first one on every process requires credentials. Safe to repeat with the same ids.

    ``by``: the name that answers for it in the audit log.
    """
    made = conn.execute(
        _ADD,
        {
            "key_id": [item.key_id for item in items],
            "secret_hash": [item.secret_hash for item in items],
            "role": [item.role.value for item in items],
            "owner": [item.owner for item in items],
            "name": [item.name for item in items],
            "expires_in": [item.expires_in for item in items],
        },
    ).all()
    conn.execute(_COUNT_CHANGE)
    record_acts(conn, [AuditedAct(Act.KEY_CREATED, by, key.key_id, key.owner) for key in made])
    return find_keys(conn, [item.key_id for item in items])


def revoke_keys(conn: Connection, key_ids: Sequence[str], by: str) -> list[FindResult]:
    """Revoke keys for ever; every process knows within 5 s. Safe to repeat. NotFound for an unknown id.

    ``by``: the name that answers for it in the audit log.
    """
    revoked = conn.execute(_REVOKE, {"key_ids": list(key_ids)}).all()
    if revoked:
        conn.execute(_COUNT_CHANGE)
        record_acts(conn, [AuditedAct(Act.KEY_REVOKED, by, key.key_id, key.owner) for key in revoked])
    return find_keys(conn, key_ids)


def find_keys(conn: Connection, key_ids: Sequence[str]) -> list[FindResult]:
    """Return the keys by their ids, revoked and expired ones too. NotFound for an unknown id."""
    found = {key.key_id: key for key in _as_keys(conn.execute(_FIND, {"key_ids": sorted(set(key_ids))}))}
    return [found.get(key_id) or NotFound("key", key_id) for key_id in key_ids]


def list_keys(conn: Connection) -> list[Key]:
    """Return all keys, oldest first."""
    return _as_keys(conn.execute(_LIST))


def key_revision(conn: Connection) -> int:
    """Return how often keys were created or revoked; 0 when there was never one."""
    return int(conn.execute(_REVISION).scalar_one())


def touch_keys(conn: Connection, key_ids: Sequence[str]) -> list[None]:
    """Record the use of keys, of each at most once a minute.

    Locked rows are skipped, and the commit does not wait for the disk.
    """
    conn.execute(text("SET LOCAL synchronous_commit = off"))
    conn.execute(_TOUCH, {"key_ids": list(key_ids), "apart": LAST_USED_SECONDS})
    return [None for _ in key_ids]


def _as_keys(rows: Iterable[Sequence[Any]]) -> list[Key]:
    return [Key(key_id, secret_hash, Role(role), *rest) for key_id, secret_hash, role, *rest in rows]
