"""What the audit log must hold after what administrators did, as scenarios that mutations of it must fail."""

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
    """What the log holds; the feed was told the same, as of nobody."""
    entries = db.do(newest_acts, 1000)
    told = db.rows("SELECT session_id, owner, run_id, frame FROM events WHERE kind = 'audit' ORDER BY id")
    shown = [(one.frame["act"], one.frame["by"], one.frame["target"], one.frame["owner"]) for one in told]
    assert [(row.session_id, row.owner, row.run_id) for row in told] == [("", None, None)] * len(told), (
        "told as somebody's"
    )
    assert {row.frame["type"] for row in told} <= {"audit"}
    found = [(entry.act, entry.by, entry.target, entry.owner) for entry in entries]
    assert shown == found
    return found


def a_key_is_written_down_once_made_and_once_revoked(db: DbVerbs) -> None:
    """However often either is repeated; nothing of its secret."""
    _, (key_id, secret_hash) = mint_token()
    key = NewKey(key_id, secret_hash, Role.USER, "ann")
    for _ in range(2):
        db.do(create_keys, [key], OPERATOR)
    for _ in range(2):
        db.do(revoke_keys, [key_id, "crd_000000000000", key_id], OPERATOR)
    assert acts(db) == [("key_created", OPERATOR, key_id, "ann"), ("key_revoked", OPERATOR, key_id, "ann")]
    for table in ("audit_log", "events"):
        assert secret_hash not in str(db.rows(f"SELECT CAST(t AS text) FROM {table} t"))


def a_rolled_back_act_leaves_none(db: DbVerbs) -> None:
    """It is one transaction: neither the act without the row, nor the row without the act."""
    token = make_key(db, Role.USER, "ann")

    def revoke_in_vain(conn: Connection) -> None:
        revoke_keys(conn, [token[:16]], OPERATOR)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.do(revoke_in_vain)
    assert [act for act, *_ in acts(db)] == ["key_created"]
    assert db.count("api_keys", "revoked_at IS NULL") == 1


def stops_and_deletes_are_written_down_once(db: DbVerbs) -> None:
    """Repeated, it changes nothing and is not written down again; nor is what was refused or never was."""
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


def the_word_means_nothing_to_a_user(web: WebInThread, db: DbVerbs, types: str) -> None:
    """422 in the same words, which do not give it away; a ticket opens no other way, a runner has no feed at all."""
    shown = {role: bearer(make_key(db, role, "somebody")) for role in (Role.USER, Role.RUNNER)}

    def refused(role: Role, types: str) -> list[tuple[int, str]]:
        ticket = web.client.http.post("/sse/ticket", json={"types": types}, headers=shown[role])
        with web.client.http.stream("GET", "/sse/sessions", params={"types": types}, headers=shown[role]) as stream:
            # A stream that was opened has no end.
            said = "" if stream.status_code == 200 else stream.read().decode()
            return [(ticket.status_code, ticket.text), (stream.status_code, said)]

    assert refused(Role.USER, types) == refused(Role.USER, "never-was")
    assert {code for code, _ in refused(Role.USER, types)} == {422}
    assert all("audit" not in text for _, text in refused(Role.USER, types))
    assert {code for code, _ in refused(Role.RUNNER, types)} == {403}
