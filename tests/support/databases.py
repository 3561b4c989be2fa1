"""Keep databases of tests for the next test: emptied to what the migrations leave, instead of copied anew.

A copy of the template is some 300 files, and takes ten times as long as deleting a few hundred rows.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

# Bound their size: deleted rows stay in the files until a vacuum.
MOST_USES = 25
MOST_BYTES = 16 * 1024**2
PATIENCE = "-c lock_timeout=5s -c statement_timeout=20s"

_TABLES = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname
"""
_SEQUENCES = """
    SELECT format('%I.%I', schemaname, sequencename) AS name, coalesce(last_value, start_value) AS value,
        last_value IS NOT NULL AS called
    FROM pg_sequences ORDER BY 1
"""
_BYTES = """
    SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""
_OTHERS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_INSERT = "INSERT INTO {} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::{}, %s)"
# Everything that DDL, a setting of the database or a prepared transaction would change.
_SCHEMA = """
    SELECT md5(concat(
        (SELECT string_agg(concat(c.oid, c.relname, c.relchecks, c.reltriggers, c.reloptions, c.relfilenode), ' ')
         FROM (SELECT oid, relname, relchecks, relhastriggers AS reltriggers, reloptions, relfilenode FROM pg_class
               WHERE relnamespace = 'public'::regnamespace ORDER BY oid) c),
        (SELECT string_agg(concat(a.attrelid, a.attname, a.atttypid, a.attnotnull, a.atthasdef, a.attstattarget), ' ')
         FROM (SELECT attrelid, attname, atttypid, attnotnull, atthasdef, attstattarget FROM pg_attribute
               JOIN pg_class ON pg_class.oid = attrelid AND relnamespace = 'public'::regnamespace
               ORDER BY attrelid, attnum) a),
        (SELECT string_agg(concat(p.oid, md5(p.prosrc), p.proconfig), ' ')
         FROM (SELECT oid, prosrc, proconfig FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY oid) p),
        (SELECT string_agg(concat(t.oid, t.tgenabled), ' ')
         FROM (SELECT oid, tgenabled FROM pg_trigger ORDER BY oid) t),
        (SELECT string_agg(concat(o.oid), ' ') FROM (SELECT oid FROM pg_constraint ORDER BY oid) o),
        (SELECT string_agg(concat(d.oid, d.adbin), ' ') FROM (SELECT oid, adbin FROM pg_attrdef ORDER BY oid) d),
        (SELECT count(*) FROM pg_db_role_setting
         WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())),
        (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())))
"""


@dataclass(frozen=True)
class _Contents:
    """Contents of a new database: rows by table as JSON, sequences, and the fingerprint of its schema."""

    rows: dict[str, str]
    sequences: list[tuple[str, int, bool]]
    schema: str


@dataclass
class Databases:
    """Databases of one test process, by URL: `take` one, and `give_back` it as soon as its test is over."""

    create: Callable[[], str]
    drop: Callable[[str], None]
    _free: list[str] = field(default_factory=list)
    _new: dict[str, _Contents] = field(default_factory=dict)
    _uses: Counter[str] = field(default_factory=Counter)
    _connections: dict[str, "psycopg.Connection[Any]"] = field(default_factory=dict)

    def take(self) -> str:
        """Return a database as the migrations leave it."""
        url = self._free.pop() if self._free else self._made()
        self._uses[url] += 1
        return url

    def give_back(self, url: str) -> None:
        """Empty the database for the next test; drop one that has changed otherwise or is too large."""
        try:
            usable = self._uses[url] < MOST_USES and restored(self._connection(url), self._new[url])
        except psycopg.Error:
            usable = False
        if usable:
            self._free.append(url)
        else:
            self._connections.pop(url).close()
            self._new.pop(url)
            self.drop(url)

    def close(self) -> None:
        """Close the connections that are kept."""
        for connection in self._connections.values():
            connection.close()

    def _connection(self, url: str) -> "psycopg.Connection[Any]":
        """Return the connection that is kept for this database: a new one reads the catalog again, for 50 ms."""
        connection = self._connections[url]
        try:
            connection.execute("SELECT")
        except psycopg.OperationalError:
            connection.close()
            connection = self._connections[url] = connected(url)
        return connection

    def _made(self) -> str:
        url = self.create()
        self._connections[url] = connection = connected(url)
        with connection.transaction():
            self._new[url] = contents(connection)
        return url


def connected(url: str) -> "psycopg.Connection[Any]":
    """Connect for restoring; each statement is its own transaction unless one is begun."""
    return psycopg.connect(url, options=PATIENCE, autocommit=True, prepare_threshold=None)


def contents(connection: "psycopg.Connection[Any]") -> _Contents:
    """Return what the database holds now."""
    rows: dict[str, str] = {}
    for (table,) in connection.execute(_TABLES).fetchall():
        query = sql.SQL("SELECT json_agg(t)::text FROM {} t").format(sql.Identifier(table))
        rows[table] = (connection.execute(query).fetchone() or [None])[0] or ""
    ((schema,),) = connection.execute(_SCHEMA).fetchall()
    return _Contents(rows, connection.execute(_SEQUENCES).fetchall(), schema)


def restored(connection: "psycopg.Connection[Any]", new: _Contents) -> bool:
    """Restore rows and sequences; return False if more than those has changed."""
    connection.execute(_OTHERS)
    with connection.transaction():
        ((size,),) = connection.execute(_BYTES).fetchall()
        ((schema,),) = connection.execute(_SCHEMA).fetchall()
        if size > MOST_BYTES or schema != new.schema:
            return False
        connection.execute("SET LOCAL session_replication_role = replica")
        deletes = [sql.SQL("DELETE FROM {}").format(sql.Identifier(table)) for table in new.rows]
        connection.execute(sql.SQL("; ").join(deletes))
        for table, rows in new.rows.items():
            if rows:
                query = sql.SQL(_INSERT).format(sql.Identifier(table), sql.Identifier(table))
                connection.execute(query, (rows,))
        for name, value, called in new.sequences:
            connection.execute("SELECT setval(%s::regclass, %s, %s)", (name, value, called))
    return True
