"""Race registrations, losses and submissions against the sweep of runs that no runner satisfies."""

import random
from typing import Any

import pytest

from models.claims.fleet import fleet_of
from models.claims.matching import Demands
from models.core.callers import ADMIN
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.register import Registered, Registration, register_runners
from tests.support import no_match_scenarios
from tests.support.clocks import counts, tick
from tests.support.contenders import run_in_threads
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.matching import no_match_due, timeout_at

TAGS = ("a", "b", "c")


def test_runner_that_registers_during_sweep_keeps_its_runs_pending(db: DbVerbs) -> None:
    """Read registrations again under the locks of the runs."""
    no_match_scenarios.runner_that_registers_at_the_last_moment(db)


@pytest.mark.parametrize("contenders", [2, 8, 32])
def test_sweeps_among_registrations_and_departures_agree_with_matchmaker(db: DbVerbs, contenders: int) -> None:
    """After any interleaving, the next pass stores what the matchmaker's own function returns."""

    def contend(place: int) -> Any:
        dice = random.Random(place)
        match place % 4:
            case 0:
                return tick(db)
            case 1:
                tags = tuple(dice.sample(TAGS, dice.randrange(1, 3)))
                return db.accept(start_submission(additional_demands=Demands(tags=tags)))
            case 2:
                item = Registration(f"h{place}", "/p", "x", (dice.choice(TAGS),), executor_type="autonomous")
                (made,) = db.do(register_runners, [item])
                assert isinstance(made, Registered)
                return made
            case _:
                leaver = db.runner(tags=list(TAGS))
                return db.do(deregister_runners, [LeaveRunner(leaver.runner_id, self_initiated=True, caller=ADMIN)])

    run_in_threads(contenders, contend)
    tick(db)
    fleets = db.rows("SELECT * FROM runners WHERE left_at IS NULL AND lost_at IS NULL")
    for profile in db.rows("SELECT * FROM demand_profiles"):
        matched = any(set(profile.tags) <= set(runner.tags) for runner in fleets)
        assert (profile.unmatched_since is None) == matched, (profile, fleets)


def test_each_waiting_run_fails_once_among_many_sweeps(db: DbVerbs) -> None:
    """Two workers make one pass at a time."""
    runs = db.accept(*[start_submission() for _ in range(20)])
    for run in runs:
        no_match_due(db, run.run_id)
    results = run_in_threads(8, lambda _: tick(db))
    assert sum(result.counts.get("unmatched", 0) for result in results) == 20
    assert [timeout_at(db, run.run_id) for run in runs] == [None] * 20
    assert counts(db) == {}
    assert db.do(fleet_of).empty
