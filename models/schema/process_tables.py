from sqlalchemy import BigInteger, CheckConstraint, Column, Index, SmallInteger, Table, Text

from models.schema.columns import metadata, moment

waiting_polls = Table(
    "waiting_polls",
    metadata,
    Column("poll_id", Text, primary_key=True),
    Column("runner_id", Text, nullable=False),
    Column("registration", BigInteger, nullable=False),
    Column("instance", Text, nullable=False),
    Column("wanted", SmallInteger, nullable=False),
    Column("subject", Text),
    moment("seen_at", default=True),
    Index("ix_waiting_polls_runner", "runner_id"),
    prefixes=["UNLOGGED"],
)

instances = Table(
    "instances",
    metadata,
    Column("instance", Text, primary_key=True),
    moment("seen_at", default=True),
)

metrics_targets = Table(
    "metrics_targets",
    metadata,
    Column("address", Text, primary_key=True),
    Column("job", Text, nullable=False),
    Column("instance", Text, nullable=False),
    moment("seen_at", default=True),
)

duties = Table(
    "duties",
    metadata,
    Column("duty", Text, primary_key=True),
    # Its last begin, by which no other process does it at once, and the end of the last time that it was done.
    moment("last_run"),
    moment("done_at"),
)

# Outages, in which silence of the runners was or may have been our own doing (models.expiry.outages).
gaps = Table(
    "gaps",
    metadata,
    Column("gap_id", BigInteger, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    moment("started_at", nullable=False),
    moment("ended_at", nullable=False),
    CheckConstraint("kind IN ('expiry', 'web', 'runners')", name="kind"),
    Index("ix_gaps_ended_at", "ended_at"),
)
