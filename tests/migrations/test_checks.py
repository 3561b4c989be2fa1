"""Check that the database rejects rows which no verb writes."""

import pytest
from sqlalchemy.exc import IntegrityError

from tests.support.db_verbs import DbVerbs
from tests.support.schedules import ago, decide, made

ENUMS = [
    ("runs", "status"),
    ("runs", "type"),
    ("runs", "execution_mode"),
    ("runs", "stop_cause"),
    ("sessions", "status"),
    ("sessions", "last_outcome"),
    ("api_keys", "role"),
    ("stream_tickets", "role"),
    ("console_sessions", "role"),
    ("bulk_jobs", "role"),
    ("bulk_jobs", "action"),
    ("bulk_jobs", "state"),
    ("schedules", "overlap"),
    ("schedule_fires", "kind"),
    ("schedule_fires", "outcome"),
    ("webhook_deliveries", "state"),
]


@pytest.mark.parametrize(("table", "column"), ENUMS)
def test_column_rejects_other_words(db: DbVerbs, table: str, column: str) -> None:
    db.start()
    db.rows("INSERT INTO api_keys (key_id, secret_hash, role) VALUES ('k', 'h', 'admin')")
    db.rows("INSERT INTO stream_tickets (ticket_hash, role, filters, expires_at) VALUES ('h', 'admin', '{}', now())")
    db.rows("INSERT INTO console_sessions (session_hash, role, expires_at) VALUES ('h', 'admin', now())")
    db.rows(
        "INSERT INTO bulk_jobs (bulk_id, caller, role, action, state, total, expires_at)"
        " VALUES ('b', '', 'admin', 'stop', 'prepared', 1, now())"
    )
    made(db, "s", ago(db, 5), back=60)
    decide(db)
    db.rows(
        "INSERT INTO webhook_deliveries (webhook_no, event_id, event_type, session_id, payload)"
        " VALUES (1, 'e', 't', 's', '{}')"
    )
    with pytest.raises(IntegrityError, match="violates check constraint"):
        db.rows(f"UPDATE {table} SET {column} = 'sleeping'")


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("status = 'completed', ready = false", "ck_runs_ended"),
        ("completed_at = now()", "ck_runs_ended"),
        ("status = 'claimed', ready = false", "ck_runs_owned"),
        ("status = 'running', ready = false", "ck_runs_owned"),
        ("claim_token = 'token'", "ck_runs_unowned"),
        ("status = 'claimed', claim_token = 'token'", "ck_runs_ready"),
    ],
)
def test_invalid_run_is_rejected_by_check(db: DbVerbs, change: str, check: str) -> None:
    """Try an end without a time, a time without an end, and claims that miss a token or have one too many."""
    db.start()
    with pytest.raises(IntegrityError, match=check):
        db.rows(f"UPDATE runs SET {change}")


def test_session_has_at_most_one_run_in_hand(db: DbVerbs) -> None:
    """Rely on a unique index, whatever the code does."""
    session = db.start().session_id
    db.resume(session)
    with pytest.raises(IntegrityError, match="ix_runs_one_active"):
        db.rows("UPDATE runs SET status = 'claimed', ready = false, claim_token = run_id")
