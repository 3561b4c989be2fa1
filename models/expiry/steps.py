from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, TextClause, text

from models.core.limits import Limits
from models.expiry.outages import Clocks, begun_before
from models.state.locked_rows import LockedRun
from models.state.locks import LockedRows


@dataclass(frozen=True, slots=True)
class Pass:
    conn: Connection
    clocks: Clocks
    limits: Limits
    most: int

    def find(self, query: TextClause, **values: Any) -> list[str]:
        parameters = {"now": self.clocks.now, "most": self.most, **values}
        return list(self.conn.execute(query, parameters).scalars())

    def begun_before(self, seconds: float) -> datetime:
        return begun_before(self.conn, self.clocks, [seconds])[0]

    def due(self, seconds: float) -> datetime:
        return self.begun_before(seconds) + timedelta(seconds=seconds)

    def by_interval(self, window: Callable[[float, Limits], float]) -> dict[str, Any]:
        """Return, as parameters of a query, when a window began that depends on the heartbeat interval of a runner.

        0 stands for a runner without a row.
        """
        intervals = sorted({0, *self.clocks.told_intervals})
        windows = [window(interval, self.limits) for interval in intervals]
        starts = begun_before(self.conn, self.clocks, windows)
        ends = [start + timedelta(seconds=seconds) for start, seconds in zip(starts, windows, strict=True)]
        return {"told": intervals, "begun_before": starts, "due": ends}


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of a step: counts by name, whether it found as many as it may take, and the runners that have a stop to
    deliver.
    """

    counts: dict[str, int]
    full: bool = False
    runners_to_notify: frozenset[str] = frozenset()


Step = Callable[[Pass], StepResult]


def each_session_once(locked: LockedRows, run_ids: Sequence[str], due: Callable[[LockedRun], bool]) -> list[LockedRun]:
    chosen: dict[str, LockedRun] = {}
    for run_id in run_ids:
        run = locked.runs.get(run_id)
        if run is not None and due(run):
            chosen.setdefault(run.session_id, run)
    return list(chosen.values())


_TOKEN_SENDERS = text("""
    SELECT registration FROM runners WHERE runner_id = ANY(CAST(:runner_ids AS text[])) AND sends_tokens
""")


def token_senders(conn: Connection, runs: Collection[LockedRun]) -> set[int]:
    if not runs:
        return set()
    return set(conn.execute(_TOKEN_SENDERS, {"runner_ids": sorted({run.holder[0] for run in runs})}).scalars())
