"""Scenarios of a web process and of a worker, each with its check: unbroken, and with a part broken."""

from contextlib import closing
from dataclasses import replace

import dramatiq

from runtime.names import Actor
from tests.support.db_verbs import DbVerbs
from tests.support.servers import OwnPostgres
from tests.support.waiting import eventually
from tests.support.web import PROMPT, WebInThread
from workers.actors import declare_actors
from workers.broker import WakingBroker
from workers.context import WorkerContext
from workers.duties import duties_of

START = {"type": "start_session", "parameters": PROMPT}

# Fail at COMMIT, when the verb is done: the last moment at which it can fail.
_REFUSE_COMMITS = """
    CREATE FUNCTION refuse_commit() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE serialization_failure; END';
    CREATE CONSTRAINT TRIGGER refuse_commits AFTER INSERT ON runs DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse_commit();
"""


def acknowledged_submission_is_committed(db: DbVerbs, web: WebInThread) -> None:
    """Acknowledge no submission whose COMMIT fails: every run of a 201 is in the database (promise 2)."""
    for commits in (True, False):
        if not commits:
            db.rows(_REFUSE_COMMITS)
        answer = web.client.post("/runs", START)
        there = db.count("runs", "run_id = :r", r=answer.json().get("run_id", ""))
        assert (answer.status_code == 201) == bool(there), f"answered {answer.status_code}, {there} in the database"
        assert (answer.status_code == 201) == commits


def work_without_workers_reaches_parked_poll(db: DbVerbs, web: WebInThread) -> None:
    """Run no worker and send no message: the re-check finds the run within ~2 s (promise 5)."""
    runner = web.client.register()
    poll = web.client.meanwhile(web.client.poll, runner, 6)
    web.until_parked()
    run_id = web.client.submit()["run_id"]
    answer = poll.result(30)
    assert answer.status_code == 200, f"the poll ended with {answer.status_code}"
    assert answer.json()["run"]["run_id"] == run_id
    assert db.run(run_id).status == "claimed"


def poll_outlives_postgres(postgres: OwnPostgres, web: WebInThread) -> None:
    """Answer polls parked before and sent during an outage with 204; a 5xx would make deployed runners kill their work
    (promise 5).
    """
    runner = web.client.register()
    parked = web.client.meanwhile(web.client.poll, runner, 3)
    web.until_parked()
    postgres.stop()
    try:
        answers = [web.client.poll(runner, 0.5), parked.result(30)]
        assert [answer.status_code for answer in answers] == [204, 204], "a poll was refused"
    finally:
        postgres.start()
    eventually(lambda: web.client.poll(runner, 0).status_code == 204, what="polls as before")


def commit_missed_by_a_pass_sends_another_wakeup(db: DbVerbs, context: WorkerContext) -> None:
    """Commit and notify when a pass of dispatch has read but is not over: another message follows."""
    (duty,) = [duty for duty in duties_of(context) if duty.actor == Actor.DISPATCH]
    poll = db.park(db.runner())
    runs: list[str] = []
    notified: list[bool] = []

    def dispatch_while_a_client_submits() -> None:
        duty.on_message()
        if not runs:
            runs.append(db.start().run_id)
            notified.append(bool(context.wakeups.send(Actor.DISPATCH)))

    broker = WakingBroker(context.settings.redis_url)
    declare_actors(broker, [replace(duty, on_message=dispatch_while_a_client_submits)])
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    with closing(broker):
        try:
            assert context.wakeups.send(Actor.DISPATCH), "the first wake-up"
            eventually(lambda: notified, what="the first pass")
            assert notified == [True], "the second wake-up was swallowed"
            eventually(lambda: db.run(runs[0]).claim_poll_id == poll.poll_id, what="the second pass")
        finally:
            worker.stop(timeout=5000)
