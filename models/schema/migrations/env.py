"""Run Alembic on the connection that holds the lock of ``models.schema.migrate``, one transaction a revision."""

from alembic import context
from sqlalchemy import text

from models.schema.tables import metadata

connection = context.config.attributes["connection"]
# Give up a lock after 1 s: later queries queue behind it, and requests give up after 2 s.
connection.execute(text("SET lock_timeout = '1s'"))
connection.execute(text("SET statement_timeout = '10min'"))
connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
connection.commit()
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
