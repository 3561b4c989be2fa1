from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Identity, Index, Table, Text

from models.core.callers import Role
from models.schema.columns import JsonText, metadata, moment, one_of

# Store only the hash of a key's secret; `key_id` is the readable part by which it is found.
api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("secret_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("owner", Text),
    Column("name", Text),
    moment("created_at", default=True),
    moment("expires_at"),
    moment("revoked_at"),
    moment("last_used_at"),
    CheckConstraint(one_of("role", Role), name="role"),
    CheckConstraint("role = 'admin' OR owner IS NOT NULL", name="owned"),
)

# Counts changes of api_keys; 0 means that there was never a key.
key_changes = Table(
    "key_changes",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default="true"),
    Column("revision", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("only_row", name="only_row"),
)

# Deleted by the stream that redeems it.
stream_tickets = Table(
    "stream_tickets",
    metadata,
    Column("ticket_hash", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("owner", Text),
    Column("key_id", Text),
    # Of the session of the console that asked for it.
    Column("session_hash", Text),
    moment("valid_until"),
    Column("filters", JsonText, nullable=False),
    moment("expires_at", nullable=False),
    CheckConstraint(one_of("role", Role), name="role"),
    Index("ix_stream_tickets_expires_at", "expires_at"),
)

# Found by the hash of the cookie; ends with its key.
console_sessions = Table(
    "console_sessions",
    metadata,
    Column("session_hash", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("owner", Text),
    Column("key_id", Text),
    moment("created_at", default=True),
    moment("expires_at", nullable=False),
    CheckConstraint(one_of("role", Role), name="role"),
    Index("ix_console_sessions_expires_at", "expires_at"),
)

# Sign-ins by OIDC that opened a session: none opens a second one.
console_sign_ins = Table(
    "console_sign_ins",
    metadata,
    Column("sign_in_hash", Text, primary_key=True),
    Column("session_hash", Text, nullable=False),
    moment("expires_at", nullable=False),
    Index("ix_console_sign_ins_expires_at", "expires_at"),
)

# Kept for ever: no foreign key, since the target may be gone, and no check of acts, since the next release may add
# some.
audit_log = Table(
    "audit_log",
    metadata,
    Column("audit_id", BigInteger, Identity(), primary_key=True),
    Column("act", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("owner", Text),
    moment("created_at", default=True),
)
