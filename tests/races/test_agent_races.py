"""Race registrations for one name of an agent, and registrations against submissions that name it."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from typing import Any

import pytest

from models.core.errors import AgentNameTaken
from models.expiry.cleanup import upkeep
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.register import Registered, register_runners
from models.runs.submission import Submitted
from models.runs.submit import submit_runs
from models.runs.submit_plain import submit_plain
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs, start_submission
from tests.support.plain_submissions import add_profile, apply_plain_first, submit_plain_first
from tests.support.runner_agents import offer, provide, provided, register

CROWDS = [2, 8, 32]


@pytest.mark.parametrize("contenders", CROWDS)
def test_one_of_many_runners_gets_a_name(db: DbVerbs, contenders: int) -> None:
    """Refuse the others as a whole."""
    results = [
        result
        for (result,) in run_in_threads(
            contenders, lambda place: register(db, offer(f"h{place}", f"own-{place}", "common"))
        )
    ]
    (winner,) = [result for result in results if isinstance(result, Registered)]
    assert results.count(AgentNameTaken("common", winner.runner_id)) == contenders - 1
    assert set(provided(db).values()) == {winner.runner_id}
    assert len(provided(db)) == 2
    assert db.count("runners") == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_registration_waits_for_an_earlier_one_with_agents(db: DbVerbs, end: str) -> None:
    """Take the name only if the first one did not get it."""
    mine, later = offer("first", "a"), offer("second", "a")
    with steppers(db.engine, 2) as (one, other):
        one.do(register_runners, [mine])
        waiting = other.do(register_runners, [later])
        assert other.waits
        getattr(one, end)()
        other.commit()
    (result,) = waiting.result()
    assert isinstance(result, Registered if end == "rollback" else AgentNameTaken)
    assert provided(db) == {"a": (later if end == "rollback" else mine).runner_id}


def test_registrations_without_agents_wait_for_none(db: DbVerbs) -> None:
    with steppers(db.engine, 2) as (one, other):
        one.do(register_runners, [offer("first", "a")])
        other.do(register_runners, [offer("second")])
        assert other.done
        other.commit()
        one.commit()


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_runners_that_exchange_their_names_show_no_deadlock(db: DbVerbs, order: Sequence[int]) -> None:
    """Three runners want each other's names while a fourth one leaves and upkeep removes: no transaction is aborted."""
    for place in range(3):
        provide(db, f"a{place}", f"b{place}", name=f"h{place}", instance_id=str(place))
    leaving = provide(db, "z", name="leaving")
    calls: list[Callable[[], Any]] = [
        partial(
            register, db, offer(f"h{place}", *[f"{kind}{(place + 1) % 3}" for kind in "ba"], instance_id=str(place))
        )
        for place in order
    ]
    calls += [
        partial(register, db, *[offer(f"h{place}", f"c{place}", instance_id=str(place)) for place in order]),
        partial(register, db, offer("new", "z", "y")),
        partial(db.do, deregister_runners, [LeaveRunner(leaving.runner_id, self_initiated=True)]),
        partial(db.do, upkeep),
    ]
    run_in_threads(len(calls), lambda place: calls[place]())
    holders = db.rows(
        "SELECT a.name FROM runner_agents a LEFT JOIN runners n USING (runner_id) WHERE n.left_at IS NULL"
    )
    assert len(holders) == len(provided(db))


VERBS: list[Callable[..., Sequence[Any]]] = [submit_plain, submit_runs]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("first", ["registration", "submission"])
def test_submission_beside_a_registration_demands_all_or_nothing_of_its_agent(
    db: DbVerbs, verb: Callable[..., Sequence[Any]], first: str
) -> None:
    """Neither waits for the other: what is not committed does not count."""
    add_profile(db)
    item = start_submission(agent_name="a")
    with steppers(db.engine, 2) as (one, other):
        steps = [(one, register_runners, offer("host", "a")), (other, verb, item)]
        for contender, act, given in steps if first == "registration" else steps[::-1]:
            contender.do(act, [given])
            assert contender.done
        one.commit()
        other.commit()
    assert db.run(item.run_id).demands == {"executor_type": "autonomous", "tags": []}
    (again,) = submit_plain_first(db, start_submission(agent_name="a"))
    assert isinstance(again, Submitted)
    assert db.run(again.run_id).demands["executor_type"] == "procedural"


@pytest.mark.parametrize("contenders", CROWDS)
def test_submissions_while_a_runner_comes_and_goes_demand_all_or_nothing(db: DbVerbs, contenders: int) -> None:
    add_profile(db)
    whole = {
        "hostname": "host",
        "project_dir": "/project",
        "executor_profile": "profile",
        "executor_type": "procedural",
        "tags": [],
    }

    def contend(place: int) -> None:
        if place:
            for _ in range(4):
                db.do(apply_plain_first, [start_submission(agent_name="a")])
            return
        for _ in range(4):
            runner = provide(db, "a")
            db.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=True)])

    run_in_threads(contenders, contend)
    found = [row.demands for row in db.rows("SELECT demands FROM runs")]
    assert len(found) == 4 * (contenders - 1)
    assert all(demands in (whole, {"executor_type": "autonomous", "tags": []}) for demands in found)
