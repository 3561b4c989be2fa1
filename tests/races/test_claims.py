"""Race claims against claims and polls against workers: at any time a run belongs to at most one of them
(promise 1).
"""

import pytest

from models.claims.matching import Demands
from models.claims.polls import answer_polls
from tests.support import claim_scenarios
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs, poll_request, start_submission, told

CROWDS = [2, 8, 32]


@pytest.mark.parametrize("contenders", CROWDS)
def test_concurrent_claims_take_each_run_once(db: DbVerbs, contenders: int) -> None:
    """Leave no run behind."""
    claim_scenarios.storm(db, contenders, runs=96)


@pytest.mark.parametrize("contenders", CROWDS)
def test_concurrent_claims_of_several_runs_take_each_run_once(db: DbVerbs, contenders: int) -> None:
    """Poll with `max=5`."""
    claim_scenarios.storm(db, contenders, runs=96, wanted=5)


@pytest.mark.parametrize("contenders", CROWDS)
def test_same_candidates_go_to_different_claims(db: DbVerbs, contenders: int) -> None:
    """Let all claims read the same candidates before any takes one."""
    claim_scenarios.same_candidates(db, contenders)


@pytest.mark.parametrize(("polls", "dispatchers"), [(2, 1), (8, 2), (24, 8)])
def test_polls_and_dispatch_give_each_run_to_one_poll(db: DbVerbs, polls: int, dispatchers: int) -> None:
    """Mix first answers, second claims, re-checks, lost messages and passes of workers on the same runs."""
    claim_scenarios.storm_of_polls_and_dispatch(db, polls, dispatchers, runs=48)


def test_claim_waits_for_no_other_claim(db: DbVerbs) -> None:
    """SKIP LOCKED: one slow commit does not delay other runners."""
    claim_scenarios.claim_waits_for_no_other(db)


def test_poll_gets_one_run_in_every_order_of_park_submit_and_dispatch(db: DbVerbs) -> None:
    """A run submitted while a poll parks is found by its second claim or by dispatch, not by both."""
    claim_scenarios.one_run_per_poll(db)


def test_ended_poll_gets_its_assignment_or_none_is_made(db: DbVerbs) -> None:
    """Leave no run claimed for a poll that has ended."""
    claim_scenarios.ended_poll_leaves_no_claim(db)


def test_two_workers_give_a_poll_one_run(db: DbVerbs) -> None:
    """A wake-up and a sweep may coincide."""
    claim_scenarios.two_workers_one_poll(db)


def demand_sets(db: DbVerbs, number: int) -> list[str]:
    """Submit one pending run for each of so many sets of demands; return the tags that satisfy them all."""
    tags = [f"tag-{place}" for place in range(number)]
    db.accept(*[start_submission(additional_demands=Demands(tags=(tag,))) for tag in tags])
    return tags


def test_claim_over_200_demand_sets_locks_only_the_runs_it_takes(db: DbVerbs) -> None:
    """Seen: with all candidates locked, 400 rows were locked to take one run, and the next claim found none."""
    tags = demand_sets(db, 200)
    asks = [poll_request(db.runner(tags=tags)) for _ in range(4)]
    with steppers(db.engine, len(asks)) as ours:
        answers = [one.do(answer_polls, [ask]) for one, ask in zip(ours, asks, strict=True)]
        runs = [run.run_id for answer in answers for run in told(answer.result()[0]).runs]
    assert len(set(runs)) == len(asks)


@pytest.mark.parametrize("contenders", [2, 8])
def test_claim_over_200_demand_sets_is_never_empty_while_runs_are_pending(db: DbVerbs, contenders: int) -> None:
    """Let each contender take its share, one run at a time."""
    tags = demand_sets(db, 200)
    runners = [db.runner(tags=tags) for _ in range(contenders)]

    def contend(place: int) -> list[int]:
        return [len(db.claim(runners[place])) for _ in range(96 // contenders)]

    assert run_in_threads(contenders, contend) == [[1] * (96 // contenders)] * contenders
    assert db.count("runs", "status = 'claimed'") == 96


@pytest.mark.parametrize("contenders", CROWDS)
def test_runner_never_holds_more_runs_than_its_capacity(db: DbVerbs, contenders: int) -> None:
    """Give it exactly its capacity, however many of its polls are answered at once."""
    db.accept(*[start_submission() for _ in range(64)])
    runner = db.runner(capacity=7)
    given = run_in_threads(contenders, lambda _: len(db.claim(runner, wanted=4)))

    assert sum(given) == min(7, 4 * contenders)
    assert db.count("runs", "status = 'claimed'") == sum(given)


def test_two_runners_with_capacities_polled_in_opposite_order_do_not_deadlock(db: DbVerbs) -> None:
    """Lock their rows in id order, whatever the order of the batch."""
    runners = [db.runner(capacity=1_000) for _ in range(6)]
    db.accept(*[start_submission() for _ in range(8 * 6 * 5)])

    def contend(place: int) -> int:
        ours = runners if place % 2 else list(reversed(runners))
        return sum(len(a.runs) for _ in range(5) for a in db.answer(*[poll_request(runner) for runner in ours]))

    assert sum(run_in_threads(8, contend)) == 8 * 6 * 5
