"""Verdict of the chaos suite: each of its checks fails when its promise is broken."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from app.inputs.events import new_event
from chaos import clock
from chaos.faults import Done
from chaos.ledger import Delivery, Drain, Failure, Ledger, Report
from chaos.network import Network, network
from chaos.requests import excused
from chaos.schedule import Fault, Kind
from chaos.schedules import EVERY, NAME, faults_of_schedules
from chaos.shipped import LINES, judge_shipped
from chaos.verdict import Verdict, judge
from models.core.callers import ADMIN
from models.feed.append import append_events
from testkit.recorded_events import RECORDED_EVENTS
from testkit.removed_events import keep_removed
from testkit.waiting import eventually
from tests.support import schedules
from tests.support.clocks import add_outage
from tests.support.db_verbs import DbVerbs
from tests.support.numbering import number_all
from tests.support.reports import accepted, running

Break = Callable[[DbVerbs, Ledger, str], None]
_TOKEN = "0" * 32


@pytest.fixture
def ledger(db: DbVerbs) -> Ledger:
    """Return the ledger of a client and a runner about three runs that went as they should."""
    keep_removed(db.engine)
    ledger = Ledger()
    for number in range(3):
        run = running(db, labels={"key": f"key-{number}"})
        ledger.accept(f"key-{number}", run.run_id, run.session_id)
        ledger.deliveries.append(Delivery(run.run_id, str(run.claim_token), "runner-1", 0, 1))
        ledger.reports.append(Report(run.run_id, str(run.claim_token), "started", 200, 2))
        accepted(db, run, "completed")
        ledger.reports.append(Report(run.run_id, str(run.claim_token), "completed", 200, 3))
    number_all(db)
    return ledger


def broken(db: DbVerbs, ledger: Ledger) -> list[Verdict]:
    return [verdict for verdict in judge(db.engine, ledger) if not verdict.held]


def test_faultless_ledger_passes(db: DbVerbs, ledger: Ledger) -> None:
    assert broken(db, ledger) == []


def lose_a_run(db: DbVerbs, _ledger: Ledger, run_id: str) -> None:
    [db.rows(f"DELETE FROM {table} WHERE run_id = '{run_id}'") for table in ("events", "removed_events", "runs")]


def lose_its_row(db: DbVerbs, _ledger: Ledger, run_id: str) -> None:
    db.rows("DELETE FROM runs WHERE run_id = :r", r=run_id)


def double_a_key(db: DbVerbs, _ledger: Ledger, _run_id: str) -> None:
    db.rows("UPDATE runs SET labels = CAST(:labels AS jsonb)", labels=json.dumps({"key": "one"}))


def invent_a_run(db: DbVerbs, _ledger: Ledger, _run_id: str) -> None:
    accepted(db, running(db), "completed")


def answer_a_key_twice(_db: DbVerbs, ledger: Ledger, _run_id: str) -> None:
    ledger.accept("key-0", "another run", "another session")


def change_the_owner(db: DbVerbs, _ledger: Ledger, run_id: str) -> None:
    db.rows(
        """UPDATE events SET frame = CAST(replace(CAST(frame AS text), runs.runner_id, 'lnch_other') AS json) FROM runs
           WHERE events.run_id = :r AND runs.run_id = :r AND kind = 'run_updated'
             AND frame -> 'run' ->> 'status' = 'running'""",
        r=run_id,
    )


def end_it_twice(db: DbVerbs, _ledger: Ledger, run_id: str) -> None:
    db.rows(
        f"""INSERT INTO events (event_uid, kind, session_id, run_id, frame)
           SELECT 'again', kind, session_id, run_id, frame FROM {RECORDED_EVENTS} WHERE run_id = :r AND kind = 'run_updated'
           ORDER BY id DESC LIMIT 1""",
        r=run_id,
    )


def leave_one_running(db: DbVerbs, ledger: Ledger, _run_id: str) -> None:
    run = running(db)
    ledger.accept("hanging", run.run_id, run.session_id)


def lose_a_dead_runner_late(db: DbVerbs, ledger: Ledger, run_id: str) -> None:
    ledger.orphaned.append(run_id)
    db.rows("UPDATE runs SET started_at = completed_at - interval '50 seconds' WHERE run_id = :r", r=run_id)
    # An outage inferred from all runners is a guess, and counts as time.
    add_outage(db, "runners", 40, 10)


def claim_for_a_draining_runner(db: DbVerbs, ledger: Ledger, run_id: str) -> None:
    moment = db.one("SELECT claimed_at FROM runs WHERE run_id = :r", r=run_id)
    day = timedelta(days=1)
    ledger.drains.append(Drain(db.run(run_id).runner_id, moment - day, moment + day))


def let_two_report(_db: DbVerbs, ledger: Ledger, run_id: str) -> None:
    ledger.deliveries.append(Delivery(run_id, _TOKEN, "runner-2", 2, 2.5))


def deliver_one_claim_twice(_db: DbVerbs, ledger: Ledger, _run_id: str) -> None:
    ledger.deliveries.append(ledger.deliveries[0])


def accept_two_ends(_db: DbVerbs, ledger: Ledger, run_id: str) -> None:
    token = next(delivery.token for delivery in ledger.deliveries if delivery.run_id == run_id)
    ledger.reports.append(Report(run_id, token, "failed", 200, 4))


def lose_an_event(_db: DbVerbs, ledger: Ledger, _run_id: str) -> None:
    ledger.events.setdefault("any", []).append("never written")


def forget_a_child(db: DbVerbs, ledger: Ledger, _run_id: str) -> None:
    parent = db.start()
    child = running(db, execution_mode="async_callback", parent_session_id=parent.session_id)
    ledger.accept("parent", parent.run_id, parent.session_id)
    ledger.accept("child", child.run_id, child.session_id)
    accepted(db, child, "completed")


def decide_times(db: DbVerbs) -> None:
    """Let a schedule of every second submit runs, as the campaign's does."""
    schedules.made(db, NAME, EVERY, back=5, overlap="allow")
    schedules.decide(db)
    assert faults_of(db) == []


def faults_of(db: DbVerbs) -> list[str]:
    return db.do(faults_of_schedules)[1]


def leave_a_time_out(db: DbVerbs, _ledger: Ledger, _run_id: str) -> None:
    decide_times(db)
    db.rows(
        "DELETE FROM schedule_fires WHERE fire_at = (SELECT fire_at FROM schedule_fires ORDER BY 1 OFFSET 1 LIMIT 1)"
    )


def run_a_time_twice(db: DbVerbs, _ledger: Ledger, _run_id: str) -> None:
    decide_times(db)
    db.rows(
        "UPDATE runs SET labels = (SELECT labels FROM runs WHERE labels ? 'schedule' ORDER BY run_id LIMIT 1)"
        " WHERE run_id = (SELECT max(run_id) FROM runs WHERE labels ? 'schedule')"
    )


@pytest.mark.parametrize(
    ("promise", "breaks"),
    [
        ("Each time", leave_a_time_out),
        ("Each time", run_a_time_twice),
        ("Nothing acknowledged", lose_a_run),
        ("Nothing acknowledged", lose_its_row),
        ("Nothing acknowledged", double_a_key),
        ("Nothing acknowledged", invent_a_run),
        ("Nothing acknowledged", answer_a_key_twice),
        ("Each run", change_the_owner),
        ("Each run", end_it_twice),
        ("No run stays", leave_one_running),
        ("Dead runners", lose_a_dead_runner_late),
        ("Draining runners", claim_for_a_draining_runner),
        ("Reports of former claims", let_two_report),
        ("Reports of former claims", deliver_one_claim_twice),
        ("Reports of former claims", accept_two_ends),
        ("Each event", lose_an_event),
        ("Each child", forget_a_child),
    ],
)
def test_broken_promise_is_noticed(db: DbVerbs, ledger: Ledger, promise: str, breaks: Break) -> None:
    """Break one promise at a time."""
    breaks(db, ledger, ledger.accepted["key-1"])
    assert any(breach.promise.startswith(promise) for breach in broken(db, ledger))


def test_outage_of_coordinator_excuses_late_loss(db: DbVerbs, ledger: Ledger) -> None:
    """Allow a late loss: expiry was away and could not judge the runner."""
    run_id = ledger.accepted["key-1"]
    lose_a_dead_runner_late(db, ledger, run_id)
    add_outage(db, "expiry", 45, 20)
    assert broken(db, ledger) == []


FREEZE_WEB = Fault(0, Kind.FREEZE, "web-1", 5)
KILL_WEB = Fault(0, Kind.KILL, "web-1")
CRASH = Fault(0, Kind.KILL, "postgres", 5)
SILENCE = Fault(0, Kind.SILENCE, "web-1/postgres", 5)
FREEZE_REDIS = Fault(0, Kind.FREEZE, "redis", 5)
DETAIL = '{"detail":"Service temporarily unavailable"}'


@pytest.mark.parametrize(
    ("fault", "kind", "where", "code", "text", "expected"),
    [
        (KILL_WEB, "submit", "web-1", None, "ConnectError()", True),
        (KILL_WEB, "submit", "web-2", None, "ConnectError()", False),
        (KILL_WEB, "submit", "balancer", 502, "", True),
        (FREEZE_WEB, "poll", "balancer", 503, "", True),
        (FREEZE_WEB, "poll", "web-1", None, "ReadTimeout()", True),
        (FREEZE_WEB, "submit", "web-1", 503, DETAIL, False),
        (CRASH, "submit", "web-1", 503, DETAIL, True),
        (CRASH, "submit", "balancer", 503, DETAIL, True),
        (CRASH, "submit", "web-1", 500, DETAIL, False),
        (CRASH, "submit", "web-1", None, "ReadError()", False),
        (CRASH, "poll", "web-1", 503, DETAIL, False),
        (CRASH, "poll", "balancer", 503, DETAIL, False),
        (SILENCE, "submit", "web-1", 503, DETAIL, True),
        (SILENCE, "submit", "web-2", 503, DETAIL, False),
        (FREEZE_REDIS, "submit", "web-1", 503, DETAIL, False),
        (FREEZE_REDIS, "submit", "web-1", None, "ReadTimeout()", False),
    ],
)
def test_failed_call_is_excused_by_matching_fault_only(
    fault: Fault, kind: str, where: str, code: int | None, text: str, *, expected: bool
) -> None:
    """Excuse nothing by Redis faults, 503 except to a poll by Postgres faults, and any call to a killed web process."""
    failure = Failure(kind, where, 10, 11, code, text)
    assert excused(failure, [Done(fault, 9, 12)]) is expected
    assert not excused(failure, [Done(fault, 100, 101)])
    assert not excused(failure, [])


def test_call_cut_off_by_load_client_is_no_failure() -> None:
    """Excuse only calls without an answer."""
    text = "ReadError('') from ReadError(ClosedResourceError()) from ClosedResourceError()"
    assert excused(Failure("heartbeat", "web-1", 10.0, 11.0, None, text), [])
    assert not excused(Failure("heartbeat", "web-1", 10.0, 11.0, 500, text), [])
    assert not excused(Failure("heartbeat", "web-1", 10.0, 11.0, None, "ReadError('') from ConnectionResetError()"), [])


@pytest.fixture
def way(database_url: str) -> Iterator[Network]:
    """Open a proxied network to this test's Postgres."""
    with network(database_url) as way:
        yield way


def test_cut_network_resets_open_and_new_connections(way: Network) -> None:
    """Pass everything again once it is whole."""
    with closing(psycopg.connect(way.url)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with way.cut(None):
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(way.url)
    psycopg.connect(way.url).close()


def test_silent_network_answers_nothing_and_ends_in_reset(way: Network) -> None:
    """Reset the connections that were open during the silence when it ends."""
    with closing(psycopg.connect(way.url)) as connection:
        with way.silence(None), pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(way.url, connect_timeout=2)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_fault_of_one_process_spares_others(way: Network) -> None:
    """Leave all connections of this process alone."""
    with closing(psycopg.connect(way.url)) as connection, way.cut(list):
        assert connection.execute("SELECT 1").fetchone() == (1,)
        psycopg.connect(way.url).close()


@pytest.mark.parametrize("seconds", [-7200, 600])
def test_clock_jumps_for_chosen_process_only(tmp_path: Path, seconds: int) -> None:
    """Change it by the hook alone, and back; another process reads the true time meanwhile."""
    ask = "import sys, time\nfor _ in sys.stdin: print(time.time_ns() // 10**9, time.time(), flush=True)"
    environment = {"PYTHONPATH": str(clock.install(tmp_path))}

    def now(process: "subprocess.Popen[str]") -> list[float]:
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        return [float(part) for part in process.stdout.readline().split()]

    def is_wrong_by(process: "subprocess.Popen[str]", seconds: int) -> bool:
        return all(abs(told - time.time() - seconds) < 30 for told in now(process))

    with ExitStack() as held:
        meant, other = (
            held.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", ask],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(2)
        )
        assert is_wrong_by(meant, 0)
        with clock.skewed(tmp_path, [psutil.Process(meant.pid)], seconds):
            eventually(lambda: is_wrong_by(meant, seconds), what="a wrong clock")
            assert is_wrong_by(other, 0)
        eventually(lambda: is_wrong_by(meant, 0), what="a right clock")


def shipped_run(db: DbVerbs, *, lines: int = LINES, results: int = 1, outcome: str = "completed") -> str:
    """Return the ledger lines of a run as the job of the shipped runner prints them, in its first attempt."""
    run = running(db)
    bodies: list[dict[str, object]] = [
        {"event_type": "message", "content": [{"type": "text", "text": f"1 line {number}"}]} for number in range(lines)
    ]
    bodies += [{"event_type": "result", "result_text": "done"}] * results
    said = {"session_id": run.session_id, "timestamp": "t", "claim_token": run.claim_token}
    db.do(append_events, [new_event({**body, **said}, run.session_id, ADMIN, 10_000, ("body",))[0] for body in bodies])
    accepted(db, run, outcome)
    return run.run_id


@pytest.mark.parametrize(
    ("fields", "against"),
    [
        ({}, 0),
        ({"lines": LINES - 1}, 1),
        ({"lines": LINES + 1}, 1),
        ({"results": 0}, 1),
        ({"results": 2}, 1),
        ({"outcome": "failed"}, 1),
    ],
)
def test_losses_of_shipped_runner_are_noticed(db: DbVerbs, fields: dict[str, Any], against: int) -> None:
    """Leave out or double a line or a result, or fail a run by a proxy's answer."""
    runs = [shipped_run(db), shipped_run(db, **fields)]
    assert len(judge_shipped(db.engine, runs).findings) == against
