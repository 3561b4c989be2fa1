"""Kill workers while they send messages to webhooks: each end is told, in the order of its session."""

import signal

from testkit.cluster import Cluster, Process
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.reports import accepted, finished
from tests.support.webhooks import LOOPBACK, Message, make_due, put, receiving, states

# Numbers of the messages at which both workers are killed, before the one that sends has the answer.
KILLED_AT = (4, 17)
SESSIONS = 9


def test_killed_workers_lose_no_message(cluster: Cluster, db: DbVerbs) -> None:
    """Kill two workers between sending and recording, twice; compare what arrived with the runs that ended."""
    workers: list[Process] = []

    def answer(_: Message) -> int:
        if len(receiver.messages) in KILLED_AT:
            for worker in workers:
                worker.signal(signal.SIGKILL)
        return 204

    def start_two() -> None:
        workers[:] = [cluster.start_worker(webhook_allow=LOOPBACK) for _ in range(2)]

    def killed() -> bool:
        make_due(db)
        return not any(worker.alive for worker in workers)

    def told() -> bool:
        make_due(db)
        return "pending" not in states(db) and set(receiver.about("run_id")) == ended(db)

    with receiving(answer) as receiver:
        put(db, "hook", receiver.url)
        long, runner = finished(db), db.runner()
        for _ in KILLED_AT:
            for _ in range(SESSIONS):
                finished(db)
                db.resume(long)
                (run,) = db.claim(runner)
                accepted(db, run, "started")
                accepted(db, run, "completed")
            start_two()
            eventually(killed, every=0.3, what="the death of both workers")
        start_two()
        finished(db)
        number_all(db)
        eventually(told, every=0.3, what="messages of all ends")
    first_seen = list(dict.fromkeys(receiver.about("run_id")))
    in_order = [
        row.run_id for row in db.rows("SELECT run_id FROM runs WHERE session_id = :s ORDER BY session_seq", s=long)
    ]
    assert [run_id for run_id in first_seen if run_id in set(in_order)] == in_order


def ended(db: DbVerbs) -> set[str]:
    return {row.run_id for row in db.rows("SELECT run_id FROM runs WHERE completed_at IS NOT NULL")}
