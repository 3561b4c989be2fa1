from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY

from models.schema.columns import VACUUMED_EARLY, JsonText, metadata, moment

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("feed_pos", BigInteger),
    # Key of a client; our own events need none, but for those of requests that may come again.
    Column("event_uid", Text, unique=True),
    Column("kind", Text, nullable=False),
    Column("event_type", Text),
    Column("session_id", Text, nullable=False),
    Column("run_id", Text),
    Column("owner", Text),
    Column("frame", JsonText, nullable=False),
    moment("created_at", default=True),
    Index("uq_events_position", "feed_pos", unique=True, postgresql_where=text("feed_pos IS NOT NULL")),
    Index("ix_events_unnumbered", "id", postgresql_where=text("feed_pos IS NULL")),
    Index("ix_events_session", "session_id", "feed_pos", "id"),
    Index("ix_events_result", "session_id", "id", postgresql_where=text("event_type = 'result'")),
    postgresql_with=VACUUMED_EARLY,
)

# Events that wait for their positions, all those of one statement in a row: numbering inserts them into events. A
# batch that could not be numbered would stop the feed, so only complete ones are accepted.
unnumbered_batches = Table(
    "unnumbered_batches",
    metadata,
    Column("first_id", BigInteger, primary_key=True, autoincrement=False),
    moment("created_at", default=True),
    Column("ids", ARRAY(BigInteger), nullable=False),
    *(Column(name, ARRAY(Text), nullable=False) for name in ("kinds", "session_ids", "owners", "run_ids")),
    Column("event_types", ARRAY(Text), nullable=False),
    Column("frames", ARRAY(JsonText), nullable=False),
    CheckConstraint(
        "first_id = ids[1] AND num_nulls(VARIADIC ids) = 0"
        " AND num_nulls(VARIADIC kinds) = 0 AND cardinality(kinds) = cardinality(ids)"
        " AND num_nulls(VARIADIC session_ids) = 0 AND cardinality(session_ids) = cardinality(ids)"
        " AND num_nulls(VARIADIC frames) = 0 AND cardinality(frames) = cardinality(ids)"
        " AND cardinality(owners) = cardinality(ids) AND cardinality(run_ids) = cardinality(ids)"
        " AND cardinality(event_types) = cardinality(ids)",
        name="complete",
    ),
    postgresql_with={
        "toast_tuple_target": "8160",
        "vacuum_truncate": "off",
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_threshold": "1000",
        "autovacuum_vacuum_insert_threshold": "-1",
        "autovacuum_analyze_threshold": "2000000000",
    },
)

# Newest result of a session whose events retention has dropped. No foreign key: a delete leaves it to upkeep.
kept_results = Table(
    "kept_results",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("event_id", BigInteger, nullable=False),
    Column("frame", JsonText, nullable=False),
)

# Counts of the events of runs, while there is a bound on them (models.feed.event_counts).
run_event_counts = Table(
    "run_event_counts",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("events", BigInteger, nullable=False),
    postgresql_with={"fillfactor": "50"},
)

feed_head = Table(
    "feed_head",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default="true"),
    Column("last_pos", BigInteger, nullable=False, server_default="0"),
    # Position up to which retention has dropped events: older cursors are expired.
    Column("floor", BigInteger, nullable=False, server_default="0"),
    # Watermark of numbering: the search for unnumbered events begins behind this id.
    Column("numbered_below", BigInteger, nullable=False, server_default="0"),
    Column("epoch", Text, nullable=False),
    # Id to which the watermark of numbering is raised next, and the moment of its last move.
    Column("next_floor", BigInteger, nullable=False, server_default="0"),
    moment("floors_moved_at", default=True),
    CheckConstraint("only_row", name="only_row"),
)

# Position in the feed up to which the spans of ended runs are exported (models.tracing).
trace_head = Table(
    "trace_head",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default="true"),
    Column("position", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("only_row", name="only_row"),
)
