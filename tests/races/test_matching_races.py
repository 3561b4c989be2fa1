"""Registrations, losses and submissions against the sweep of runs that no runner satisfies."""

import random
from typing import Any

import pytest

from models.claims.fleet import fleet_of
from models.claims.matching import Demands
from models.core.callers import ADMIN
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.register import Registered, Registration, register_runners
from tests.support import no_match
from tests.support.clocks import counts, tick
from tests.support.contenders import crowd
from tests.support.matching import no_match_due, timeout_at
from tests.support.truth import Truth, starting

TAGS = ("a", "b", "c")


def test_runner_that_registers_during_the_sweep_keeps_its_runs_pending(truth: Truth) -> None:
    """The sweep reads registrations once more under the locks of the runs."""
    no_match.runner_that_comes_at_the_last_moment(truth)


@pytest.mark.parametrize("contenders", [2, 8, 32])
def test_sweeps_among_registrations_and_departures_agree_with_the_matchmaker(truth: Truth, contenders: int) -> None:
    """Whatever happens at once, the next pass stores what the matchmaker's own function says."""

    def contend(place: int) -> Any:
        dice = random.Random(place)
        match place % 4:
            case 0:
                return tick(truth)
            case 1:
                tags = tuple(dice.sample(TAGS, dice.randrange(1, 3)))
                return truth.accept(starting(additional_demands=Demands(tags=tags)))
            case 2:
                item = Registration(f"h{place}", "/p", "x", (dice.choice(TAGS),), executor_type="autonomous")
                (made,) = truth.do(register_runners, [item])
                assert isinstance(made, Registered)
                return made
            case _:
                leaver = truth.runner(tags=list(TAGS))
                return truth.do(deregister_runners, [LeaveRunner(leaver.runner_id, self_initiated=True, caller=ADMIN)])

    crowd(contenders, contend)
    tick(truth)
    fleets = truth.rows("SELECT * FROM runners WHERE left_at IS NULL AND lost_at IS NULL")
    for profile in truth.rows("SELECT * FROM demand_profiles"):
        matched = any(set(profile.tags) <= set(runner.tags) for runner in fleets)
        assert (profile.unmatched_since is None) == matched, (profile, fleets)


def test_each_waiting_run_fails_once_among_many_sweeps(truth: Truth) -> None:
    """Two workers, one pass at a time."""
    runs = truth.accept(*[starting() for _ in range(20)])
    for run in runs:
        no_match_due(truth, run.run_id)
    results = crowd(8, lambda _: tick(truth))
    assert sum(result.counts.get("unmatched", 0) for result in results) == 20
    assert [timeout_at(truth, run.run_id) for run in runs] == [None] * 20
    assert counts(truth) == {}
    assert truth.do(fleet_of).empty
