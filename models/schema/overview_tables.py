from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, DateTime, Index, Integer, Table, Text

from models.schema.columns import metadata, moment

# Counts of the history by minute and by hour, for each way in which they are asked for (models.overview.rollup).
run_totals = Table(
    "run_totals",
    metadata,
    Column("step", Integer, primary_key=True, autoincrement=False),
    # Dimensions that are told apart: owner and label; those that are not are "". So is the owner or agent of a run
    # that has none.
    Column("grouped_by", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("measure", Text, primary_key=True),
    Column("period", DateTime(timezone=True), primary_key=True),
    Column("label", Text, primary_key=True),
    # Of a histogram; 0 for a count.
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Index("ix_run_totals_period", "step", "period"),
    postgresql_with={"fillfactor": "80"},
)

# Position in the feed up to which its events are in run_totals.
run_totals_head = Table(
    "run_totals_head",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default="true"),
    Column("position", BigInteger, nullable=False, server_default="0"),
    moment("as_of"),
    CheckConstraint("only_row", name="only_row"),
)

# Not written or read since revision 0035, in no release: both go with the next contraction.
run_stats = Table(
    "run_stats",
    metadata,
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("measure", Text, primary_key=True),
    Column("period", DateTime(timezone=True), primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("profile_id", BigInteger, primary_key=True, autoincrement=False),
    Column("agent", Text, primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    postgresql_with={"fillfactor": "80"},
)
run_stats_head = Table(
    "run_stats_head",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default="true"),
    Column("position", BigInteger, nullable=False, server_default="0"),
    moment("as_of"),
    CheckConstraint("only_row", name="only_row"),
)
