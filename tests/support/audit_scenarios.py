"""Scenarios of the audit log after acts of administrators; mutations of the log must fail them."""

import pytest
from sqlalchemy import Connection

from models.auth.audit import newest_acts
from models.auth.keys import NewKey, create_keys, mint_token, revoke_keys
from models.core.callers import Caller, Role
from models.runs.delete import DeleteSession, delete_sessions
from models.runs.stop import StopRun, StopSession, stop_runs, stop_sessions
from tests.support.callers import OPERATOR, bearer, make_key
from tests.support.db_verbs import DbVerbs
from tests.support.reports import running
from tests.support.web import WebInThread

BOSS = Caller(Role.ADMIN, "boss", "key:crd_0123456789ab")
BOB = Caller(Role.USER, "bob", "key:crd_ba9876543210")


def acts(db: DbVerbs) -> list[tuple[str, str, str, str | None]]:
    """Return the entries of the log, after checking that the feed holds the same, without an owner."""
    entries = db.do(newest_acts, 1000)
    told = db.rows("SELECT session_id, owner, run_id, frame FROM events WHERE kind = 'audit' ORDER BY id")
    shown = [(one.frame["act"], one.frame["by"], one.frame["target"], one.frame["owner"]) for one in told]
    assert [(row.session_id, row.owner, row.run_id) for row in told] == [("", None, None)] * len(told), "has an owner"
    assert {row.frame["type"] for row in told} <= {"audit"}
    found = [(entry.act, entry.by, entry.target, entry.owner) for entry in entries]
    assert shown == found
    return found


def key_is_audited_once_made_and_once_revoked(db: DbVerbs) -> None:
    """Repeat both; find nothing of the key's secret."""
    _, (key_id, secret_hash) = mint_token()
    key = NewKey(key_id, secret_hash, Role.USER, "ann")
    for _ in range(2):
        db.do(create_keys, [key], OPERATOR)
    for _ in range(2):
        db.do(revoke_keys, [key_id, "crd_000000000000", key_id], OPERATOR)
    assert acts(db) == [("key_created", OPERATOR, key_id, "ann"), ("key_revoked", OPERATOR, key_id, "ann")]
    for table in ("audit_log", "events"):
        assert secret_hash not in str(db.rows(f"SELECT CAST(t AS text) FROM {table} t"))


def rolled_back_act_leaves_no_row(db: DbVerbs) -> None:
    """Act and row share a transaction: neither exists without the other."""
    token = make_key(db, Role.USER, "ann")

    def revoke_in_vain(conn: Connection) -> None:
        revoke_keys(conn, [token[:16]], OPERATOR)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.do(revoke_in_vain)
    assert [act for act, *_ in acts(db)] == ["key_created"]
    assert db.count("api_keys", "revoked_at IS NULL") == 1


def stops_and_deletes_are_audited_once(db: DbVerbs) -> None:
    """Repeat them: nothing changes or is recorded again; nor are refused acts and unknown targets recorded."""
    run = running(db, caller=BOB)
    waiting = db.start(caller=BOB)
    for _ in range(2):
        db.do(stop_sessions, [StopSession(BOSS, run.session_id)] * 2)
        db.do(stop_runs, [StopRun(BOSS, waiting.run_id), StopRun(BOSS, "run_unknown")])
        delete = [DeleteSession(BOSS, one) for one in (run.session_id, waiting.session_id, "ses_unknown")]
        db.do(delete_sessions, delete)
    assert acts(db) == [
        ("session_stopped", BOSS.by, run.session_id, "bob"),
        ("run_stopped", BOSS.by, waiting.run_id, "bob"),
        ("session_deleted", BOSS.by, waiting.session_id, "bob"),
    ]


def audit_events_are_hidden_from_users(web: WebInThread, db: DbVerbs, types: str) -> None:
    """Answer 422 as for an unknown type, which does not reveal it; a ticket changes nothing, and a runner has no feed
    at all.
    """
    shown = {role: bearer(make_key(db, role, "somebody")) for role in (Role.USER, Role.RUNNER)}

    def refused(role: Role, types: str) -> list[tuple[int, str]]:
        ticket = web.client.http.post("/sse/ticket", json={"types": types}, headers=shown[role])
        with web.client.http.stream("GET", "/sse/sessions", params={"types": types}, headers=shown[role]) as stream:
            # An open stream never ends.
            said = "" if stream.status_code == 200 else stream.read().decode()
            return [(ticket.status_code, ticket.text), (stream.status_code, said)]

    assert refused(Role.USER, types) == refused(Role.USER, "never-was")
    assert {code for code, _ in refused(Role.USER, types)} == {422}
    assert all("audit" not in text for _, text in refused(Role.USER, types))
    assert {code for code, _ in refused(Role.RUNNER, types)} == {403}
