"""Databases that tests use one after another: each test finds what the migrations leave."""

from functools import partial

import psycopg
import pytest

from testkit.servers import PostgresOfTests
from tests.support.databases import Databases, contents


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


WRITE = "INSERT INTO demand_profiles (hash, executor_type, tags) VALUES ('one', 'autonomous', '{}')"
MOVE_HEAD = "UPDATE feed_head SET last_pos = 4711, epoch = 'another'"


def test_reused_database_has_rows_and_sequences_of_new_one(postgres: PostgresOfTests) -> None:
    """Keep rows that the migrations wrote, remove all others, and restart ids."""
    databases = Databases(postgres.create, postgres.drop)
    url = databases.take()
    with psycopg.connect(url) as connection:
        new = contents(connection)
    run(url, WRITE, MOVE_HEAD, "DELETE FROM key_changes")
    databases.give_back(url)

    assert databases.take() == url
    with psycopg.connect(url) as connection:
        assert contents(connection) == new
    databases.close()
    postgres.drop(url)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE runs ADD COLUMN more text",
        "ALTER TABLE runs DROP CONSTRAINT ck_runs_ready",
        "CREATE INDEX more ON runs (owner)",
        "CREATE TABLE more (n int)",
        "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE runs DISABLE TRIGGER ALL",
        (
            "INSERT INTO demand_profiles (hash, executor_type, tags)"
            " SELECT repeat('x', 1000) || n, 'autonomous', '{}' FROM generate_series(1, 20000) n"
        ),
    ],
)
def test_database_with_other_schema_or_too_many_rows_is_dropped(postgres: PostgresOfTests, change: str) -> None:
    dropped: list[str] = []

    def drop(url: str) -> None:
        dropped.append(url)
        postgres.drop(url)

    databases = Databases(postgres.create, drop)
    url = databases.take()
    run(url, change)
    databases.give_back(url)
    assert dropped == [url]


def test_database_with_prepared_transaction_is_not_reused(postgres: PostgresOfTests) -> None:
    """Drop it, since the locks outlive every connection."""
    databases = Databases(postgres.create, partial(run_away, postgres))
    url = databases.take()
    run(url, "BEGIN", WRITE, "PREPARE TRANSACTION 'left'")
    databases.give_back(url)
    assert databases.take() != url
    databases.close()


def run_away(postgres: PostgresOfTests, url: str) -> None:
    """Drop the database with its prepared transactions."""
    run(url, "ROLLBACK PREPARED 'left'")
    postgres.drop(url)
