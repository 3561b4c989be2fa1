"""Write SQLite files as the coordinator that this one replaces leaves them, also with rows that it would not write."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from cli.transfer import import_file
from models.transfer.old_file import open_old_file
from models.transfer.report import Report
from runtime.settings import Settings

# Without constraints, so that tests may break them.
_COLUMNS: Mapping[str, str] = {
    "sessions": "session_id TEXT, status TEXT, created_at TEXT, project_dir TEXT, agent_name TEXT,"
    " last_resumed_at TEXT, parent_session_id TEXT, executor_session_id TEXT, executor_profile TEXT, hostname TEXT",
    "runs": "run_id TEXT, session_id TEXT, type TEXT, agent_name TEXT, parameters TEXT, project_dir TEXT,"
    " parent_session_id TEXT, execution_mode TEXT, demands TEXT, status TEXT, runner_id TEXT, error TEXT,"
    " created_at TEXT, claimed_at TEXT, started_at TEXT, completed_at TEXT, timeout_at TEXT, scope TEXT,"
    " resolved_agent_blueprint TEXT",
    "events": "id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT, event_type TEXT, timestamp TEXT, tool_name TEXT,"
    " tool_input TEXT, tool_output TEXT, error TEXT, exit_code INTEGER, reason TEXT, role TEXT, content TEXT,"
    " result_text TEXT, result_data TEXT",
}
_INDEXES = (
    "CREATE INDEX by_session ON events (session_id, timestamp DESC)",
    "CREATE INDEX runs_by_session ON runs (session_id)",
)
PARAMETERS = json.dumps({"prompt": "hello"})


def at(minute: int, second: int = 0) -> str:
    return f"2025-01-02T03:{minute:02}:{second:02}+00:00"


class OldDatabase:
    """File to which a test adds rows; every call is committed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(sqlite3.connect(path)) as connection:
            for table, columns in _COLUMNS.items():
                connection.execute(f"CREATE TABLE {table} ({columns})")
            for index in _INDEXES:
                connection.execute(index)

    def session(self, session_id: object = "ses_0123456789ab", status: str = "finished", **values: object) -> str:
        self.add("sessions", {"session_id": session_id, "status": status, "created_at": at(0)} | values)
        return str(session_id)

    def run(self, run_id: object, session_id: str = "ses_0123456789ab", **values: object) -> str:
        """Add a completed run, unless the values say otherwise."""
        row: dict[str, object] = {
            "run_id": run_id,
            "session_id": session_id,
            "type": "start_session",
            "parameters": PARAMETERS,
            "execution_mode": "sync",
            "status": "completed",
            "created_at": at(1),
            "claimed_at": at(2),
            "started_at": at(2, 1),
            "completed_at": at(9),
        }
        self.add("runs", row | values)
        return str(run_id)

    def event(self, session_id: str = "ses_0123456789ab", timestamp: str = at(3), **values: object) -> None:
        self.add("events", {"session_id": session_id, "event_type": "message", "timestamp": timestamp} | values)

    def add(self, table: str, values: Mapping[str, object]) -> None:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))

    def execute(self, statement: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def fill(self, sessions: int, events: int) -> None:
        """Add so many finished sessions, each with one run and so many events."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for number in range(sessions):
                session_id, run_id = f"ses_{number:012x}", f"run_{number:012x}"
                connection.execute(
                    "INSERT INTO sessions (session_id, status, created_at) VALUES (?, 'finished', ?)",
                    (session_id, at(0)),
                )
                connection.execute(
                    "INSERT INTO runs (run_id, session_id, type, parameters, execution_mode, status, created_at,"
                    " started_at, completed_at) VALUES (?, ?, 'start_session', ?, 'sync', 'completed', ?, ?, ?)",
                    (run_id, session_id, PARAMETERS, at(1), at(2), at(9)),
                )
                content = json.dumps([{"type": "text", "text": f"line of {session_id}"}])
                connection.executemany(
                    "INSERT INTO events (session_id, event_type, timestamp, role, content) VALUES (?, ?, ?, ?, ?)",
                    [(session_id, "message", at(3, place % 60), "assistant", content) for place in range(events)],
                )


def imported(engine: Engine, old: OldDatabase | Path, owner: str | None = None, *, dry_run: bool = False) -> Report:
    """Import the file as the command does; return the report."""
    settings = Settings(database_url="postgresql://unused", redis_url="redis://unused")
    with open_old_file(old if isinstance(old, Path) else old.path) as file:
        return import_file(engine, settings, file, owner, dry_run=dry_run)


def refusals(report: Report) -> dict[tuple[str, str], int]:
    return {(what, str(reason)): refused.rows for (what, reason), refused in report.refused.items()}
