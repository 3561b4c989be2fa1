"""Check random fleets, intervals, deaths and outages: no dead runner's run outlives its bound, no live runner loses
one.
"""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from models.core.limits import Limits
from models.expiry.duties import record_instance_heartbeat
from models.expiry.expire import expire
from models.expiry.outages import OUTAGE_AFTER
from models.runners.heartbeat import Touch, touch_runners
from models.schema.tables import metadata
from tests.support.clocks import shift
from tests.support.db_verbs import DbVerbs, Runner
from tests.support.reports import running

STEP = 5
LIMITS = Limits(stale_after=15, lost_after=30)
KEPT = {"demand_profiles", "feed_head"}
# Expiry can only guess at a network cut; below this length it ends no runner's window, whatever interval the others
# were told.
LONGEST_CUT = 20


@dataclass
class SimulatedRunner:
    """Runner with one run: it sends heartbeats at its interval while it lives, and one per step after a failure."""

    told: int
    phase: int
    dies_at: int | None
    runner: Runner = field(init=False)
    run_id: str = field(init=False)
    heard_at: int = 0

    @property
    def window(self) -> float:
        return max(LIMITS.lost_after, 3 * self.told)

    def beats(self, moment: int) -> bool:
        lives = self.dies_at is None or moment < self.dies_at
        return lives and (moment - self.heard_at >= self.told or (moment - self.phase) % self.told == 0)


@dataclass(frozen=True)
class Outage:
    """Part of ours that is away for a while; ``cut`` is the network between the runners and us."""

    part: str
    begins: int
    lasts: int

    def at(self, moment: int) -> bool:
        return self.begins < moment <= self.begins + self.lasts

    def is_known_gap(self, moment: int) -> bool:
        """Return whether expiry records it as an outage, which ends with the first step after it."""
        is_noted = self.part != "cut" and self.lasts + STEP >= OUTAGE_AFTER.total_seconds()
        return is_noted and (self.at(moment) or self.at(moment - STEP))


BEATERS = st.builds(
    SimulatedRunner,
    told=st.sampled_from([5, 10, 20, 30]),
    phase=st.integers(0, 5).map(lambda steps: steps * STEP),
    dies_at=st.one_of(st.none(), st.integers(1, 12).map(lambda steps: steps * STEP)),
)
OUTAGES = st.builds(
    Outage,
    part=st.sampled_from(["postgres", "web", "workers", "cut"]),
    begins=st.integers(0, 60).map(lambda steps: steps * STEP),
    lasts=st.integers(1, 16).map(lambda steps: steps * STEP),
).map(lambda one: one if one.part != "cut" else Outage("cut", one.begins, min(one.lasts, LONGEST_CUT)))
FAST = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class History:
    """Steps so far, and the time for which each dead runner's silence counted."""

    def __init__(self, db: DbVerbs, fleet: list[SimulatedRunner], outages: list[Outage]) -> None:
        self.db, self.fleet, self.outages = db, fleet, outages
        self.served: dict[str, int] = {}
        tables = [table.name for table in metadata.sorted_tables if table.name not in KEPT]
        db.rows(f"TRUNCATE {', '.join(tables)}")
        for one in fleet:
            one.runner = db.runner(told_interval=one.told)
            one.run_id = running(db, one.runner).run_id
            self.served[one.run_id] = 0
        db.do(record_instance_heartbeat, "web-1")
        db.do(expire, limits=LIMITS)
        self._clock = db.one("SELECT clock_timestamp()")

    def live(self, moment: int) -> None:
        self.db.do(self._step, moment)

    def _step(self, conn: Connection, moment: int) -> None:
        away = {one.part for one in self.outages if one.at(moment)}
        now = conn.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        shift(conn, max(0.0, STEP - (now - self._clock).total_seconds()))
        self._clock = now
        known_gap = any(one.is_known_gap(moment) for one in self.outages)
        heard = [] if away & {"postgres", "web", "cut"} else [one for one in self.fleet if one.beats(moment)]
        for one in self.fleet:
            self.served[one.run_id] = 0 if one in heard else self.served[one.run_id] + (0 if known_gap else STEP)
        if not away & {"postgres", "web"}:
            record_instance_heartbeat(conn, "web-1")
        if heard:
            touch_runners(conn, [Touch(one.runner.runner_id) for one in heard])
            for one in heard:
                one.heard_at = moment
        if not away & {"postgres", "workers"}:
            expire(conn, limits=LIMITS)

    def status(self, one: SimulatedRunner) -> str:
        return str(self.db.run(one.run_id).status)


def check(db: DbVerbs, fleet: list[SimulatedRunner], outages: list[Outage]) -> None:
    """Simulate until the last bound of a dead runner has passed."""
    history = History(db, fleet, outages)
    end = 60 + 2 * 90 + sum(one.lasts + 2 * STEP for one in outages)
    for moment in range(STEP, end + STEP, STEP):
        history.live(moment)
        for one in fleet:
            if one.dies_at is None:
                assert history.status(one) == "running", f"silence of ours is held against {one} at {moment}"
            elif history.served[one.run_id] > 2 * one.window + 3 * STEP and not any(
                outage.at(moment) or outage.at(moment - STEP) for outage in outages
            ):
                assert history.status(one) == "failed", f"{one} holds its run at {moment}"


@FAST
@given(fleet=st.lists(BEATERS, min_size=1, max_size=4), outages=st.lists(OUTAGES, max_size=5))
def _holds(db: DbVerbs, fleet: list[SimulatedRunner], outages: list[Outage]) -> None:
    check(db, fleet, outages)


def test_run_of_a_dead_runner_ends_within_its_bound(engine: Engine) -> None:
    """Bound it by twice the window in time without known outages; our own silence costs no live runner its run."""
    _holds(DbVerbs(engine))


def test_only_dead_runners_are_lost_within_the_bound(engine: Engine) -> None:
    """Let all of a fleet die together, which looks like a network cut, and let outages recur."""
    fleet: list[Any] = [SimulatedRunner(10, 0, 20), SimulatedRunner(30, 5, 40)]
    check(DbVerbs(engine), fleet, [Outage("web", begins, 40) for begins in range(30, 300, 60)])
