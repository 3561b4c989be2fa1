from sqlalchemy import Boolean, Column, PrimaryKeyConstraint, Table, Text, text

from models.schema.columns import JsonText, metadata, moment

# Blueprint of a run, as it was resolved when the run was submitted; sent with the run to its runner.
run_blueprints = Table(
    "run_blueprints",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("blueprint", JsonText, nullable=False),
)

# Scripts that a procedural runner has to fetch, or to remove. ``sent_poll`` is the poll whose answer named the script.
runner_script_syncs = Table(
    "runner_script_syncs",
    metadata,
    Column("runner_id", Text, nullable=False),
    Column("script_name", Text, nullable=False),
    Column("removes", Boolean, nullable=False, server_default=text("false")),
    moment("queued_at", default=True),
    moment("sent_at"),
    Column("sent_poll", Text),
    PrimaryKeyConstraint("runner_id", "script_name", name="pk_runner_script_syncs"),
)
