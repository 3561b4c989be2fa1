"""Name what a new status, or a new column, must be decided for.

The database follows the tables (tests/migrations/test_migrations.py), the tables and the statements follow the groups.
"""

import ast
import re
from enum import StrEnum
from pathlib import Path

import pytest

from models.core.statuses import RUN_GROUPS, SESSION_GROUPS, TERMINAL, TRANSITIONS, RunStatus, SessionStatus
from models.schema.sql import sql

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for package in ("models", "chaos")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "migrations" not in path.parts
]
LITERAL = re.compile(rf"'({'|'.join({*RunStatus, *SessionStatus})})'")

GROUPS_OF_RUNS = {
    RunStatus.PENDING: {"UNFINISHED"},
    RunStatus.CLAIMED: {"UNFINISHED", "IN_HAND", "HELD_BY_TOKEN"},
    RunStatus.RUNNING: {"UNFINISHED", "IN_HAND", "HELD_BY_TOKEN", "PAST_CLAIM"},
    RunStatus.STOPPING: {"UNFINISHED", "IN_HAND", "PAST_CLAIM"},
    RunStatus.COMPLETED: {"TERMINAL"},
    RunStatus.FAILED: {"TERMINAL", "UNSUCCESSFUL"},
    RunStatus.STOPPED: {"TERMINAL", "UNSUCCESSFUL"},
}
GROUPS_OF_SESSIONS = {
    SessionStatus.PENDING: set(),
    SessionStatus.RUNNING: set(),
    SessionStatus.IDLE: {"FREE", "RESTING"},
    SessionStatus.STOPPING: set(),
    SessionStatus.FINISHED: {"FREE", "ENDED", "RESTING"},
    SessionStatus.FAILED: {"ENDED", "RESTING"},
    SessionStatus.STOPPED: {"ENDED", "RESTING"},
}


@pytest.mark.parametrize(
    ("status", "groups", "decided"),
    [
        *((status, RUN_GROUPS, GROUPS_OF_RUNS) for status in RunStatus),
        *((status, SESSION_GROUPS, GROUPS_OF_SESSIONS) for status in SessionStatus),
    ],
)
def test_every_group_is_decided_for_every_status(
    status: StrEnum, groups: dict[str, frozenset[StrEnum]], decided: dict[StrEnum, set[str]]
) -> None:
    assert status in decided, f"decide whether {status!r} belongs to {', '.join(groups)}, here and in statuses.py"
    assert {name for name, members in groups.items() if status in members} == decided[status]


@pytest.mark.parametrize("status", RunStatus)
def test_every_status_has_transitions(status: RunStatus) -> None:
    """Terminal ones have no target, and all others can still end."""
    assert status in TRANSITIONS, f"decide the targets of {status!r}"
    assert status not in TRANSITIONS[status]
    assert bool(TRANSITIONS[status] & TERMINAL) is (status not in TERMINAL)


def test_statuses_in_statements_have_names() -> None:
    """Write ``$PENDING`` or ``$UNFINISHED`` in ``sql()`` for a literal."""
    literals = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {found[0]}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for found in LITERAL.finditer(node.value)
    ]

    assert literals == []


def test_names_in_statement_become_literals() -> None:
    """Partial indexes cannot be matched by parameters; other signs of SQL stay as they are."""
    statement = sql(
        "SELECT $columns, CAST('{}' AS json) FROM runs WHERE id = :id AND a LIKE '%' AND status IN $IN_HAND",
        columns="a, b",
    )

    assert statement.text == (
        "SELECT a, b, CAST('{}' AS json) FROM runs WHERE id = :id AND a LIKE '%'"
        " AND status IN ('claimed', 'running', 'stopping')"
    )
    assert sql("status = $PENDING").text == "status = 'pending'"


def test_unknown_name_in_statement_raises() -> None:
    with pytest.raises(KeyError, match="SLEEPING"):
        sql("SELECT 1 FROM runs WHERE status = $SLEEPING")


def test_name_in_statement_stands_for_one_word() -> None:
    """Runs and sessions share names."""
    words: dict[str, set[StrEnum]] = {}
    for status in [*RunStatus, *SessionStatus]:
        words.setdefault(status.name, set()).add(status)

    assert [name for name, members in words.items() if len(members) > 1 or name in RUN_GROUPS | SESSION_GROUPS] == []
