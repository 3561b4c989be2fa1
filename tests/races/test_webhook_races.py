"""Race workers that make, lease and record messages to webhooks."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection

from models.webhooks import deliveries, match
from models.webhooks.deliveries import Delivery
from tests.support.contenders import run_in_threads
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.overview import history
from tests.support.reports import accepted, finished
from tests.support.webhooks import RUN_ENDS, make_due, matched, put, recorded, taken

WORKERS = 8
URL = "https://example.com/hook"


def workers_make_one_message_of_each_end(db: DbVerbs) -> None:
    """Let workers read small batches at once while runs go on; then compare the messages with the ended runs."""

    def work(conn: Connection) -> int:
        return match.match_webhooks(conn, most=3)

    put(db, "hook", URL, *RUN_ENDS)
    history(db)
    number_all(db)
    with ThreadPoolExecutor(WORKERS) as threads:
        passes = [threads.submit(db.do, work) for _ in range(10 * WORKERS)]
        history(db)
        number_all(db)
        passes += [threads.submit(db.do, work) for _ in range(10 * WORKERS)]
        assert any(one.result() for one in passes)
    matched(db)
    told = Counter(row.run_id for row in db.rows("SELECT run_id FROM webhook_deliveries"))
    ended = {row.run_id for row in db.rows("SELECT run_id FROM runs WHERE completed_at IS NOT NULL")}
    assert told == dict.fromkeys(ended, 1), "the messages differ from the ends"


def each_message_is_leased_to_one_process(db: DbVerbs) -> None:
    """Lease and record with eight processes at once, within the bound of the webhook."""
    put(db, "hook", URL)
    for _ in range(4 * WORKERS):
        finished(db)
    matched(db)

    def work(_: int) -> list[Delivery]:
        return [delivery for _ in range(3) for delivery in db.do(deliveries.take_deliveries, most=4)]

    first = [delivery for found in run_in_threads(WORKERS, work) for delivery in found]
    assert len({delivery.delivery_id for delivery in first}) == len(first), "a message was leased twice"
    assert len(first) <= deliveries.MOST_OF_WEBHOOK, "more are being sent than allowed"
    while first:
        for delivery in first:
            recorded(db, delivery)
        first = taken(db)
    assert db.count("webhook_deliveries", "state = 'delivered' AND attempts = 1") == 4 * WORKERS


def workers_together_keep_to_the_bound(db: DbVerbs) -> None:
    """Let a worker lease messages while another one has leased some and not committed yet."""
    put(db, "hook", URL)
    for _ in range(3 * deliveries.MOST_OF_WEBHOOK):
        finished(db)
    matched(db)
    with db.engine.connect() as one, db.engine.connect() as other, one.begin(), other.begin():
        for connection in (one, other):
            deliveries.take_deliveries(connection, most=100)
    leased = db.count("webhook_deliveries", "lease IS NOT NULL")
    assert leased == deliveries.MOST_OF_WEBHOOK, "more are being sent than allowed"


def late_worker_changes_nothing(db: DbVerbs) -> None:
    """Let a lease end while its worker sends: the record of the one that sends again counts, not the late one."""
    put(db, "hook", URL)
    finished(db)
    matched(db)
    (late,) = taken(db)
    make_due(db)
    (second,) = taken(db)
    recorded(db, late, 410)
    assert db.count("webhook_deliveries", "state = 'pending' AND lease = :l", l=second.lease) == 1, (
        "a late record counts"
    )
    recorded(db, second)
    assert db.count("webhook_deliveries", "state = 'delivered'") == 1


def session_is_told_in_order(db: DbVerbs) -> None:
    """Take messages of a session one by one, whatever is due."""
    put(db, "hook", URL)
    session = finished(db)
    runner = db.runner()
    for _ in range(3):
        db.resume(session)
        (run,) = db.claim(runner)
        accepted(db, run, "started")
        accepted(db, run, "completed")
    matched(db)
    for _ in range(4):
        leased = taken(db)
        assert len(leased) == 1, "a later message was taken"
        recorded(db, leased[0])


def test_workers_make_one_message_of_each_end(db: DbVerbs) -> None:
    workers_make_one_message_of_each_end(db)


def test_each_message_is_leased_to_one_process(db: DbVerbs) -> None:
    each_message_is_leased_to_one_process(db)


def test_workers_together_keep_to_the_bound(db: DbVerbs) -> None:
    workers_together_keep_to_the_bound(db)


def test_late_worker_changes_nothing(db: DbVerbs) -> None:
    late_worker_changes_nothing(db)


def test_session_is_told_in_order(db: DbVerbs) -> None:
    session_is_told_in_order(db)
