"""Race the statements of plain polls against each other, dispatch, submissions, stops and deletes (promise 1)."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection

from models.claims.claim import Ask
from models.claims.matching import Demands
from models.claims.plain_polls import answer_plain_polls, claim_plain_parked, give_up_plain_polls
from models.claims.polls import PollAnswer, claim_parked, give_up_polls
from models.core.plain import NOT_PLAIN
from models.runs.submit import submit_runs
from models.state.runs import Run
from testkit.waiting import eventually
from tests.races import test_claims, test_delete_races, test_stop_races
from tests.races.test_claims import CROWDS, check_owners, claimed_for, private
from tests.support.contenders import interleavings, steppers
from tests.support.db_verbs import DbVerbs, Runner, poll_request, start_submission, told
from tests.support.dispatch_pass import dispatch_waiting


def known(db: DbVerbs, runner: Runner, demands: Demands | None = None) -> Ask:
    """Return a poll of a runner whose offer this process knows, as it knows the demands, by an earlier claim."""
    db.start(additional_demands=demands or Demands())
    assert len(db.claim(runner)) == 1
    return poll_request(runner)


@pytest.mark.parametrize("contenders", CROWDS)
@pytest.mark.parametrize("wanted", [1, 5])
def test_concurrent_plain_claims_take_each_run_once(db: DbVerbs, contenders: int, wanted: int) -> None:
    """Leave no run behind."""
    db.fast_paths = True
    test_claims.storm(db, contenders, runs=96, wanted=wanted)
    assert db.plain_answers > 0


@pytest.mark.parametrize(("polls", "dispatchers"), [(2, 1), (8, 2), (24, 8)])
def test_plain_polls_and_dispatch_give_each_run_to_one_poll(db: DbVerbs, polls: int, dispatchers: int) -> None:
    db.fast_paths = True
    test_claims.storm_of_polls_and_dispatch(db, polls, dispatchers, runs=48)
    assert db.plain_answers > 0


@pytest.mark.parametrize(
    "race",
    [
        test_stop_races.test_stop_against_claims_leaves_no_runner_with_a_stopped_run,
        test_delete_races.test_delete_against_claims_takes_no_run_from_its_runner,
    ],
)
@pytest.mark.parametrize("crowd", CROWDS)
def test_stops_and_deletes_against_plain_claims(db: DbVerbs, race: Callable[[DbVerbs, int], None], crowd: int) -> None:
    db.fast_paths = True
    race(db, crowd)


def test_plain_claim_skips_the_run_of_an_open_claim(db: DbVerbs) -> None:
    """Take the next run at once."""
    first, second = known(db, db.runner()), known(db, db.runner())
    db.accept(start_submission(), start_submission())
    with steppers(db.engine, 2) as (one, other):
        had = one.do(answer_plain_polls, [first])
        found = other.do(answer_plain_polls, [second])
        waits = not found.done()
        one.commit()
        answers = [answers.result()[0] for answers in (had, found)]
        other.commit()
    given: list[tuple[str, Run]] = [
        (ask.runner_id, run)
        for ask, answer in zip((first, second), answers, strict=True)
        if isinstance(answer, PollAnswer)
        for run in answer.runs
    ]
    check_owners(db, given)
    assert not waits, "the second one waits for the first"
    assert len(given) == 2


def test_plain_poll_that_skipped_the_last_run_is_left_to_the_verb(db: DbVerbs) -> None:
    """Park it there, with a wake-up of dispatch: the open claim may be rolled back."""
    first, second = known(db, db.runner()), known(db, db.runner())
    db.accept(start_submission())
    with steppers(db.engine, 2) as (one, other):
        one.do(answer_plain_polls, [first])
        assert other.do(answer_plain_polls, [second]).result() == [NOT_PLAIN]
        one.rollback()
        other.rollback()
    assert len(db.answer(second)[0].runs) == 1


def test_plain_poll_gets_one_run_in_every_order_of_park_submit_and_dispatch(db: DbVerbs) -> None:
    """Park a poll with its second claim, by statements that commit themselves, while a client submits two runs and a
    worker dispatches: in every order the poll ends with exactly one of the two.
    """
    for order in interleavings(["look", "park", "look again", "done"], ["write", "submit", "give", "dispatch"]):
        runner, demands = private(db, 0)
        poll = known(db, runner, demands)
        items = [start_submission(additional_demands=demands) for _ in range(2)]
        parked: list[bool] = []
        left: list[bool] = []
        again: list[bool] = []

        def look(conn: Connection, poll: Ask = poll, parked: list[bool] = parked) -> None:
            (answer,) = answer_plain_polls(conn, [poll])
            parked.append(told(answer).parked)

        def look_again(
            conn: Connection, poll: Ask = poll, parked: list[bool] = parked, left: list[bool] = left
        ) -> None:
            if parked[0]:
                left.append(claim_plain_parked(conn, [poll]) == [NOT_PLAIN])

        def give(conn: Connection, again: list[bool] = again) -> None:
            again.append(dispatch_waiting(conn).again)

        with steppers(db.engine, 2) as (web, others):
            steps: dict[str, Callable[[], object]] = {
                "look": lambda web=web, look=look: web.do(look),
                "park": web.commit,
                "look again": lambda web=web, look_again=look_again: web.do(look_again),
                "done": web.commit,
                "write": lambda others=others, items=items: others.do(submit_runs, items),
                "submit": others.commit,
                "give": lambda others=others, give=give: others.do(give),
                "dispatch": others.commit,
            }
            for name in order:
                steps[name]()
            eventually(lambda web=web, others=others: web.done and others.done, what="the end of both")
        if left == [True]:
            db.do(claim_parked, [poll])
        if any(again):
            db.dispatch()
        assert len(claimed_for(db, poll)) == 1, f"after {order}"
        assert poll.poll_id not in db.waiting(), f"after {order}"


def test_plain_end_of_a_poll_leaves_it_its_assignment_or_none_is_made(db: DbVerbs) -> None:
    """End a poll while a worker gives it a run: in every order it gets the run, or the run stays pending."""
    for order in interleavings(["give up", "gone"], ["give", "dispatch"]):
        runner, demands = private(db, 0)
        poll = db.park(runner)
        (run,) = db.accept(start_submission(additional_demands=demands))
        with steppers(db.engine, 2) as (web, worker):
            steps: dict[str, Callable[[], object]] = {
                "give up": lambda web=web, poll=poll: web.do(give_up_plain_polls, [poll.poll_id]),
                "gone": web.commit,
                "give": lambda worker=worker: worker.do(dispatch_waiting),
                "dispatch": worker.commit,
            }
            results = [steps[name]() for name in order]
            ended = results[order.index("give up")].result()  # type: ignore[attr-defined]  # the step's future
        mine = ended[0] if ended != [NOT_PLAIN] else db.do(give_up_polls, [poll.poll_id])[0]
        assert [one.run_id for one in mine] == claimed_for(db, poll), f"after {order}"
        assert db.run(run.run_id).status == ("claimed" if mine else "pending"), f"after {order}"
        assert poll.poll_id not in db.waiting(), f"after {order}"


def test_repeated_plain_poll_finds_what_its_first_try_committed(db: DbVerbs) -> None:
    """Leave it to the verb, which reads the run or the row by the poll's id."""
    db.fast_paths = True
    claiming, parking = known(db, db.runner()), known(db, db.runner())
    run_id = db.start().run_id
    first: list[PollAnswer] = [db.answer(claiming)[0], db.answer(parking)[0]]

    assert db.do(answer_plain_polls, [claiming, parking]) == [NOT_PLAIN, NOT_PLAIN]
    again = [db.answer(claiming)[0], db.answer(parking)[0]]

    assert [run.claim_token for run in again[0].runs] == [run.claim_token for run in first[0].runs]
    assert (again[1].parked, db.waiting()) == (True, {parking.poll_id})
    assert claimed_for(db, claiming) == [run_id]


def test_runs_excluded_from_a_runner_are_left_to_the_verb(db: DbVerbs) -> None:
    runner = db.runner()
    poll = known(db, runner)
    run_id = db.start().run_id
    values = {"registration": runner.registration, "run_id": run_id}
    db.rows("UPDATE runs SET not_for = ARRAY[CAST(:registration AS bigint)] WHERE run_id = :run_id", **values)

    assert db.do(answer_plain_polls, [poll]) == [NOT_PLAIN]
    assert db.run(run_id).status == "pending"


def test_runner_that_registered_anew_is_left_to_the_verb(db: DbVerbs) -> None:
    """Its offer may have changed."""
    runner = db.runner(tags=["former"])
    poll = known(db, runner)
    db.rows(
        "UPDATE runners SET registration = registration + 1000, tags = '{}' WHERE runner_id = :r", r=runner.runner_id
    )
    assert db.do(answer_plain_polls, [poll]) == [NOT_PLAIN]
