"""Write an SQLite file that the former coordinator opens."""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from models.core.statuses import RunStatus
from models.transfer.export import Exported
from models.transfer.old_file import EVENT, RUN, SESSION

_TABLES: Final = f"""
CREATE TABLE sessions (
  session_id TEXT PRIMARY KEY, status TEXT NOT NULL, created_at TEXT NOT NULL, project_dir TEXT, agent_name TEXT,
  last_resumed_at TEXT, parent_session_id TEXT REFERENCES sessions ON DELETE SET NULL, executor_session_id TEXT,
  executor_profile TEXT, hostname TEXT);
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, type TEXT NOT NULL,
  agent_name TEXT, parameters TEXT NOT NULL, project_dir TEXT, parent_session_id TEXT,
  execution_mode TEXT NOT NULL DEFAULT 'sync', demands TEXT, status TEXT NOT NULL DEFAULT '{RunStatus.PENDING}',
  runner_id TEXT, error TEXT, created_at TEXT NOT NULL, claimed_at TEXT, started_at TEXT, completed_at TEXT,
  timeout_at TEXT, scope TEXT, resolved_agent_blueprint TEXT);
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  event_type TEXT NOT NULL, timestamp TEXT NOT NULL, tool_name TEXT, tool_input TEXT, tool_output TEXT, error TEXT,
  exit_code INTEGER, reason TEXT, role TEXT, content TEXT, result_text TEXT, result_data TEXT);
CREATE INDEX idx_sessions_executor_session_id ON sessions (executor_session_id);
CREATE INDEX idx_sessions_hostname ON sessions (hostname);
CREATE INDEX idx_runs_session_id ON runs (session_id);
CREATE INDEX idx_runs_status ON runs (status);
CREATE INDEX idx_runs_runner_id ON runs (runner_id);
CREATE INDEX idx_runs_status_created ON runs (status, created_at);
CREATE INDEX idx_events_session ON events (session_id, timestamp DESC);
"""


def _insert(table: str, columns: tuple[str, ...]) -> str:
    marks = ", ".join("?" * len(columns))
    return Template("INSERT INTO $table ($columns) VALUES ($marks)").substitute(
        table=table, columns=", ".join(columns), marks=marks
    )


_SESSIONS: Final = _insert("sessions", SESSION)
_RUNS: Final = _insert("runs", ("session_id", *RUN))
_EVENTS: Final = _insert("events", ("session_id", *(name for name in EVENT if name != "id")))


@dataclass(slots=True)
class Written:
    sessions: int = 0
    runs: int = 0
    events: int = 0


def write_file(path: Path, pages: Iterable[Exported]) -> Written:
    """Write all pages into a new file, whole or not at all. Raises FileExistsError, and OSError or sqlite3.Error.

    Only its owner may read it.
    """
    if path.exists():
        raise FileExistsError(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        written = _fill(partial, pages)
        _give_name(partial, path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    return written


def _give_name(partial: Path, path: Path) -> None:
    """Give the file its name. Raises FileExistsError if one has it by now, which a rename would replace."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:
        # The file system has no hard links: an empty file takes the name first.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            partial.replace(path)
        except OSError:
            path.unlink()
            raise


def _fill(path: Path, pages: Iterable[Exported]) -> Written:
    written = Written()
    # The file has no name yet that anyone uses, so that a crash needs no journal; it is flushed once, at the end.
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(_TABLES)
        with connection:
            for page in pages:
                written.sessions += connection.executemany(_SESSIONS, page.sessions).rowcount
                written.runs += max(0, connection.executemany(_RUNS, page.runs).rowcount)
                written.events += max(0, connection.executemany(_EVENTS, page.events).rowcount)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return written
