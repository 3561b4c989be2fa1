"""Replays: the same submission again, in a new session, with the fields that are changed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from models.core.callers import ADMIN, Caller, Role
from models.core.errors import KeyReused, NotFound, RunNotEnded
from models.core.retries import RetryPolicy, read_policy
from models.core.statuses import RunStatus
from models.runs.delete import DeleteSession, delete_sessions
from models.runs.submission import Submitted
from runtime.settings import Settings
from tests.support.answer_models import check_fields
from tests.support.bulks import replay, replayed, runs_of
from tests.support.callers import client_with, make_key, web_with_auth
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.parents import ended_child
from tests.support.reports import accepted, claimed, finished, idle, running, stop_run
from tests.support.web import WebClient, WebInThread, served

ann = Caller(Role.USER, "ann", "key:crd_ann")
root = Caller(Role.ADMIN, None, "key:crd_root")
COPIED = (
    "parameters",
    "agent_name",
    "project_dir",
    "parent_session_id",
    "execution_mode",
    "scope",
    "demands",
    "labels",
    "priority",
    "max_attempts",
    "run_timeout_seconds",
    "no_match_timeout_seconds",
    "owner",
)
FULL: dict[str, Any] = {
    "agent_name": "star",
    "project_dir": "/sky",
    "scope": '{"secret":"x"}',
    "execution_mode": "async_poll",
    "labels": {"team": "sky"},
    "priority": 7,
    "max_attempts": 3,
    "run_timeout_seconds": 60,
    "no_match_timeout_seconds": 50,
    "retry": RetryPolicy(3),
}


def ended(db: DbVerbs, **values: Any) -> str:
    """Stop a run that was never claimed; return its id."""
    run_id = db.start(**values).run_id
    stop_run(db, run_id)
    return run_id


def test_replay_copies_every_field_of_submission(db: DbVerbs) -> None:
    run_id = ended(db, **FULL)
    new = replayed(db, run_id)
    old = db.run(run_id)
    assert {name: getattr(new, name) for name in COPIED} == {name: getattr(old, name) for name in COPIED}
    assert (new.status, new.type, new.replay_of, new.attempt) == (RunStatus.PENDING, "start_session", run_id, 0)
    assert new.session_id != old.session_id
    assert new.run_id != run_id
    assert new.not_before is None
    assert db.session(new.session_id).scope == json.loads(FULL["scope"])
    policies = db.rows("SELECT CAST(retry AS text) AS policy FROM runs")
    assert [read_policy(row.policy) for row in policies] == [FULL["retry"]] * 2


def test_every_field_of_a_submission_is_copied_or_decided() -> None:
    """Decide for a new field of submissions whether a replay copies it."""
    decided = {"run_id", "session_id", "new_session_id", "caller", "type", "not_before", "delay_seconds", "affinity"}
    decided |= {"idempotency_key", "body_hash", "replay_of", "replayed_owner", "additional_demands", "traceparent"}
    decided |= {"prompt_only", "satisfied_schema", "looks_up_agent", "keeps_demands", "callback"}
    fields = set(type(start_submission()).__dataclass_fields__)
    assert fields - decided == set(COPIED) - {"owner", "demands"} | {"retry"}


def test_change_replaces_field_as_a_whole(db: DbVerbs) -> None:
    run_id = ended(db, **FULL)
    new = replayed(db, run_id, {"labels": {"retry": "1"}, "priority": 0, "parameters": '{"prompt":"again"}'})
    assert (new.labels, new.priority, new.parameters) == ({"retry": "1"}, 0, {"prompt": "again"})
    assert new.agent_name == "star"


def test_replay_of_a_scheduled_run_is_no_run_of_its_schedule(db: DbVerbs) -> None:
    """Leave out the labels of schedules, which come together; one of the two is the client's own."""
    marks = {"schedule": "nightly", "fire_at": "2026-12-01T08:00:00Z"}
    for labels, copied in (
        ({"team": "sky", **marks}, {"team": "sky"}),
        ({"team": "sky", "schedule": "nightly"}, {"team": "sky", "schedule": "nightly"}),
    ):
        assert replayed(db, ended(db, labels=labels)).labels == copied
    assert replayed(db, ended(db, labels=marks), {"labels": marks}).labels == marks


def test_replay_of_resume_leaves_machine_of_its_session_out(db: DbVerbs) -> None:
    """Keep the demands that the submission named, not those for the place where the session lives."""
    session = finished(db)
    db.rows("UPDATE sessions SET hostname = 'box', executor_profile = 'e' WHERE session_id = :s", s=session)
    resumed = db.resume(session)
    stop_run(db, resumed.run_id)
    assert db.run(resumed.run_id).demands["hostname"] == "box"
    new = replayed(db, resumed.run_id)
    assert new.demands == {"executor_type": "autonomous", "tags": []}
    assert new.session_id != session
    assert db.count("runs", "session_id = :s", s=session) == 2


@pytest.mark.parametrize("status", ["pending", "claimed", "running", "stopping"])
def test_unfinished_run_is_not_replayed(db: DbVerbs, status: str) -> None:
    run_id = db.start().run_id if status == "pending" else (claimed if status == "claimed" else running)(db).run_id
    if status == "stopping":
        stop_run(db, run_id)
    assert replay(db, run_id) == RunNotEnded(run_id, status)
    assert db.count("runs") == 1


def test_replay_of_child_calls_its_parent_back(db: DbVerbs) -> None:
    """Deliver the result of the replay as that of the first run: a child that failed can be made good."""
    parent = finished(db)
    child = ended_child(db, parent)
    new = replayed(db, child.run_id)
    assert (new.parent_session_id, new.execution_mode) == (parent, "async_callback")
    (run,) = [run for run in db.claim(db.runner(), wanted=5) if run.run_id == new.run_id]
    accepted(db, run, "started")
    accepted(db, run, "completed")
    assert db.count("child_results", "child_run_id = :r", r=new.run_id) == 1


def test_replay_of_child_whose_parent_is_gone_is_a_root(db: DbVerbs) -> None:
    parent = finished(db)
    child = ended_child(db, parent)
    db.do(delete_sessions, [DeleteSession(ADMIN, parent)])
    assert replayed(db, child.run_id).parent_session_id is None


def test_replay_by_admin_belongs_to_owner_and_is_audited(db: DbVerbs) -> None:
    run_id = ended(db, caller=ann)
    new = replayed(db, run_id, caller=root)
    assert (new.owner, db.session(new.session_id).owner) == ("ann", "ann")
    (act,) = db.rows("SELECT act, actor, target, owner FROM audit_log")
    assert tuple(act) == ("run_replayed", "key:crd_root", run_id, "ann")


def test_replay_of_own_run_is_not_audited(db: DbVerbs) -> None:
    replayed(db, ended(db, caller=ann), caller=ann)
    assert db.count("audit_log") == 0


def test_run_of_another_owner_is_unknown(db: DbVerbs) -> None:
    run_id = ended(db, caller=ann)
    bob = Caller(Role.USER, "bob")
    assert replay(db, run_id, caller=bob) == NotFound("run", run_id)


def test_repeat_with_same_key_gives_same_run(db: DbVerbs) -> None:
    """Answer it also after the first run was deleted; another body is refused."""
    run_id = ended(db)
    key: dict[str, Any] = {"idempotency_key": "k", "body_hash": "h"}
    first = replay(db, run_id, **key)
    assert isinstance(first, Submitted)
    again = replay(db, run_id, **key)
    assert again == Submitted(first.run_id, first.session_id, replayed=True)
    assert replay(db, run_id, idempotency_key="k", body_hash="other") == KeyReused("k")
    db.do(delete_sessions, [DeleteSession(ADMIN, db.run(run_id).session_id)])
    assert replay(db, run_id, **key) == again
    assert replay(db, run_id, idempotency_key="k", body_hash="other") == KeyReused("k")
    assert replay(db, run_id) == NotFound("run", run_id)
    assert db.count("runs") == 1


def test_live_session_does_not_keep_its_ended_run_from_being_replayed(db: DbVerbs) -> None:
    run = idle(db)
    assert replayed(db, run.run_id).replay_of == run.run_id


@pytest.fixture
def web(settings: Settings) -> Iterator[WebInThread]:
    with served(settings) as web:
        yield web


def completed(client: WebClient, **fields: Any) -> str:
    return str(client.finished(client.register(), **fields)["run_id"])


def test_replay_over_http_answers_like_a_submission(web: WebInThread) -> None:
    """Show `replay_of` in the run, its summary and the claimed run; accept a request without a body."""
    client = web.client
    runner = client.register()
    run_id = str(client.finished(runner, labels={"team": "sky"})["run_id"])
    answer = client.raw(f"/runs/{run_id}/replay", b"")
    assert answer.status_code == 201, answer.text
    check_fields("POST /runs/{run_id}/replay", 201, answer.json())
    new = client.get(f"/runs/{answer.json()['run_id']}").json()
    check_fields("GET /runs/{run_id}", 200, new)
    assert (new["replay_of"], new["labels"]) == (run_id, {"team": "sky"})
    assert client.get(f"/runs/{run_id}").json()["replay_of"] is None
    (summary,) = client.get("/runs", fields="summary", status="pending").json()["runs"]
    assert summary["replay_of"] == run_id
    assert client.claim(runner)["replay_of"] == run_id


def test_repeat_over_http_is_answered_200(web: WebInThread) -> None:
    """Take the key from the header or the body."""
    client, run_id = web.client, completed(web.client)
    body = {"changes": {"priority": 3}}
    first = client.post(f"/runs/{run_id}/replay", body, **{"Idempotency-Key": "k"})
    again = client.post(f"/runs/{run_id}/replay", body, **{"Idempotency-Key": "k"})
    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    in_body = client.post(f"/runs/{run_id}/replay", body | {"idempotency_key": "k"})
    assert (in_body.status_code, in_body.json()) == (200, first.json())
    other = client.post(f"/runs/{run_id}/replay", {}, **{"Idempotency-Key": "k"})
    assert other.status_code == 409


def test_null_removes_field(web: WebInThread) -> None:
    client = web.client
    run_id = completed(client, labels={"a": "b"}, priority=5, agent_name="x", additional_demands={"tags": []})
    changes = dict.fromkeys(("labels", "priority", "agent_name", "scope", "not_before", "max_attempts"))
    answer = client.post(f"/runs/{run_id}/replay", {"changes": changes | {"additional_demands": {"tags": ["gpu"]}}})
    assert answer.status_code == 201, answer.text
    run = client.get(f"/runs/{answer.json()['run_id']}").json()
    assert (run["labels"], run["priority"], run["agent_name"], run["max_attempts"]) == ({}, 0, None, 1)
    assert run["demands"]["tags"] == ["gpu"]


def test_delay_of_replay_is_kept(web: WebInThread) -> None:
    client, run_id = web.client, completed(web.client)
    for moment in (3600, "2030-01-01T00:00:00+02:00"):
        answer = client.post(f"/runs/{run_id}/replay", {"changes": {"not_before": moment}})
        assert client.get(f"/runs/{answer.json()['run_id']}").json()["not_before"] is not None


BAD: list[tuple[Any, int]] = [
    ({"changes": {"priorty": 1}}, 422),
    ({"changes": {"type": "resume_session"}}, 422),
    ({"changes": {"session_id": "mine"}}, 422),
    ({"changes": {"parameters": None}}, 422),
    ({"changes": {"parameters": {}}}, 400),
    ({"changes": {"parameters": {"prompt": "x" * 300_000}}}, 413),
    ({"changes": {"priority": 10**30}}, 422),
    ({"changes": {"priority": "5"}}, 422),
    ({"changes": {"agent_name": "a\x00b"}}, 422),
    ({"changes": {"labels": {"a": "\ud800"}}}, 422),
    ({"changes": {"parent_session_id": "never-was"}}, 404),
    ({"changes": []}, 422),
    ({"change": {}}, 422),
    ([], 422),
    ("x", 422),
    ({"idempotency_key": "x" * 300}, 422),
]


def test_bad_replay_is_refused_and_creates_nothing(web: WebInThread, db: DbVerbs) -> None:
    run_id = completed(web.client)
    for body, status in BAD:
        answer = web.client.post(f"/runs/{run_id}/replay", body)
        assert answer.status_code == status, (body, answer.text)
    assert db.count("runs") == 1


def test_unfinished_run_is_refused_with_reason(web: WebInThread) -> None:
    run_id = web.client.submit()["run_id"]
    answer = web.client.post(f"/runs/{run_id}/replay", {})
    assert answer.status_code == 409
    assert answer.json()["detail"]["error"] == "run_not_ended"
    assert web.client.post("/runs/run_never\x00was/replay".replace("\x00", "%00"), {}).status_code == 404


def test_replays_count_as_submissions(settings: Settings, db: DbVerbs) -> None:
    """Refuse them beyond the caller's limit; a runner may replay nothing."""
    limited = settings.model_copy(update={"submissions_per_minute": 2})
    with web_with_auth(limited) as web:
        token, machine = make_key(db, Role.USER, "ann"), make_key(db, Role.RUNNER, "ann")
        (session,) = [db.start(caller=Caller(Role.USER, "ann")).session_id]
        (run_id,) = runs_of(db, [session])
        stop_run(db, run_id)
        with client_with(web.client.url, token) as client:
            codes = [client.post(f"/runs/{run_id}/replay", {}).status_code for _ in range(3)]
        assert codes == [201, 201, 429]
        with client_with(web.client.url, machine) as client:
            assert client.post(f"/runs/{run_id}/replay", {}).status_code == 403
