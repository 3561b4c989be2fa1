from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from models.core.statuses import DeliveryState
from models.schema.columns import metadata, moment, one_of
from models.schema.sql import sql

# Addresses that are told of ends. An owner of NULL is told of all. The number tells a webhook from a later one of the
# same id, so that deliveries of a deleted one belong to none.
webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_no", BigInteger, Identity(), primary_key=True),
    Column("webhook_id", Text, nullable=False, unique=True),
    Column("owner", Text),
    Column("url", Text, nullable=False),
    Column("events", ARRAY(Text), nullable=False),
    Column("agent_name", Text),
    Column("labels", JSONB),
    Column("description", Text),
    Column("disabled", Boolean, nullable=False, server_default="false"),
    Column("disabled_reason", Text),
    # Position in the feed behind which its events begin.
    Column("after_position", BigInteger, nullable=False),
    Column("created_by", Text),
    moment("created_at", default=True),
    moment("updated_at", default=True),
)

# In clear text, since each delivery is signed with them. The current one has no end.
webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("webhook_no", BigInteger, primary_key=True, autoincrement=False),
    Column("secret", Text, primary_key=True),
    moment("made_at", default=True),
    moment("valid_until"),
)

# Messages to send, one a webhook and event. While one is being sent it has a lease, which ends at next_at.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("delivery_id", BigInteger, Identity(), primary_key=True),
    Column("webhook_no", BigInteger, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    # Empty for a test: tests wait for nothing.
    Column("session_id", Text, nullable=False),
    Column("run_id", Text),
    # Text of the body, the same in each attempt.
    Column("payload", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=DeliveryState.PENDING.value),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease", Text),
    Column("response_status", Integer),
    Column("error", Text),
    moment("next_at", default=True),
    moment("created_at", default=True),
    moment("last_attempt_at"),
    moment("ended_at"),
    CheckConstraint(one_of("state", DeliveryState), name="state"),
    CheckConstraint(sql("(state = $DELIVERY_PENDING) = (ended_at IS NULL)"), name="ended"),
    CheckConstraint(sql("state = $DELIVERY_PENDING OR lease IS NULL"), name="leased"),
    UniqueConstraint("webhook_no", "event_id"),
    Index("ix_webhook_deliveries_newest", "webhook_no", text("delivery_id DESC")),
    Index("ix_webhook_deliveries_state", "webhook_no", "state", text("delivery_id DESC")),
    Index("ix_webhook_deliveries_due", "webhook_no", "next_at", postgresql_where=sql("state = $DELIVERY_PENDING")),
    Index(
        "ix_webhook_deliveries_order",
        "webhook_no",
        "session_id",
        "delivery_id",
        postgresql_where=sql("state = $DELIVERY_PENDING"),
    ),
    Index(
        "ix_webhook_deliveries_leased",
        "webhook_no",
        "next_at",
        postgresql_where=text("lease IS NOT NULL"),
    ),
)

# Position in the feed up to which its events are in webhook_deliveries.
webhook_head = Table(
    "webhook_head",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default="true"),
    Column("position", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("only_row", name="only_row"),
)
