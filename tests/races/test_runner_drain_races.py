"""Race drains of runners against every way to a run: after the answer of a drain no claim for its runner commits."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Engine

from models.claims.claim import Ask
from models.claims.dispatch import dispatch_preview, preview_waiting, recent_polls
from models.claims.plain_polls import answer_plain_polls, claim_plain_parked
from models.claims.polls import answer_polls, claim_parked, recheck_polls
from models.core.plain import NOT_PLAIN
from models.runners.drain import SetDrain, open_transactions, set_drains
from runtime.settings import Settings
from testkit.waiting import eventually
from tests.races.test_claims import CROWDS
from tests.races.test_plain_claims import known
from tests.support.contenders import run_in_threads, steppers
from tests.support.db_verbs import DbVerbs, Runner, poll_request, told
from tests.support.dispatch_pass import dispatch_waiting
from tests.support.in_process_worker import running_worker
from tests.support.runner_drains import (
    claimed_by,
    drain,
    drain_and_wait,
    our_engine,
    registered_by_the_last_release,
    seen_by_the_last_release,
    undrain,
    wait_for_claims,
)
from tests.support.web import WebInThread, served, until_ready


@pytest.fixture
def ours(settings: Settings) -> Iterator[Engine]:
    with our_engine(settings) as engine:
        yield engine


def first_call(db: DbVerbs, poll: Ask) -> None:
    assert db.answer(poll_request(Runner(poll.runner_id, 0)))[0].parked


def first_plain_call(db: DbVerbs, poll: Ask) -> None:
    asked = poll_request(Runner(poll.runner_id, 0))
    assert db.do(answer_plain_polls, [asked]) == [NOT_PLAIN], "given a run"


def second_call(db: DbVerbs, poll: Ask) -> None:
    assert db.second(poll)[0].parked


def second_plain_call(db: DbVerbs, poll: Ask) -> None:
    assert db.do(claim_plain_parked, [poll]) == [NOT_PLAIN], "given a run"


def recheck(db: DbVerbs, poll: Ask) -> None:
    assert db.recheck(poll)[0].parked


def dispatch(db: DbVerbs, _: Ask) -> None:
    assert db.dispatch() == {}, "given a run"


def choice_elsewhere(db: DbVerbs, _: Ask) -> None:
    """Choose a parked poll of another instance for a submitted run."""
    assert db.do(recent_polls, "web-2", 5) == [], "chosen"


WAYS = (first_call, first_plain_call, second_call, second_plain_call, recheck, dispatch, choice_elsewhere)
# After its drain a runner has the capacity 0, or the one that it told a replica of the last release.
REGISTERED = ("before", "by the last release")


@pytest.mark.parametrize("registered", REGISTERED)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_draining_runner_is_given_no_run(db: DbVerbs, way: Callable[[DbVerbs, Ask], None], registered: str) -> None:
    """Give the runs to another one, and to this one after the drain."""
    runner = db.runner()
    known(db, runner)
    poll = db.park(runner)
    had = claimed_by(db, runner.runner_id)
    drain(db, runner.runner_id)
    if registered == "by the last release":
        registered_by_the_last_release(db, runner.runner_id)
    db.start()
    way(db, poll)
    assert claimed_by(db, runner.runner_id) == had, "given a run"
    assert len(db.claim(db.runner())) == 1
    db.start()
    undrain(db, runner.runner_id)
    assert len(db.recheck(poll)[0].runs) == 1


@pytest.mark.parametrize("capacity", [None, 3])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_claims_of_the_last_release_respect_a_drain(
    db: DbVerbs, way: Callable[[DbVerbs, Ask], None], capacity: int | None
) -> None:
    """Keep from these claims what that release does not read: they find no capacity."""
    runner = db.runner(capacity=capacity)
    db.start()
    assert len(db.claim(runner)) == 1
    poll = db.park(runner)
    had = claimed_by(db, runner.runner_id)
    drain(db, runner.runner_id)
    seen_by_the_last_release(db, runner.runner_id)
    db.start()
    way(db, poll)
    assert claimed_by(db, runner.runner_id) == had


def test_dispatch_that_looked_before_a_drain_gives_its_runner_nothing(db: DbVerbs) -> None:
    """Look and claim in two transactions, as a worker does."""
    runner = db.runner()
    db.park(runner)
    db.start()
    preview = db.do(preview_waiting)
    assert len(preview.poll_candidates) == 1
    drain(db, runner.runner_id)
    registered_by_the_last_release(db, runner.runner_id)
    assert db.do(dispatch_preview, preview).by_instance == {}
    assert claimed_by(db, runner.runner_id) == set(), "given a run"


def test_claim_by_capacity_waits_for_an_open_drain_and_finds_none(db: DbVerbs) -> None:
    runner = db.runner(capacity=2)
    db.start()
    with steppers(db.engine, 2) as (admin, web):
        admin.do(set_drains, [SetDrain(runner.runner_id, draining=True)])
        answer = web.do(answer_polls, [poll_request(runner)])
        assert web.waits
        admin.commit()
        assert told(answer.result()[0]).runs == []
        web.commit()
    assert claimed_by(db, runner.runner_id) == set()


CLAIMS: dict[str, tuple[Callable[..., Any], bool]] = {
    "first call": (answer_polls, False),
    "first plain call": (answer_plain_polls, False),
    "second call": (claim_parked, True),
    "second plain call": (claim_plain_parked, True),
    "re-check": (recheck_polls, True),
    "dispatch": (lambda conn, _: dispatch_waiting(conn), True),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_answer_of_a_drain_waits_for_a_claim_that_had_begun(db: DbVerbs, ours: Engine, claim: str) -> None:
    """Keep the claim open: it read the runner before the drain, and commits after it."""
    runner, mine = db.runner(), DbVerbs(ours)
    known(mine, runner)
    verb, parked = CLAIMS[claim]
    poll = mine.park(runner) if parked else poll_request(runner)
    db.start()
    had = claimed_by(db, runner.runner_id)
    with ThreadPoolExecutor(1) as admin, steppers(ours, 1) as (web,):
        begun = web.do(verb, [poll])
        drain(db, runner.runner_id)
        answered = admin.submit(wait_for_claims, db)
        assert db.do(open_transactions), "does not wait"
        assert not answered.done()
        assert claimed_by(db, runner.runner_id) == had
        web.commit()
        answered.result(30)
        begun.result()
    assert len(claimed_by(db, runner.runner_id) - had) == 1


def test_answer_of_a_drain_waits_for_no_dump(db: DbVerbs, ours: Engine) -> None:
    """Read all runners in a transaction of another program, which claims nothing."""
    runner = db.runner()
    with db.engine.connect() as dump:
        dump.exec_driver_sql("SELECT * FROM runners")
        assert drain_and_wait(db, runner.runner_id) == set()


@pytest.mark.parametrize("fast_paths", [False, True])
@pytest.mark.parametrize("contenders", CROWDS)
def test_no_claim_commits_after_the_answer_of_a_drain(
    db: DbVerbs, ours: Engine, contenders: int, *, fast_paths: bool
) -> None:
    """Submit, poll, park, re-check and dispatch for the runner in all threads but one, which drains it."""
    runner = db.runner()
    known(DbVerbs(ours), runner)
    over = Event()
    calls = [0] * (contenders + 1)
    settled: list[set[str]] = []

    def contend(place: int) -> None:
        if place == contenders:
            try:
                eventually(lambda: len(claimed_by(db, runner.runner_id)) > 3 * contenders, 30, what="claims")
                settled.append(drain_and_wait(db, runner.runner_id))
                before = list(calls)
                eventually(lambda: all(now > then + 2 for now, then in zip(calls[:-1], before, strict=False)), 60)
            finally:
                over.set()
            return
        mine = DbVerbs(ours)
        mine.fast_paths = fast_paths
        while not over.is_set():
            mine.start()
            poll = poll_request(runner)
            if place % 2:
                mine.dispatch()
            elif not mine.answer(poll)[0].runs and not mine.second(poll)[0].runs and not mine.recheck(poll)[0].runs:
                mine.dispatch()
                mine.give_up(poll)
            calls[place] += 1

    run_in_threads(contenders + 1, contend)
    assert claimed_by(db, runner.runner_id) == settled[0], "claimed after the answer"


@pytest.fixture
def webs(settings: Settings) -> Iterator[list[WebInThread]]:
    quick = settings.model_copy(update={"recheck_seconds": 0.05})
    with served(quick) as here, served(quick) as there, running_worker(settings):
        for web in (here, there):
            until_ready(web)
        yield [here, there]


@pytest.mark.parametrize("capacity", [None, 1_000])
def test_runner_gets_no_run_after_the_answer_while_two_webs_and_dispatch_claim(
    webs: list[WebInThread], db: DbVerbs, capacity: int | None
) -> None:
    """Poll at both instances and submit at both; drain at one. After the drain all runs go out again."""
    here, there = webs
    runner_id = here.client.register(capacity=capacity)
    over = Event()

    def act(place: int) -> list[str]:
        web = webs[place % 2]
        submitted: list[str] = []
        while not over.is_set():
            if place < 4:
                web.client.poll(runner_id, 0.2, max=3)
            else:
                submitted.append(web.client.submit()["run_id"])
        return submitted

    with ThreadPoolExecutor(6) as threads:
        actors = [threads.submit(act, place) for place in range(6)]
        try:
            eventually(lambda: len(claimed_by(db, runner_id)) > 20, 30, what="claims")
            answer = there.client.post(f"/runners/{runner_id}/drain", {"reason": "test"})
            settled = claimed_by(db, runner_id)
            assert answer.status_code == 200, answer.text
            pending = db.count("runs", "status = 'pending'")
            eventually(lambda: db.count("runs", "status = 'pending'") > pending + 40, 30, what="submissions")
            assert claimed_by(db, runner_id) == settled, "claimed after the answer"
            assert here.client.http.delete(f"/runners/{runner_id}/drain").status_code == 200
            eventually(lambda: len(claimed_by(db, runner_id)) > len(settled) + 20, 30, what="claims after the drain")
        finally:
            over.set()
        assert [actor.result() for actor in actors]
