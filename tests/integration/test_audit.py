"""Audit log: one row for each act of an administrator, visible to administrators only."""

import json
import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from models.auth.audit import Act, AuditedAct, newest_acts, record_acts
from models.auth.keys import NewKey, create_keys, mint_token, revoke_keys
from models.core.callers import ADMIN, Caller, Role
from models.feed.retention import retire_events
from models.feed.sequence import read_head, sequence_feed
from models.feed.state import rotate_epoch
from models.runners.leave import LeaveRunner, deregister_runners
from models.runs.delete import DeleteSession, delete_sessions, purge_deleted
from models.runs.stop import StopRun, StopSession, stop_runs, stop_sessions
from runtime.settings import Settings
from testkit.feed_follower import Message, open_stream
from testkit.recorded_events import RECORDED_EVENTS
from tests.support.callers import OPERATOR, bearer, client_with, make_key, revoke, web_with_auth
from tests.support.command import Ended, coordinator
from tests.support.contenders import run_in_threads
from tests.support.db_verbs import DbVerbs
from tests.support.issuer import issuing
from tests.support.reports import finished, running
from tests.support.web import PROMPT, WebClient, WebInThread, served

BOSS = Caller(Role.ADMIN, "boss", "key:crd_0123456789ab")
BOB = Caller(Role.USER, "bob", "key:crd_ba9876543210")


def acts(db: DbVerbs) -> list[tuple[str, str, str, str | None]]:
    """Return the entries of the log, after checking that the feed holds the same, without an owner."""
    entries = db.do(newest_acts, 1000)
    told = db.rows(f"SELECT session_id, owner, run_id, frame FROM {RECORDED_EVENTS} WHERE kind = 'audit' ORDER BY id")
    shown = [(one.frame["act"], one.frame["by"], one.frame["target"], one.frame["owner"]) for one in told]
    assert [(row.session_id, row.owner, row.run_id) for row in told] == [("", None, None)] * len(told), "has an owner"
    assert {row.frame["type"] for row in told} <= {"audit"}
    found = [(entry.act, entry.by, entry.target, entry.owner) for entry in entries]
    assert shown == found
    return found


def test_key_leaves_one_row_when_made_and_one_when_revoked(db: DbVerbs) -> None:
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


def test_rolled_back_act_leaves_no_row(db: DbVerbs) -> None:
    """Act and row share a transaction: neither exists without the other."""
    token = make_key(db, Role.USER, "ann")

    def revoke_in_vain(conn: Connection) -> None:
        revoke_keys(conn, [token[:16]], OPERATOR)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.do(revoke_in_vain)
    assert [act for act, *_ in acts(db)] == ["key_created"]
    assert db.count("api_keys", "revoked_at IS NULL") == 1


def test_admin_stops_and_deletes_of_other_owners_are_logged_once(db: DbVerbs) -> None:
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


@pytest.mark.parametrize("types", ["audit", "event,audit", "audit,unheard-of"])
def test_user_naming_audit_event_is_refused_like_unknown_name(web: WebInThread, db: DbVerbs, types: str) -> None:
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


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with web_with_auth(settings) as web:
        yield web


def test_concurrent_revocations_of_one_key_leave_one_row(db: DbVerbs) -> None:
    token = make_key(db, Role.USER, "ann")
    run_in_threads(8, lambda _: revoke(db, token))
    assert [act for act, *_ in acts(db)] == ["key_created", "key_revoked"]


def test_new_epoch_leaves_row_with_its_actor(db: DbVerbs) -> None:
    _, fresh = db.do(rotate_epoch, OPERATOR)
    assert acts(db) == [("epoch_rotated", OPERATOR, fresh, None)]


def test_repeated_delete_after_lost_answer_leaves_one_row(db: DbVerbs) -> None:
    """Send the same request id again and expect the same answer."""
    item = DeleteSession(BOSS, finished(db, caller=BOB))
    answers = [db.do(delete_sessions, [item]) for _ in range(2)]
    assert answers[0] == answers[1]
    assert acts(db) == [("session_deleted", BOSS.by, item.session_id, "bob")]


def test_concurrent_stops_and_deletes_leave_one_row_each(db: DbVerbs) -> None:
    run, ended = running(db, caller=BOB), finished(db, caller=BOB)
    run_in_threads(8, lambda _: db.do(stop_runs, [StopRun(BOSS, run.run_id)]))
    run_in_threads(8, lambda _: db.do(delete_sessions, [DeleteSession(BOSS, ended)]))
    assert [(act, target) for act, _, target, _ in acts(db)] == [
        ("run_stopped", run.run_id),
        ("session_deleted", ended),
    ]


@pytest.mark.parametrize("itself", [True, False])
def test_admin_deregistering_runner_is_logged_once(db: DbVerbs, *, itself: bool) -> None:
    """Deregister a runner that polls and one that is gone at once. A runner that leaves by itself is not logged."""
    runner = db.runner()
    machine = Caller(Role.RUNNER, "machine", "key:crd_aaaaaaaaaaaa")
    db.rows("UPDATE runners SET owner = 'machine'")
    for _ in range(2):
        db.do(deregister_runners, [LeaveRunner(runner.runner_id, itself, BOSS)] * 2)
    assert acts(db) == [("runner_deregistered", BOSS.by, runner.runner_id, "machine")]
    leaving = db.runner()
    db.rows("UPDATE runners SET owner = 'machine'")
    db.do(deregister_runners, [LeaveRunner(leaving.runner_id, itself, machine)])
    assert len(acts(db)) == 1


def test_acts_on_own_resources_are_not_logged(db: DbVerbs) -> None:
    """Skip a user's stops and an admin's acts on its own resources.

    While authentication is off no caller has a name.
    """
    for caller in (BOB, ADMIN, BOSS):
        stopped = running(db, caller=caller)
        db.do(stop_sessions, [StopSession(caller, stopped.session_id)])
        db.do(delete_sessions, [DeleteSession(caller, finished(db, caller=caller))])
    assert acts(db) == []
    # Rows without an owner may belong to any caller.
    unowned = running(db, caller=ADMIN)
    key = Caller(Role.ADMIN, None, BOSS.by)
    db.do(stop_sessions, [StopSession(key, unowned.session_id)])
    assert acts(db) == [("session_stopped", BOSS.by, unowned.session_id, None)]


def test_log_outlives_session_and_retention(db: DbVerbs) -> None:
    session_id = finished(db, caller=BOB)
    db.do(delete_sessions, [DeleteSession(BOSS, session_id)])
    db.do(sequence_feed)
    while db.do(purge_deleted):
        pass
    assert acts(db) == [("session_deleted", BOSS.by, session_id, "bob")]
    db.rows("UPDATE events SET created_at = now() - interval '400 days'")
    assert db.do(retire_events, older_than_days=30) > 0
    assert db.count(RECORDED_EVENTS) == 0
    (entry,) = db.do(newest_acts, 10)
    assert (entry.act, entry.by, entry.target) == ("session_deleted", BOSS.by, session_id)


def test_each_act_over_http_names_its_key(web: WebInThread, db: DbVerbs) -> None:
    """Stop, delete and deregister with the key of each admin; acts of the owner are not logged."""
    with ExitStack() as stack:
        url = web.client.url
        bob = stack.enter_context(client_with(url, make_key(db, Role.USER, "bob")))
        boss = stack.enter_context(client_with(url, make_key(db, Role.ADMIN)))
        machine = stack.enter_context(client_with(url, make_key(db, Role.RUNNER, "machine")))
        first, second, own = (bob.submit() for _ in range(3))
        runner_id = machine.register()
        before = len(acts(db))
        assert bob.post(f"/runs/{own['run_id']}/stop").status_code == 200
        for _ in range(2):
            boss.post(f"/runs/{first['run_id']}/stop")
            boss.post(f"/sessions/{second['session_id']}/stop")
            boss.http.delete(f"/sessions/{second['session_id']}")
            boss.http.delete(f"/runners/{runner_id}")
        assert machine.http.delete(f"/runners/{runner_id}", params={"self": "true"}).status_code == 200
        by = f"key:{boss.token[:16]}"
    assert acts(db)[before:] == [
        ("run_stopped", by, first["run_id"], "bob"),
        ("session_stopped", by, second["session_id"], "bob"),
        ("session_deleted", by, second["session_id"], "bob"),
        ("runner_deregistered", by, runner_id, "machine"),
    ]


def test_ends_reported_by_admin_for_another_owners_runner_are_logged(web: WebInThread, db: DbVerbs) -> None:
    """Log once with the run's owner, by every route under /runner; reports of the runner itself are its work."""
    with ExitStack() as stack:
        url = web.client.url
        bob = stack.enter_context(client_with(url, make_key(db, Role.USER, "bob")))
        boss = stack.enter_context(client_with(url, make_key(db, Role.ADMIN)))
        machine = stack.enter_context(client_with(url, make_key(db, Role.RUNNER, "machine")))
        runner_id = machine.register()
        runs = [bob.submit() for _ in range(5)]
        before = len(acts(db))
        given = [machine.claim(runner_id) for _ in runs]
        for run in given:
            assert machine.report(run, runner_id, "started").status_code == 200
        for _ in range(2):
            for run, outcome in zip(given, ("completed", "failed", "stopped"), strict=False):
                boss.report(run, runner_id, outcome)
            boss.post(
                "/runner/runs/report",
                {"runner_id": runner_id, "reports": [{"run_id": given[3]["run_id"], "outcome": "failed"}]},
            )
            machine.report(given[4], runner_id, "completed", session_status="idle")
            boss.post(
                f"/runner/sessions/{given[4]['session_id']}/status", {"runner_id": runner_id, "status": "finished"}
            )
        # The admin's own runner: its reports on runs it was given are its work.
        own = boss.register("own")
        bob.submit()
        own_run = boss.claim(own)
        assert boss.report(own_run, own, "completed").status_code == 200
        by = f"key:{boss.token[:16]}"
    assert acts(db)[before:] == [
        *(("run_ended", by, run["run_id"], "bob") for run in given[:4]),
        ("session_ended", by, given[4]["session_id"], "bob"),
    ]


def test_admin_heartbeat_ends_no_run_of_another_owners_runner(web: WebInThread, db: DbVerbs) -> None:
    """Ignore an admin's `holding`, since no log would name the runs it leaves out; the runner's own counts."""
    with ExitStack() as stack:
        url = web.client.url
        bob = stack.enter_context(client_with(url, make_key(db, Role.USER, "bob")))
        boss = stack.enter_context(client_with(url, make_key(db, Role.ADMIN)))
        machine = stack.enter_context(client_with(url, make_key(db, Role.RUNNER, "machine")))
        runner_id = machine.register()
        bob.submit()
        run = machine.claim(runner_id)
        assert machine.report(run, runner_id, "started").status_code == 200
        db.rows("UPDATE runs SET started_at = now() - interval '5 minutes'")
        beat = {"runner_id": runner_id, "holding": []}
        assert boss.post("/runner/heartbeat", beat).status_code == 200
        assert db.run(run["run_id"]).unheld_beats == 0
        assert machine.post("/runner/heartbeat", beat).status_code == 200
        assert db.run(run["run_id"]).unheld_beats == 1


def test_act_with_issuer_token_names_owner_claim(settings: Settings, db: DbVerbs) -> None:
    """Cover a token that is known from an earlier request too."""
    with issuing() as issuer, served(settings.model_copy(update=issuer.settings)) as web:
        shown = {
            name: bearer(issuer.token(sub=name, permissions=[permission]))
            for name, permission in (("bob", "user:runs"), ("boss", "admin:full"))
        }
        body = {"type": "start_session", "parameters": PROMPT}
        sessions = [web.client.post("/runs", body, **shown["bob"]).json()["session_id"] for _ in range(2)]
        for session in sessions:
            assert web.client.http.delete(f"/sessions/{session}", headers=shown["boss"]).status_code == 200
    assert acts(db) == [("session_deleted", "subject:boss", session, "bob") for session in sessions]


def seen_events(client: WebClient, head: int, **filters: str) -> list[Message]:
    """Return the messages of the stream until it has passed this position."""
    got = []
    with open_stream(client.url, filters, **bearer(client.token)) as stream:
        for message in stream.messages(within=30):
            got.append(message)
            if message.id is not None and message.position >= head:
                return got
    raise AssertionError(got)


def test_audit_events_reach_only_admins_that_ask(web: WebInThread, db: DbVerbs) -> None:
    """Read live, and resumed from the first position."""
    with ExitStack() as stack:
        url = web.client.url
        bob = stack.enter_context(client_with(url, make_key(db, Role.USER, "bob")))
        boss = stack.enter_context(client_with(url, make_key(db, Role.ADMIN, "boss")))
        run = bob.submit()
        db.do(sequence_feed)
        with open_stream(url, {"types": "audit", "include_init": "false"}, **bearer(boss.token)) as live:
            boss.post(f"/sessions/{run['session_id']}/stop")
            (stopped,) = [json.loads(message.data) for message in live.take(1)]
            boss.http.delete(f"/sessions/{run['session_id']}")
            (deleted,) = [json.loads(message.data) for message in live.take(1)]
        assert (stopped["act"], stopped["owner"]) == ("session_stopped", "bob")
        assert {name: value for name, value in deleted.items() if name != "at"} == {
            "type": "audit",
            "act": "session_deleted",
            "by": f"key:{boss.token[:16]}",
            "target": run["session_id"],
            "owner": "bob",
        }
        assert datetime.fromisoformat(deleted["at"]).utcoffset() == timedelta(0)
        head = db.do(read_head)
        resume = {"last_event_id": f"v1.{head.epoch}.0"}
        asked = seen_events(boss, head.position, types="audit,event", **resume)
        assert [json.loads(message.data)["act"] for message in asked if message.event] == [
            "key_created",
            "key_created",
            "session_stopped",
            "session_deleted",
        ]
        for client, filters in (
            (boss, {}),
            (boss, {"session_id": run["session_id"], "types": "audit"}),
            (bob, {}),
            (bob, {"created_by": "bob"}),
            (bob, {"session_id": run["session_id"]}),
        ):
            assert "audit" not in {message.event for message in seen_events(client, head.position, **filters, **resume)}


def test_no_list_shows_audit_events(web: WebInThread, db: DbVerbs) -> None:
    """Read the events of a session and every list of runs, sessions and runners."""
    with client_with(web.client.url, make_key(db, Role.USER, "bob")) as bob:
        run = bob.submit()
        with client_with(web.client.url, make_key(db, Role.ADMIN, "boss")) as boss:
            boss.post(f"/sessions/{run['session_id']}/stop")
            by = boss.token[:16]
        for path in ("/runs", "/sessions", f"/sessions/{run['session_id']}/events", f"/runs/{run['run_id']}"):
            answer = bob.get(path)
            assert answer.status_code == 200
            assert by not in answer.text
            assert "audit" not in answer.text


def audit(settings: Settings, directory: Path, *arguments: str) -> Ended:
    return coordinator(*arguments, home=directory, COORDINATOR_DATABASE_URL=settings.database_url)


def test_commands_name_their_operating_system_user(settings: Settings, db: DbVerbs, tmp_path: Path) -> None:
    """Take the name from the operating system, not from the environment."""
    made = audit(settings, tmp_path, "keys", "create", "--role", "user", "--owner", "ann").stdout.strip()
    assert audit(settings, tmp_path, "keys", "revoke", made[:16]).returncode == 0
    assert audit(settings, tmp_path, "keys", "revoke", made[:16]).returncode == 0
    assert audit(settings, tmp_path, "feed", "rotate-epoch", "--yes").returncode == 0
    by = f"local:{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    assert [(act, actor) for act, actor, _, _ in acts(db)] == [
        ("key_created", by),
        ("key_revoked", by),
        ("epoch_rotated", by),
    ]
    shown = json.loads(audit(settings, tmp_path, "audit", "--json").stdout)
    assert [(entry["act"], entry["by"], entry["owner"]) for entry in shown] == [
        ("key_created", by, "ann"),
        ("key_revoked", by, "ann"),
        ("epoch_rotated", by, None),
    ]
    lines = audit(settings, tmp_path, "audit", "--limit", "2").stdout.splitlines()
    assert [line.split()[:2] for line in (lines[0],)] == [["at", "act"]]
    assert [("key_revoked" in line, "epoch_rotated" in line) for line in lines[1:]] == [(True, False), (False, True)]
    assert made.rpartition("_")[2] not in json.dumps(shown)


def test_terminal_control_sequences_are_not_shown(settings: Settings, db: DbVerbs, tmp_path: Path) -> None:
    """Show ids printable: clients choose them."""
    db.do(record_acts, [AuditedAct(Act.SESSION_DELETED, OPERATOR, "a\x1b[2Jb", "ann")])
    shown = audit(settings, tmp_path, "audit")
    assert "a\ufffd[2Jb" in shown.stdout
