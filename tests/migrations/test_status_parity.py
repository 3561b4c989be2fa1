"""Check that enum, CHECK and statements list the same statuses."""

import re
from enum import StrEnum
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

import models
from models.core.callers import Role
from models.core.statuses import (
    IN_HAND,
    TERMINAL,
    TRANSITIONS,
    UNFINISHED,
    ExecutionMode,
    RunStatus,
    RunType,
    SessionStatus,
    StopCause,
)
from tests.support.db_verbs import DbVerbs

ENUMS = {
    ("runs", "status"): RunStatus,
    ("runs", "type"): RunType,
    ("runs", "execution_mode"): ExecutionMode,
    ("runs", "stop_cause"): StopCause,
    ("sessions", "status"): SessionStatus,
    ("api_keys", "role"): Role,
    ("stream_tickets", "role"): Role,
}
SOURCES = sorted(Path(models.__file__).parent.rglob("*.py"))


def words(condition: str) -> set[str]:
    """Return the quoted words of a condition."""
    return set(re.findall(r"'([a-z_]+)'", condition))


@pytest.mark.parametrize(("table", "column"), ENUMS)
def test_check_constraint_lists_exactly_its_enum(engine: Engine, table: str, column: str) -> None:
    """Autogenerate does not compare CHECKs."""
    query = text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name")
    with engine.connect() as connection:
        check = connection.execute(query, {"name": f"ck_{table}_{column}"}).scalar_one()

    assert words(check) == {member.value for member in ENUMS[table, column]}


@pytest.mark.parametrize(("table", "column"), ENUMS)
def test_column_rejects_other_words(db: DbVerbs, table: str, column: str) -> None:
    db.start()
    db.rows("INSERT INTO api_keys (key_id, secret_hash, role) VALUES ('k', 'h', 'admin')")
    db.rows("INSERT INTO stream_tickets (ticket_hash, role, filters, expires_at) VALUES ('h', 'admin', '{}', now())")
    with pytest.raises(IntegrityError, match="violates check constraint"):
        db.rows(f"UPDATE {table} SET {column} = 'sleeping'")


def test_every_status_has_a_row_in_the_transition_table() -> None:
    """Every target is a status; terminal ones have no target, and all others can still end."""
    assert set(TRANSITIONS) == set(RunStatus)
    assert set().union(*TRANSITIONS.values()) <= set(RunStatus)
    assert {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED} == TERMINAL
    for status in UNFINISHED:
        assert TRANSITIONS[status] & TERMINAL
        assert status not in TRANSITIONS[status]
    assert set(RunStatus) == UNFINISHED | TERMINAL
    assert UNFINISHED - {RunStatus.PENDING} == IN_HAND


@pytest.mark.parametrize(
    ("index", "statuses"),
    [
        ("ix_runs_unfinished", UNFINISHED),
        ("ix_runs_one_active", IN_HAND),
        ("ix_runs_in_hand", IN_HAND),
        ("ix_runs_claim", {RunStatus.PENDING}),
        ("ix_runs_match_deadline", {RunStatus.PENDING}),
        ("ix_runs_unmatched", {RunStatus.PENDING}),
        ("ix_runs_due", {RunStatus.PENDING}),
        ("ix_runs_poll", {RunStatus.CLAIMED}),
        ("ix_runs_claim_deadline", {RunStatus.CLAIMED}),
        ("ix_runs_run_deadline", {RunStatus.RUNNING, RunStatus.STOPPING}),
    ],
)
def test_index_condition_names_its_statuses(engine: Engine, index: str, statuses: set[RunStatus]) -> None:
    """A new unfinished status missing in an index would never be found."""
    query = text("SELECT indexdef FROM pg_indexes WHERE indexname = :name")
    with engine.connect() as connection:
        definition = connection.execute(query, {"name": index}).scalar_one()

    assert words(definition.partition(" WHERE ")[2]) == {status.value for status in statuses}


def test_run_is_terminal_if_and_only_if_it_has_an_end_time(db: DbVerbs) -> None:
    """Compare the terminal statuses of the CHECK with the code's."""
    definition = db.one("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ck_runs_ended'")
    assert words(definition) == {status.value for status in TERMINAL}
    db.start()
    with pytest.raises(IntegrityError, match="ck_runs_ended"):
        db.rows("UPDATE runs SET status = 'completed', ready = false")
    with pytest.raises(IntegrityError, match="ck_runs_ended"):
        db.rows("UPDATE runs SET completed_at = now()")


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("status = 'claimed', ready = false", "ck_runs_owned"),
        ("status = 'running', ready = false", "ck_runs_owned"),
        ("claim_token = 'token'", "ck_runs_unowned"),
        ("status = 'claimed', claim_token = 'token'", "ck_runs_ready"),
    ],
)
def test_invalid_claims_are_rejected_by_checks(db: DbVerbs, change: str, check: str) -> None:
    """Try a run in hand without token, a pending one with a token, and a ready one in hand."""
    db.start()
    with pytest.raises(IntegrityError, match=check):
        db.rows(f"UPDATE runs SET {change}")


def test_session_has_at_most_one_run_in_hand(db: DbVerbs) -> None:
    """Rely on a unique index, whatever the code does."""
    session = db.start().session_id
    db.resume(session)
    with pytest.raises(IntegrityError, match="ix_runs_one_active"):
        db.rows("UPDATE runs SET status = 'claimed', ready = false, claim_token = run_id")


def statements() -> list[tuple[str, str]]:
    """Collect every comparison of a status with literal words in the statements of models/."""
    pattern = re.compile(r"\bstatus (?:NOT )?(?:IN|=|<>) (?:\(('[^)]*')\)|('[a-z_]+'))")
    return [(path.stem, match[1] or match[2]) for path in SOURCES for match in pattern.finditer(path.read_text())]


def test_statements_compare_statuses_with_known_words_only() -> None:
    """A condition on another word is never true."""
    known = {str(member) for enum in (RunStatus, SessionStatus) for member in enum}
    found = statements()

    assert len(found) > 20
    assert [(module, values) for module, values in found if not words(values) <= known] == []


def test_status_lists_in_statements_are_groups_of_the_code() -> None:
    """Accept a list of three or four statuses only if it is a group of models/core/statuses.py."""
    groups: list[frozenset[StrEnum]] = [UNFINISHED, IN_HAND, TERMINAL, frozenset(SessionStatus), frozenset(RunStatus)]
    known = [{str(member) for member in group} for group in groups]
    lists = [(module, words(values)) for module, values in statements() if len(words(values)) > 2]

    assert [(module, values) for module, values in lists if values not in known] == []
