"""Race claims against claims and polls against workers: at any time a run belongs to at most one of them
(promise 1).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from threading import Barrier, Lock
from typing import Any

import pytest
from sqlalchemy import Connection

from models.claims import claim
from models.claims.claim import Ask
from models.claims.delivery import Claim, confirm_deliveries
from models.claims.matching import Demands
from models.claims.polls import answer_polls, claim_parked, give_up_polls
from models.runs.submission import NewRun
from models.runs.submit import submit_runs
from models.state.runs import Run
from testkit.waiting import eventually
from tests.support.contenders import BARRIER_SECONDS, Stepper, interleavings, run_in_threads, steppers
from tests.support.db_verbs import DbVerbs, Runner, poll_request, start_submission, told
from tests.support.dispatch_pass import dispatch_waiting

CROWDS = [2, 8, 32]
_tags = count(1)


def private(db: DbVerbs, runs: int = 1) -> tuple[Runner, Demands]:
    """Return a runner and demands that no other satisfies, after submitting ``runs`` of them."""
    tag = f"private-{next(_tags)}"
    demands = Demands(tags=(tag,))
    if runs:
        db.accept(*[start_submission(additional_demands=demands) for _ in range(runs)])
    return db.runner(tags=[tag]), demands


def claimed_for(db: DbVerbs, poll: Ask) -> list[str]:
    """Return the runs that belong to a poll, from the database."""
    rows = db.rows("SELECT run_id FROM runs WHERE claim_poll_id = :p AND status = 'claimed'", p=poll.poll_id)
    return [row.run_id for row in rows]


def check_owners(db: DbVerbs, told_to: list[tuple[str, Run]]) -> None:
    """Check that no run was given twice, and that each poll owns the runs it was given."""
    doubles = [run_id for run_id, times in Counter(run.run_id for _, run in told_to).items() if times > 1]
    assert doubles == [], "given to more than one"
    owners = {row.run_id: row for row in db.rows("SELECT run_id, runner_id, claim_token, status FROM runs")}
    for runner_id, run in told_to:
        row = owners[run.run_id]
        assert (row.status, row.runner_id, row.claim_token) == ("claimed", runner_id, run.claim_token)


def storm(db: DbVerbs, contenders: int, runs: int, wanted: int = 1) -> None:
    """Let all contenders claim until nothing is left: every run goes out once, and none is turned away while runs are
    pending.
    """
    db.accept(*[start_submission(priority=place % 3) for place in range(runs)])
    runners = [db.runner() for _ in range(contenders)]

    def contend(place: int) -> list[tuple[str, Run]]:
        mine: list[tuple[str, Run]] = []
        while given := db.claim(runners[place], wanted=wanted):
            mine += [(runners[place].runner_id, run) for run in given]
        return mine

    check_owners(db, [pair for mine in run_in_threads(contenders, contend) for pair in mine])
    left = db.rows("SELECT run_id FROM runs WHERE status = 'pending'")
    assert left == [], "left behind"


class ConcurrentTraffic:
    """Polls that park and are re-checked while workers dispatch and clients submit, until ``runs`` went out.

    Assignments come through a subscription that loses every third message; the re-check finds those.
    """

    def __init__(self, db: DbVerbs, runs: int) -> None:
        self.db = db
        self.runs = runs
        self._given = 0
        self._guard = Lock()
        self._handlers = count()
        self._messages: dict[str, list[Claim]] = {}

    @property
    def over(self) -> bool:
        return self._given >= self.runs

    def poll(self, runner: Runner) -> list[tuple[str, Run]]:
        mine: list[tuple[str, Run]] = []
        while not self.over:
            found = self._answer(poll_request(runner))
            mine += [(runner.runner_id, run) for run in found]
            with self._guard:
                self._given += len(found)
        return mine

    def _answer(self, poll: Ask) -> list[Run]:
        """Return the poll's final answer: immediate, by message, by a re-check, or when it gives up."""
        found = self.db.answer(poll)[0].runs
        while not found and not self.over:
            found = self._by_message(poll) or self.db.second(poll)[0].runs
        return found or self.db.give_up(poll)[0]

    def _by_message(self, poll: Ask) -> list[Run]:
        with self._guard:
            claims = self._messages.pop(poll.poll_id, [])
        confirmed = self.db.do(confirm_deliveries, claims) if claims else []
        return [run for run in confirmed if isinstance(run, Run)]

    def dispatch(self) -> None:
        while not self.over:
            for assignments in self.db.do(dispatch_waiting).by_instance.values():
                for assignment in assignments:
                    if next(self._handlers) % 3:
                        with self._guard:
                            claims = self._messages.setdefault(assignment.poll_id, [])
                            claims.append(Claim(assignment.run_id, assignment.claim_token))

    def submit(self) -> None:
        for _ in range(self.runs // 4):
            self.db.accept(*[start_submission() for _ in range(4)])


def storm_of_polls_and_dispatch(db: DbVerbs, polls: int, dispatchers: int, runs: int) -> None:
    """Check that every run goes out once and none is left undelivered."""
    traffic = ConcurrentTraffic(db, runs)
    runners = [db.runner() for _ in range(polls)]

    def contend(place: int) -> list[tuple[str, Run]]:
        if place < polls:
            return traffic.poll(runners[place])
        traffic.submit() if place == polls else traffic.dispatch()
        return []

    check_owners(db, [pair for mine in run_in_threads(polls + 1 + dispatchers, contend) for pair in mine])
    assert db.count("runs", "status = 'claimed'") == runs
    assert db.count("runs", "delivered_at IS NULL") == 0


@contextmanager
def barrier_after_candidates(contenders: int) -> Iterator[None]:
    """Let no claim take a run before all have read the same candidates."""
    barrier, take, calls = Barrier(contenders), claim._take, count()

    def together(conn: Connection, plan: Any, **how: Any) -> dict[str, Run]:
        if next(calls) < contenders:
            barrier.wait(BARRIER_SECONDS)
        return take(conn, plan, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim, "_take", together)
        yield


@pytest.mark.parametrize("contenders", CROWDS)
def test_same_candidates_go_to_different_claims(db: DbVerbs, contenders: int) -> None:
    """Let all claims see the same oldest run before any takes it: one gets it, the others get the next ones."""
    db.accept(*[start_submission() for _ in range(contenders)])
    runners = [db.runner() for _ in range(contenders)]
    with barrier_after_candidates(contenders):
        given = run_in_threads(
            contenders, lambda place: [(runners[place].runner_id, r) for r in db.claim(runners[place])]
        )
    check_owners(db, [pair for mine in given for pair in mine])
    assert [len(mine) for mine in given] == [1] * contenders, "a claim came back empty"


def test_claim_waits_for_no_other_claim(db: DbVerbs) -> None:
    """Take another run at once while one claim is not committed yet."""
    db.accept(start_submission(), start_submission())
    first, second = poll_request(db.runner()), poll_request(db.runner())
    with steppers(db.engine, 2) as (one, other):
        had = one.do(answer_polls, [first]).result()
        found = other.do(answer_polls, [second])
        assert found.done(), "the second one waits for the first"
        given = [told(answer).runs for (answer,) in (had, found.result())]
        assert [len(runs) for runs in given] == [1, 1]
        assert given[0][0].run_id != given[1][0].run_id
        one.commit()
        other.commit()


def test_poll_gets_one_run_in_every_order_of_park_submit_and_dispatch(db: DbVerbs) -> None:
    """Park a poll with its second claim while a client submits two runs and a worker dispatches: in every order, with
    every transaction open across the others' steps, the poll ends with exactly one of the two.
    """
    for order in interleavings(["look", "park", "look again", "done"], ["write", "submit", "give", "dispatch"]):
        runner, demands = private(db, 0)
        poll = poll_request(runner)
        items = [start_submission(additional_demands=demands) for _ in range(2)]
        with steppers(db.engine, 2) as (web, others):
            steps, again = _steps_of_both(web, others, poll, items)
            for name in order:
                steps[name]()
            eventually(lambda web=web, others=others: web.done and others.done, what="the end of both")
        if again:
            db.dispatch()
        assert len(claimed_for(db, poll)) == 1, f"after {order}"
        assert poll.poll_id not in db.waiting(), f"after {order}"


def _steps_of_both(
    web: Stepper,
    others: Stepper,
    poll: Ask,
    items: list[NewRun],
) -> tuple[dict[str, Callable[[], object]], list[bool]]:
    """Return the steps of both, and a list that is not empty once dispatch asks for another pass."""
    parked: list[bool] = []
    again: list[bool] = []

    def look(conn: Connection) -> None:
        parked.append(told(answer_polls(conn, [poll])[0]).parked)

    def look_again(conn: Connection) -> None:
        if parked[0]:
            claim_parked(conn, [poll])

    def give(conn: Connection) -> None:
        if dispatch_waiting(conn).again:
            again.append(True)

    steps: dict[str, Callable[[], object]] = {
        "look": lambda: web.do(look),
        "park": web.commit,
        "look again": lambda: web.do(look_again),
        "done": web.commit,
        "write": lambda: others.do(submit_runs, items),
        "submit": others.commit,
        "give": lambda: others.do(give),
        "dispatch": others.commit,
    }
    return steps, again


def test_ended_poll_gets_its_assignment_or_none_is_made(db: DbVerbs) -> None:
    """End a poll while a worker gives it a run: in every order it gets the run, or the run stays pending."""
    for order in interleavings(["give up", "gone"], ["give", "dispatch"]):
        runner, demands = private(db, 0)
        poll = db.park(runner)
        (run,) = db.accept(start_submission(additional_demands=demands))
        with steppers(db.engine, 2) as (web, worker):
            found: list[Future[list[list[Run]]]] = []
            steps: dict[str, Callable[[], object]] = {
                "give up": lambda web=web, poll=poll, found=found: found.append(web.do(give_up_polls, [poll.poll_id])),
                "gone": web.commit,
                "give": lambda worker=worker: worker.do(dispatch_waiting),
                "dispatch": worker.commit,
            }
            for name in order:
                steps[name]()
            (mine,) = found[0].result()
        row = db.run(run.run_id)
        assert [one.run_id for one in mine] == claimed_for(db, poll), f"after {order}"
        assert row.status == ("claimed" if mine else "pending"), f"after {order}"
        assert (row.delivered_at is not None) == bool(mine), f"after {order}"
        assert poll.poll_id not in db.waiting(), f"after {order}"


def test_two_workers_give_a_poll_one_run(db: DbVerbs) -> None:
    """Dispatch by two workers at once: in every order each poll gets one run, and one more pass leaves no
    run behind.
    """
    for order in interleavings(["a gives", "a commits"], ["b gives", "b commits"]):
        runner, demands = private(db, 0)
        polls = [db.park(runner), db.park(runner)]
        db.accept(*[start_submission(additional_demands=demands) for _ in range(3)])
        with steppers(db.engine, 2) as (one, other):
            steps: dict[str, Callable[[], object]] = {
                "a gives": lambda one=one: one.do(dispatch_waiting, 1),
                "a commits": one.commit,
                "b gives": lambda other=other: other.do(dispatch_waiting),
                "b commits": other.commit,
            }
            for name in order:
                steps[name]()
        db.dispatch()
        assert [len(claimed_for(db, poll)) for poll in polls] == [1, 1], f"after {order}"


@pytest.mark.parametrize("contenders", CROWDS)
def test_concurrent_claims_take_each_run_once(db: DbVerbs, contenders: int) -> None:
    """Leave no run behind."""
    storm(db, contenders, runs=96)


@pytest.mark.parametrize("contenders", CROWDS)
def test_concurrent_claims_of_several_runs_take_each_run_once(db: DbVerbs, contenders: int) -> None:
    """Poll with `max=5`."""
    storm(db, contenders, runs=96, wanted=5)


@pytest.mark.parametrize(("polls", "dispatchers"), [(2, 1), (8, 2), (24, 8)])
def test_polls_and_dispatch_give_each_run_to_one_poll(db: DbVerbs, polls: int, dispatchers: int) -> None:
    """Mix first answers, second claims, re-checks, lost messages and passes of workers on the same runs."""
    storm_of_polls_and_dispatch(db, polls, dispatchers, runs=48)


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
