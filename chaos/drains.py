import time
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import httpx
from sqlalchemy import Connection, Executable, text
from sqlalchemy.exc import SQLAlchemyError

from chaos.cluster import ChaosCluster
from chaos.ledger import Drain, Ledger
from chaos.schedule import Fault
from models.schema.sql import sql
from runtime.processes import wait_until
from testkit.recorded_events import RECORDED_EVENTS
from testkit.waiting import eventually

# Other faults may make each try fail; an undone drain that is not acknowledged would leave the runner idle for good.
WITHIN_SECONDS = 90.0

_RUNNER = text("SELECT runner_id FROM runners WHERE hostname = :name ORDER BY registered_at DESC LIMIT 1")
_CLOCK = text("SELECT clock_timestamp()")
# A claim's events have the time at which its transaction began.
_CLAIMED = sql(
    """
    SELECT run_id, created_at FROM $recorded
    WHERE kind = 'run_updated' AND frame -> 'run' ->> 'status' = $CLAIMED
      AND frame -> 'run' ->> 'runner_id' = :runner_id AND created_at > :since AND created_at < :until
""",
    recorded=RECORDED_EVENTS,
)


def drain_runner(cluster: ChaosCluster, ledger: Ledger, fault: Fault) -> str | None:
    """Drain the runner of that host for the fault's time, and note between which moments it may not have claimed."""
    runner_id = _read(cluster, _RUNNER, name=fault.target)
    if runner_id is None:
        return "there is no such runner"
    addresses = cycle((cluster.balancer, *cluster.urls))
    if not _acknowledged(addresses, "POST", runner_id):
        _acknowledged(addresses, "DELETE", runner_id)
        return "was not acknowledged"
    since = _read(cluster, _CLOCK)
    time.sleep(fault.seconds)
    until = _read(cluster, _CLOCK)
    ledger.drains.append(Drain(runner_id, since, until))
    if not _acknowledged(addresses, "DELETE", runner_id):
        raise AssertionError("its end was not acknowledged")
    return None


def claims_of_draining_runners(connection: Connection, ledger: Ledger) -> list[str]:
    findings = []
    for drain in ledger.drains:
        values = {"runner_id": drain.runner_id, "since": drain.since, "until": drain.until}
        findings += [
            f"{drain.runner_id} claimed {row.run_id} at {row.created_at}, draining since {drain.since}"
            for row in connection.execute(_CLAIMED, values)
        ]
    return findings


def _acknowledged(addresses: Iterator[str], method: str, runner_id: str) -> bool:
    """Try one address after the other until one answers 200."""
    body = {"reason": "chaos"} if method == "POST" else None

    def answers() -> bool:
        try:
            answer = httpx.request(method, f"{next(addresses)}/runners/{runner_id}/drain", timeout=20, json=body)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    return wait_until(answers, within=WITHIN_SECONDS, every=0.5)


def _read(cluster: ChaosCluster, statement: Executable, **values: str) -> Any:
    """Return the first value straight from Postgres, which may be down for a while."""

    def read() -> tuple[Any, ...]:
        try:
            with cluster.engine.connect() as connection:
                return (connection.execute(statement, values).scalar(),)
        except SQLAlchemyError:
            return ()

    (value,) = eventually(read, WITHIN_SECONDS, every=0.2, what="an answer of Postgres")
    return value
