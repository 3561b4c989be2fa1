"""Check COMMITs that happened although their answer was lost: a repeated call changes nothing twice."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

from runtime.settings import Settings
from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.clocks import due, tick
from tests.support.db_verbs import DbVerbs
from tests.support.plain_submissions import add_profile
from tests.support.postgres_proxy import PostgresProxy, postgres_proxy
from tests.support.run_history import assert_nothing_lost_or_doubled, assert_one_history, claims, finish
from tests.support.traffic import Traffic
from tests.support.web import PROMPT, WebClient, WebInThread, served, until_ready

# Texts within the statements of a transaction that changes something, and of its repeat.
SUBMIT, CLAIM, MOVE, EVENT = "INSERT INTO runs", "SET status = 'claimed'", "UPDATE runs r", "INSERT INTO events"
FIRST, STOPPED = 4713, 4714
KEYS, LOOK = "INSERT INTO idempotency_keys", "AS stop_due"


@pytest.fixture
def proxy(settings: Settings) -> Iterator[PostgresProxy]:
    """Stand between this test's web process and Postgres."""
    with postgres_proxy(settings.database_url) as proxy:
        yield proxy


@pytest.fixture
def web(settings: Settings, proxy: PostgresProxy) -> Iterator[WebInThread]:
    own = {"database_url": proxy.url, "prepare_statements": False, "recheck_seconds": 0.5}
    with served(settings.model_copy(update=own)) as web:
        until_ready(web)
        yield web


def history(db: DbVerbs, run_id: str) -> list[str]:
    """Return the statuses of a run from its feed lines, after checking what holds for all runs."""
    return [one["status"] for one in assert_one_history(db.engine)[run_id]]


@pytest.mark.parametrize("times", [1, 2])
def test_submission_with_lost_commit_is_one_run(
    web: WebInThread, proxy: PostgresProxy, db: DbVerbs, times: int
) -> None:
    """Let the web repeat it; if that answer is lost too, answer 503 and let the client repeat it with its key."""
    add_profile(db)
    proxy.lose(KEYS, times)
    body = {"type": "start_session", "parameters": PROMPT}
    answer = web.client.post("/runs", body, **{"Idempotency-Key": "k"})
    assert answer.status_code == (201 if times == 1 else 503)
    if times == 2:
        assert answer.headers["retry-after"]
        answer = web.client.post("/runs", body, **{"Idempotency-Key": "k"})
        assert answer.status_code == 200
    assert proxy.lost == times
    assert [row.run_id for row in db.rows("SELECT run_id FROM runs")] == [answer.json()["run_id"]]
    assert db.told_kinds(answer.json()["session_id"]) == ["session_created", "run_updated"]


def test_submission_without_key_is_one_run(web: WebInThread, proxy: PostgresProxy, db: DbVerbs) -> None:
    """Make ids before the first try; cover starts with a new session, named starts and resumes."""
    session_id = web.client.submit()["session_id"]
    for fields in ({}, {"session_id": "named"}, {"type": "resume_session", "session_id": session_id}):
        before, lost = db.count("runs"), proxy.lost
        proxy.lose(SUBMIT)
        web.client.submit(**fields)
        assert proxy.lost == lost + 1
        assert db.count("runs") == before + 1


def test_batch_of_submissions_creates_each_run_once(web: WebInThread, proxy: PostgresProxy, db: DbVerbs) -> None:
    """With and without keys, each result is that of its item."""
    add_profile(db)
    proxy.lose(SUBMIT)
    runs = [{"type": "start_session", "parameters": PROMPT, "labels": {"place": str(n)}} for n in range(20)]
    for run in runs[:10]:
        run["idempotency_key"] = run["labels"]["place"]  # type: ignore[index]  # a dict of one's own making
    results = web.client.post("/runs/batch", {"runs": runs}).json()["results"]
    assert proxy.lost == 1
    assert [result["code"] for result in results] == [201] * 20
    stored = {row.run_id: row.place for row in db.rows("SELECT run_id, labels ->> 'place' AS place FROM runs")}
    assert [stored[result["run_id"]] for result in results] == [str(n) for n in range(20)]
    assert len(stored) == 20


@pytest.mark.parametrize("times", [1, 2])
def test_claim_with_lost_commit_is_delivered_once(
    web: WebInThread, proxy: PostgresProxy, db: DbVerbs, times: int
) -> None:
    """Find it by the poll id on the repeat, or by the re-check if that answer was lost too."""
    runner_id = web.client.register()
    run_ids = {web.client.submit()["run_id"] for _ in range(2)}
    proxy.lose(LOOK, times)
    given = web.client.claim(runner_id)
    assert proxy.lost == times
    other = web.client.claim(runner_id)
    assert {given["run_id"], other["run_id"]} == run_ids
    assert web.client.poll(runner_id).status_code == 204
    for run_id in run_ids:
        assert history(db, run_id) == ["pending", "claimed"]


# Stop the first claim within its statement: others do not wait.
_STOP_FIRST_CLAIM = f"""
CREATE FUNCTION stop_first_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_try_advisory_xact_lock({FIRST}) THEN
        PERFORM pg_advisory_xact_lock({STOPPED});
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stop_first_claim BEFORE UPDATE ON runs FOR EACH ROW WHEN (NEW.status = 'claimed')
EXECUTE FUNCTION stop_first_claim();
"""
_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = :key AND NOT granted"


def test_poll_repeated_during_its_first_statement_is_answered_with_one_run(
    web: WebInThread, proxy: PostgresProxy, db: DbVerbs
) -> None:
    """Both may claim; the run that was not answered is given to another poll after the time to start it."""
    runner_id = web.client.register()
    web.client.finished(runner_id)
    run_ids = {web.client.submit()["run_id"] for _ in range(2)}
    db.rows(_STOP_FIRST_CLAIM)
    with db.engine.connect() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": STOPPED})
        poll = web.client.meanwhile(web.client.poll, runner_id, 5)
        eventually(lambda: db.one(_WAITING, key=STOPPED) == 1, what="the first statement")
        proxy.cut()
        given = poll.result(30).json()["run"]["run_id"]
    eventually(lambda: db.count("runs", "status = 'claimed'") == 2, what="the commit of the first statement")
    db.rows("DROP TRIGGER stop_first_claim ON runs")
    (other,) = run_ids - {given}
    assert db.one("SELECT count(DISTINCT claim_poll_id) FROM runs WHERE status = 'claimed'") == 1
    due(db, other, "claim_deadline_at")
    tick(db)
    assert web.client.claim(runner_id)["run_id"] == other
    assert history(db, given) == ["pending", "claimed"]
    assert history(db, other) == ["pending", "claimed", "pending", "claimed"]


def test_claim_of_several_runs_is_delivered_once(web: WebInThread, proxy: PostgresProxy, db: DbVerbs) -> None:
    """Poll with `max=5`: deliver all of the batch and nothing more."""
    runner_id = web.client.register()
    run_ids = {web.client.submit()["run_id"] for _ in range(8)}
    proxy.lose(CLAIM)
    given = [run["run_id"] for run in web.client.poll(runner_id, 5, max=5).json()["runs"]]
    given += [run["run_id"] for run in web.client.poll(runner_id, 5, max=5).json()["runs"]]
    assert sorted(given) == sorted(run_ids)
    assert db.count("runs", "status = 'claimed' AND attempt = 0") == 8


def test_parked_poll_with_lost_recheck_gets_one_run(web: WebInThread, proxy: PostgresProxy, db: DbVerbs) -> None:
    """The claim of its re-check is lost: the waiting row is gone, and the run it names is delivered."""
    runner_id = web.client.register()
    poll = web.client.meanwhile(web.client.poll, runner_id, 20)
    web.until_parked()
    proxy.lose(CLAIM, 3)
    run_id = web.client.submit()["run_id"]
    assert poll.result(30).json()["run"]["run_id"] == run_id
    assert history(db, run_id) == ["pending", "claimed"]
    assert not db.waiting()


def test_claim_of_a_poll_that_ended_meanwhile_is_released(web: WebInThread, proxy: PostgresProxy, db: DbVerbs) -> None:
    """Keep Postgres away until the poll ends with 204; the run is claimable as soon as Postgres is back."""
    runner_id = web.client.register()
    run_id = web.client.submit()["run_id"]
    proxy.leave_after(1)
    proxy.lose(CLAIM)
    assert web.client.poll(runner_id, 2).status_code == 204
    assert db.run(run_id).status == "claimed"
    proxy.lose_no_more()
    proxy.come_back()
    assert web.client.claim(runner_id)["run_id"] == run_id
    assert history(db, run_id) == ["pending", "claimed", "pending", "claimed"]


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
@pytest.mark.parametrize("fence", ["token", "runner"])
def test_report_with_lost_commit_takes_effect_once(
    web: WebInThread, proxy: PostgresProxy, db: DbVerbs, outcome: str, fence: str
) -> None:
    """Count one start and store one event each; answer repeats with 200."""
    runner_id = web.client.register()
    web.client.submit()
    run = web.client.claim(runner_id)
    if fence == "runner":
        run["claim_token"] = None
    for word in ("started", outcome):
        lost = proxy.lost
        proxy.lose(MOVE)
        assert web.client.report(run, runner_id, word).status_code == 200
        assert proxy.lost == lost + 1
        assert web.client.report(run, runner_id, word).status_code == 200
    assert history(db, run["run_id"]) == ["pending", "claimed", "running", outcome]
    assert db.run(run["run_id"]).attempt == 1
    kinds = db.told_kinds(run["session_id"])
    assert kinds.count("event") == {"completed": 2, "failed": 1, "stopped": 1}[outcome]


def test_reports_of_one_call_take_effect_once(web: WebInThread, proxy: PostgresProxy, db: DbVerbs) -> None:
    """Report started and completed for many runs in one batch."""
    runner_id = web.client.register()
    for _ in range(5):
        web.client.submit()
    runs = web.client.poll(runner_id, 5, max=5).json()["runs"]
    reports = [
        {"run_id": run["run_id"], "claim_token": run["claim_token"], "outcome": outcome}
        for run in runs
        for outcome in ("started", "completed")
    ]
    proxy.lose(MOVE)
    answer = web.client.post("/runner/runs/report", {"runner_id": runner_id, "reports": reports})
    assert proxy.lost == 1
    assert [one["code"] for one in answer.json()["results"]] == [200] * 10
    for run in runs:
        assert history(db, run["run_id"]) == ["pending", "claimed", "running", "completed"]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_events_with_lost_commits_are_stored_once(
    web: WebInThread, proxy: PostgresProxy, db: DbVerbs, times: int
) -> None:
    """Send single events and lists, with and without a key, held and repeated until answered."""
    session_id = web.client.submit()["session_id"]

    def event(content: str, **fields: Any) -> dict[str, Any]:
        stamp = "2026-01-01T00:00:00Z"
        return {"event_type": "message", "session_id": session_id, "timestamp": stamp, "content": content, **fields}

    path = f"/sessions/{session_id}/events"
    sent: list[Any] = [event("a"), event("b", event_key="b"), [event("c"), event("d", event_key="d"), event("e")]]
    for body in sent:
        proxy.lose(EVENT, times)
        assert web.client.post(path, body).status_code == 201
    assert proxy.lost == 3 * times
    contents = [one["content"] for one in web.client.get(path).json()["events"]]
    assert contents == ["a", "b", "c", "d", "e"]


Doing = Callable[[WebClient, dict[str, Any], str], Any]
REPEATED: dict[str, tuple[str, Doing]] = {
    "register": ("INSERT INTO runners", lambda web, run, runner_id: web.register("another")),
    "bind": (
        "UPDATE sessions s",
        lambda web, run, runner_id: web.post(
            f"/sessions/{run['session_id']}/bind",
            {"executor_session_id": "x", "hostname": "host", "executor_profile": "e"},
        ).raise_for_status(),
    ),
    "stop": (
        "INSERT INTO stop_commands",
        lambda web, run, runner_id: web.post(f"/sessions/{run['session_id']}/stop").raise_for_status(),
    ),
    "leave": (
        "UPDATE runners SET left_at",
        lambda web, run, runner_id: web.http.delete(f"/runners/{runner_id}?self=true").raise_for_status(),
    ),
}


@pytest.mark.parametrize("what", REPEATED)
def test_other_calls_take_effect_once(web: WebInThread, proxy: PostgresProxy, db: DbVerbs, what: str) -> None:
    """Cover registration, bind, stop and leave: answer well, tell once."""
    runner_id = web.client.register()
    run = web.client.started(runner_id)
    marker, doing = REPEATED[what]
    proxy.lose(marker)
    doing(web.client, run, runner_id)
    assert proxy.lost == 1
    assert_one_history(db.engine)
    assert db.count("stop_commands") == (1 if what == "stop" else 0)
    assert db.count("runners") == (2 if what == "register" else 1)
    started, told = 1, {"register": 0, "bind": 1, "stop": 1, "leave": 1}[what]
    assert db.told_kinds(run["session_id"]).count("session_updated") == started + told


def test_repeated_delete_is_answered_like_the_first_try(web: WebInThread, proxy: PostgresProxy, db: DbVerbs) -> None:
    """Do not answer that there is no such session."""
    session_id = web.client.finished(web.client.register())["session_id"]
    proxy.lose("DELETE FROM sessions")
    answer = web.client.http.delete(f"/sessions/{session_id}")
    assert proxy.lost == 1
    assert answer.status_code == 200
    assert answer.json()["deleted"]["runs_count"] == 1
    assert db.count("events", "kind = 'session_deleted'") == 1


def test_dispatch_claim_with_lost_commit_is_found(settings: Settings, cluster: Cluster, db: DbVerbs) -> None:
    """The worker never publishes it: the instance that holds the poll finds it in the table."""
    own = {"recheck_seconds": 0.5, "fast_paths": False}
    with served(settings.model_copy(update=own)) as web, postgres_proxy(settings.database_url) as theirs:
        until_ready(web)
        runner_id = web.client.register()
        theirs.lose(CLAIM)
        cluster.start_worker(database_url=theirs.url, prepare_statements=False)
        for _ in range(20):
            poll = web.client.meanwhile(web.client.poll, runner_id, 20)
            web.until_parked()
            run_id = web.client.submit()["run_id"]
            assert poll.result(30).json()["run"]["run_id"] == run_id
            assert history(db, run_id) == ["pending", "claimed"]
            if theirs.lost:
                return
    raise AssertionError("dispatch never came first")


def test_constant_loss_of_commit_answers_neither_loses_nor_doubles_runs(
    settings: Settings, cluster: Cluster, db: DbVerbs
) -> None:
    """Kill connections of two replicas and two workers again and again, each just after a COMMIT."""
    with postgres_proxy(settings.database_url) as proxy:
        webs, _ = cluster.start_processes(database_url=proxy.url, prepare_statements=False)
        with Traffic([web.url for web in webs], runners=8) as traffic, ThreadPoolExecutor(1) as losing:
            enough = losing.submit(_keep_losing, proxy, 40)
            enough.result()
            finish(traffic, db.engine)
        lost = proxy.lost
    assert lost >= 40
    assert_nothing_lost_or_doubled(db.engine, traffic.ledger)
    assert not traffic.ledger.refused("poll", "started", "completed", "register")
    assert sum(map(claims, assert_one_history(db.engine).values())) == len(traffic.ledger.deliveries)


def _has_lost(proxy: PostgresProxy, commits: int) -> bool:
    return proxy.lost >= commits


def _keep_losing(proxy: PostgresProxy, until: int) -> None:
    """Lose one answer after the other, of every kind in turn, until so many were lost."""
    while proxy.lost < until:
        before = proxy.lost
        for marker in (SUBMIT, CLAIM, MOVE):
            proxy.lose(marker)
        eventually(partial(_has_lost, proxy, before + 3), 30)
