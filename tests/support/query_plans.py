"""Read the plan that Postgres chose for a statement and the rows it touched, never the time it took."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg
from sqlalchemy import ClauseElement, Connection, Row, TextClause, event, text

_NAMES = re.compile(r"(?<!:):([a-z_][a-z_0-9]*)")
_numbers = count()
# Let the planner expect 50 times as many rows as the tables have.
LARGE = """
UPDATE pg_class SET reltuples = 50 * reltuples
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') AND reltuples > 0
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """An executed plan, as EXPLAIN (ANALYZE, BUFFERS) shows it."""

    top: Mapping[str, Any]

    def nodes(self) -> Iterator[Mapping[str, Any]]:
        waiting = [self.top]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.get("Plans", [])

    def scans(self, table: str) -> list[Mapping[str, Any]]:
        """Return the nodes that read a table, without those never executed."""
        return [node for node in self.nodes() if node.get("Relation Name") == table and node["Actual Loops"] > 0]

    def indexes(self, table: str) -> set[str]:
        """Return the indexes by which a table is read; `seq scan` for a full scan, nothing for rows by their place."""
        found: set[str] = set()
        for node in self.scans(table):
            if node["Node Type"] == "Bitmap Heap Scan":
                found |= {str(part["Index Name"]) for part in Plan(node).nodes() if "Index Name" in part}
            elif "Scan" in node["Node Type"] and node["Node Type"] != "Tid Scan":
                found.add(str(node.get("Index Name", "seq scan")))
        return found

    def touched(self, table: str) -> float:
        """Return the number of rows of a table that were read, discarded ones included."""
        thrown = ["Rows Removed by Filter", "Rows Removed by Index Recheck"]
        return sum(
            float((node["Actual Rows"] + sum(node.get(name, 0) for name in thrown)) * node["Actual Loops"])
            for node in self.scans(table)
            if "Scan" in node["Node Type"]
        )

    @property
    def buffers(self) -> int:
        """Return the number of pages that were read."""
        return int(self.top["Shared Hit Blocks"] + self.top["Shared Read Blocks"])


def explain(conn: Connection, statement: TextClause, values: Mapping[str, Any], *, way: str = "custom") -> Plan:
    """Execute the statement and return its plan; the connection's transaction undoes it.

    ``way`` generic: use the plan that Postgres keeps for a prepared statement, made without knowing any value.
    """
    if way == "custom":
        rows = conn.execute(text("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement.text), dict(values))
        return Plan(rows.scalar_one()[0]["Plan"])
    names: list[str] = []
    sql = _NAMES.sub(lambda match: f"${_place(names, match[1])}", statement.text)
    return _prepared(conn, sql, [values[key] for key in names])


def plans_of(conn: Connection, call: Callable[[], object], *, way: str = "custom") -> list[Plan]:
    """Make a call that reads, and return the plans of its statements, executed again as the driver was given them."""
    sent: list[tuple[str, Mapping[str, Any]]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        sent.append((statement, parameters or {}))

    event.listen(conn, "before_cursor_execute", note)
    try:
        call()
    finally:
        event.remove(conn, "before_cursor_execute", note)
    return [
        _plan_again(conn, statement, values, way) for statement, values in sent if not statement.startswith("EXPLAIN")
    ]


def _plan_again(conn: Connection, statement: str, values: Mapping[str, Any], way: str) -> Plan:
    if way == "custom":
        rows = conn.exec_driver_sql("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, dict(values))
        return Plan(rows.scalar_one()[0]["Plan"])
    names: list[str] = []
    sql = re.sub(r"%\((\w+)\)s", lambda match: f"${_place(names, match[1])}", statement).replace("%%", "%")
    return _prepared(conn, sql, [values[key] for key in names])


def _prepared(conn: Connection, sql: str, values: Sequence[Any]) -> Plan:
    name = f"plan_{next(_numbers)}"
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with psycopg.ClientCursor(driver) as cursor:
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE {name} AS {sql}".encode())
        arguments = ", ".join(cursor.mogrify("%s", [value]) for value in values)
        call = f"EXECUTE {name} ({arguments})" if values else f"EXECUTE {name}"
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {call}".encode())
        row = cursor.fetchone()
    assert row is not None
    return Plan(row[0][0]["Plan"])


def prepare(
    conn: Connection, statement: ClauseElement, values: Mapping[str, Any]
) -> tuple[psycopg.ClientCursor[Any], str]:
    """Prepare a statement; return a cursor, and the command that executes it with these values."""
    compiled = str(statement.compile(dialect=conn.dialect))
    names: list[str] = []
    prepared = re.sub(r"%\((\w+)\)s", lambda match: f"${_place(names, match[1])}", compiled).replace("%%", "%")
    name = f"plan_{next(_numbers)}"
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    cursor = psycopg.ClientCursor(driver)
    cursor.execute(f"PREPARE {name} AS {prepared}".encode())
    return cursor, f"EXECUTE {name} ({', '.join(cursor.mogrify('%s', [values[key]]) for key in names)})"


def numbers_of_plans(conn: Connection, statement: ClauseElement, values: Mapping[str, Any], times: int) -> Row[Any]:
    """Execute a prepared statement so many times, each undone; return how often it was planned anew (`custom_plans`),
    and how often by a kept plan (`generic_plans`).
    """
    cursor, command = prepare(conn, statement, values)
    for _ in range(times):
        cursor.execute("SAVEPOINT executed")
        cursor.execute(command.encode())
        cursor.execute("ROLLBACK TO executed")
    cursor.close()
    numbers = "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE name = :name"
    return conn.execute(text(numbers), {"name": command.split()[1]}).one()


def _place(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name) + 1
