"""Claims against claims, polls against workers: at any time a run belongs to at most one of them (promise 1)."""

import pytest

from models.claims.matching import Demands
from models.claims.polls import answer_polls
from tests.support import claim_scenarios
from tests.support.contenders import crowd, steppers
from tests.support.db_verbs import DbVerbs, asking, starting, told

CROWDS = [2, 8, 32]


@pytest.mark.parametrize("contenders", CROWDS)
def test_of_many_claims_at_once_each_run_goes_to_exactly_one(db: DbVerbs, contenders: int) -> None:
    """A claim storm: every run once, none left."""
    claim_scenarios.storm(db, contenders, runs=96)


@pytest.mark.parametrize("contenders", CROWDS)
def test_of_many_claims_of_several_runs_each_run_goes_to_exactly_one(db: DbVerbs, contenders: int) -> None:
    """With `max=5`."""
    claim_scenarios.storm(db, contenders, runs=96, wanted=5)


@pytest.mark.parametrize("contenders", CROWDS)
def test_a_run_that_all_have_seen_goes_to_one_and_the_others_get_the_next(db: DbVerbs, contenders: int) -> None:
    """The closest race of claims: all have read the same candidates."""
    claim_scenarios.same_candidates(db, contenders)


@pytest.mark.parametrize(("polls", "dispatchers"), [(2, 1), (8, 2), (24, 8)])
def test_polls_and_dispatch_at_once_give_each_run_to_one_poll(db: DbVerbs, polls: int, dispatchers: int) -> None:
    """Answers, second claims, re-checks, lost messages and passes of workers, all on the same runs."""
    claim_scenarios.storm_of_polls_and_dispatch(db, polls, dispatchers, runs=48)


def test_a_claim_waits_for_no_other_claim(db: DbVerbs) -> None:
    """SKIP LOCKED: one slow commit does not hold up all runners."""
    claim_scenarios.nobody_waits_for_a_claim(db)


def test_a_poll_gets_one_run_in_every_order_of_parking_submitting_and_dispatching(db: DbVerbs) -> None:
    """The close race: what is submitted while a poll parks is found by its second claim or by dispatch, by one."""
    claim_scenarios.one_run_per_poll(db)


def test_a_poll_that_gives_up_gets_its_assignment_or_none_is_made(db: DbVerbs) -> None:
    """No run is left claimed for a poll that is over."""
    claim_scenarios.giving_up_leaves_nothing_behind(db)


def test_two_workers_never_give_one_poll_two_runs(db: DbVerbs) -> None:
    """A ring and a sweep may come together."""
    claim_scenarios.two_workers_one_poll(db)


def demand_sets(db: DbVerbs, number: int) -> list[str]:
    """One pending run for each of as many sets of demands; returns the tags that satisfy them all."""
    tags = [f"tag-{place}" for place in range(number)]
    db.accept(*[starting(additional_demands=Demands(tags=(tag,))) for tag in tags])
    return tags


def test_a_claim_over_200_demand_sets_holds_only_what_it_takes(db: DbVerbs) -> None:
    """Seen: with all candidates locked 400 rows were held to take one, and the next claim found nothing."""
    tags = demand_sets(db, 200)
    asks = [asking(db.runner(tags=tags)) for _ in range(4)]
    with steppers(db.engine, len(asks)) as ours:
        answers = [one.do(answer_polls, [ask]) for one, ask in zip(ours, asks, strict=True)]
        runs = [run.run_id for answer in answers for run in told(answer.result()[0]).runs]
    assert len(set(runs)) == len(asks)


@pytest.mark.parametrize("contenders", [2, 8])
def test_no_claim_over_200_demand_sets_comes_back_empty_while_work_is_pending(db: DbVerbs, contenders: int) -> None:
    """Each takes its share of them, one at a time, and is never turned away."""
    tags = demand_sets(db, 200)
    runners = [db.runner(tags=tags) for _ in range(contenders)]

    def contend(place: int) -> list[int]:
        return [len(db.claim(runners[place])) for _ in range(96 // contenders)]

    assert crowd(contenders, contend) == [[1] * (96 // contenders)] * contenders
    assert db.count("runs", "status = 'claimed'") == 96


@pytest.mark.parametrize("contenders", CROWDS)
def test_a_runner_never_has_more_in_hand_than_its_capacity(db: DbVerbs, contenders: int) -> None:
    """However many of its polls are answered at once; and it gets as many as that."""
    db.accept(*[starting() for _ in range(64)])
    runner = db.runner(capacity=7)
    given = crowd(contenders, lambda _: len(db.claim(runner, wanted=4)))

    assert sum(given) == min(7, 4 * contenders)
    assert db.count("runs", "status = 'claimed'") == sum(given)


def test_two_runners_with_capacities_polled_in_opposite_order_do_not_deadlock(db: DbVerbs) -> None:
    """Their rows are locked in id order, whatever the order of the batch."""
    runners = [db.runner(capacity=1_000) for _ in range(6)]
    db.accept(*[starting() for _ in range(8 * 6 * 5)])

    def contend(place: int) -> int:
        ours = runners if place % 2 else list(reversed(runners))
        return sum(len(a.runs) for _ in range(5) for a in db.answer(*[asking(runner) for runner in ours]))

    assert sum(crowd(8, contend)) == 8 * 6 * 5
