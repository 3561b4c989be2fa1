"""Databases of a test's own with many rows: for plans."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, text

from testkit.servers import PostgresOfTests


@contextmanager
def filled_database(postgres: PostgresOfTests, statements: str) -> Iterator[Engine]:
    """Create a migrated database, execute the statements, which hold no parameters, and drop it at the end."""
    url = postgres.create()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as connection:
        connection.execute(text(statements.replace(":", "\\:")))
    yield engine
    engine.dispose()
    postgres.drop(url)
