"""Read the plan that Postgres chose for a statement and the rows it touched, never the time it took."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg
from sqlalchemy import Connection, TextClause, text

_NAMES = re.compile(r"(?<!:):([a-z_][a-z_0-9]*)")
_numbers = count()


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
        """Return the indexes by which a table is read; `seq scan` for a full scan."""
        found: set[str] = set()
        for node in self.scans(table):
            if node["Node Type"] == "Bitmap Heap Scan":
                found |= {str(part["Index Name"]) for part in Plan(node).nodes() if "Index Name" in part}
            elif "Scan" in node["Node Type"]:
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
    name = f"plan_{next(_numbers)}"
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with psycopg.ClientCursor(driver) as cursor:
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE {name} AS {sql}".encode())
        arguments = ", ".join(cursor.mogrify("%s", [values[key]]) for key in names)
        call = f"EXECUTE {name} ({arguments})" if names else f"EXECUTE {name}"
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {call}".encode())
        row = cursor.fetchone()
    assert row is not None
    return Plan(row[0][0]["Plan"])


def _place(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name) + 1
