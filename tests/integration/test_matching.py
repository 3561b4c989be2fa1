"""Matching of runs and runners: demands, tags, capacity, priority and age (PROTOCOL, Runs)."""

from typing import Any

import pytest

from models.claims.claim import claim_runs
from models.claims.matching import Demands, MatchSets, match_sets
from models.core.callers import ADMIN, Caller, Role
from models.core.errors import TooManyDemands
from models.expiry.cleanup import upkeep
from models.runs.submission import NewRun, Submitted
from models.runs.submit import submit_runs
from tests.support.contenders import steppers
from tests.support.db_verbs import DbVerbs, Runner, accepted, poll_request, resume_submission, start_submission

ANY = Demands()


def demanding(demands: Demands = ANY, **values: Any) -> NewRun:
    return start_submission(additional_demands=demands, **values)


def taken(db: DbVerbs, runner: Runner, wanted: int = 100) -> list[str]:
    return [run.run_id for run in db.claim(runner, wanted=wanted)]


def match_sets_of(db: DbVerbs) -> MatchSets:
    """Return the match sets that this process has cached for the test's database."""
    with db.engine.connect() as connection:
        return match_sets(connection)


OFFER = {"hostname": "h", "project_dir": "/p", "executor_profile": "e", "tags": ["gpu", "big"]}


@pytest.mark.parametrize(
    ("demands", "fits"),
    [
        (ANY, True),
        (Demands(hostname="h"), True),
        (Demands(hostname="H"), False),
        (Demands(project_dir="/p", executor_profile="e"), True),
        (Demands(project_dir="/p", executor_profile="other"), False),
        (Demands(project_dir="/p/"), False),
        (Demands(tags=("gpu",)), True),
        (Demands(tags=("gpu", "big")), True),
        (Demands(tags=("gpu", "small")), False),
        (Demands("h", "/p", "e", None, ("big",)), True),
    ],
)
def test_runner_satisfies_equal_properties_and_all_tags(
    db: DbVerbs,
    demands: Demands,
    fits: bool,  # noqa: FBT001 - a table of cases
) -> None:
    """Demand nothing by a property that is not given."""
    run = db.accept(demanding(demands))[0].run_id

    assert taken(db, db.runner(**OFFER)) == ([run] if fits else [])


def test_every_run_demands_executor_type(db: DbVerbs) -> None:
    """Demand `autonomous`: a runner registered without a type claims nothing."""
    run = db.start().run_id

    assert taken(db, db.runner(executor_type=None)) == []
    assert taken(db, db.runner(executor_type="procedural")) == []
    assert taken(db, db.runner()) == [run]


def test_runner_with_require_matching_tags_takes_only_tagged_runs(db: DbVerbs) -> None:
    """Require the run's other demands too."""
    plain, gpu, both, other = [
        run.run_id
        for run in db.accept(*[demanding(Demands(tags=t)) for t in [(), ("gpu",), ("gpu", "big"), ("small",)]])
    ]
    assert taken(db, db.runner(**OFFER, require_matching_tags=True)) == [gpu, both]
    assert taken(db, db.runner(tags=[], require_matching_tags=True)) == []
    assert taken(db, db.runner(tags=["small"], require_matching_tags=True)) == [other]
    assert taken(db, db.runner()) == [plain]


def test_highest_priority_goes_first_then_oldest(db: DbVerbs) -> None:
    """Compare across demand profiles, whatever their order."""
    items = [
        demanding(Demands(tags=("gpu",) if place % 2 else ()), priority=p)
        for place, p in enumerate([0, -5, 100, 0, 7, -5, 7])
    ]
    runs = [run.run_id for run in db.accept(*items)]
    runner = db.runner(tags=["gpu"])

    expected = [runs[place] for place in (2, 4, 6, 0, 3, 1, 5)]
    assert [taken(db, runner, wanted=1)[0] for _ in runs] == expected


def test_unmatched_run_blocks_no_run_behind_it(db: DbVerbs) -> None:
    """Put it in front, with higher priority and age."""
    db.accept(*[demanding(Demands(tags=("mainframe",)), priority=9) for _ in range(20)])
    run_id = db.start().run_id

    assert taken(db, db.runner()) == [run_id]


def test_runner_has_at_most_its_capacity_in_hand(db: DbVerbs) -> None:
    """Count claimed, running and stopping runs, but not ended ones."""
    runs = [run.run_id for run in db.accept(*[start_submission() for _ in range(6)])]
    runner = db.runner(capacity=3)
    assert taken(db, runner, wanted=2) == runs[:2]
    assert taken(db, runner, wanted=2) == runs[2:3]
    assert taken(db, runner) == []

    db.rows("UPDATE runs SET status = 'stopping' WHERE run_id = :r", r=runs[0])
    db.rows("UPDATE runs SET status = 'running' WHERE run_id = :r", r=runs[1])
    assert taken(db, runner) == []
    db.rows("UPDATE runs SET status = 'completed', completed_at = now() WHERE run_id = :r", r=runs[0])
    assert taken(db, runner) == runs[3:4]


def test_several_polls_of_runner_share_its_capacity(db: DbVerbs) -> None:
    """Claim in one batch, parked, and by dispatch."""
    db.accept(*[start_submission() for _ in range(9)])
    runner = db.runner(capacity=4)
    answers = db.answer(*[poll_request(runner, wanted=3) for _ in range(2)])
    assert [len(answer.runs) for answer in answers] == [3, 1]

    assert db.answer(poll_request(runner))[0].parked
    assert db.dispatch() == {}
    db.rows(
        """UPDATE runs SET status = 'completed', completed_at = now()
           WHERE run_id IN (SELECT run_id FROM runs WHERE status = 'claimed' LIMIT 1)""",
    )
    db.answer(poll_request(runner, wanted=0))
    assert sum(map(len, db.dispatch().values())) == 1
    assert db.count("runs", "status = 'claimed'") == 4


def test_full_runner_leaves_work_to_others_in_batch(db: DbVerbs) -> None:
    """Let neither wait for the other."""
    runs = [run.run_id for run in db.accept(*[start_submission() for _ in range(3)])]
    small, large = db.runner(capacity=1), db.runner()
    first, second = db.answer(poll_request(small, wanted=3), poll_request(large, wanted=3))

    assert [len(first.runs), len(second.runs)] == [1, 2]
    assert {run.run_id for answer in (first, second) for run in answer.runs} == set(runs)


def test_excluded_registration_does_not_get_run_again(db: DbVerbs) -> None:
    """Exclude it by `not_for`: without tokens a report must mean one claim only. Another registration may claim."""
    excluded, runner = db.start(priority=5).run_id, db.runner()
    db.rows("UPDATE runs SET not_for = ARRAY[CAST(:r AS bigint), 77]", r=runner.registration)
    free = db.start().run_id

    assert taken(db, runner) == [free]
    assert taken(db, db.runner()) == [excluded]


def test_excluded_runs_in_front_block_nothing(db: DbVerbs) -> None:
    """Put more of them there than a claim reads at once; the next candidate in the batch may have them."""
    runner, other = db.runner(), db.runner()
    db.accept(*[start_submission(priority=5) for _ in range(60)])
    db.rows("UPDATE runs SET not_for = ARRAY[CAST(:r AS bigint)]", r=runner.registration)
    free = db.start().run_id
    own, others = db.answer(poll_request(runner), poll_request(other, wanted=2))

    assert [run.run_id for run in own.runs] == [free]
    assert {run.priority for run in others.runs} == {5}


def test_run_behind_another_of_its_session_is_not_claimed(db: DbVerbs) -> None:
    """Claim one at a time, even for a runner that wants many."""
    first, *_ = db.accept(start_submission("s"), resume_submission("s", priority=100), resume_submission("s"))

    assert taken(db, db.runner()) == [first.run_id]
    assert taken(db, db.runner()) == []


def test_claim_without_candidates_sends_no_statement(db: DbVerbs) -> None:
    db.start()
    given = db.do(claim_runs, [], delivered=True)

    assert (given.runs, given.retry) == ({}, False)


def test_profile_committed_after_newer_one_is_found(db: DbVerbs) -> None:
    """Commit ids out of order: a process that knows the newer profile reads the older one too."""
    runner = db.runner(tags=["slow", "quick"])
    with steppers(db.engine, 1) as (slow,):
        slow.do(submit_runs, [demanding(Demands(tags=("slow",)))])
        quick = db.accept(demanding(Demands(tags=("quick",))))[0].run_id
        assert taken(db, runner) == [quick]
        slow.commit()
    assert len(taken(db, runner)) == 1
    sets = match_sets_of(db)
    assert sets._skipped == {}


def test_unused_profile_ids_are_not_looked_for_forever(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a hole by a rolled back submission."""
    runner = db.runner(tags=["a", "b"])
    with steppers(db.engine, 1) as (failing,):
        failing.do(submit_runs, [demanding(Demands(tags=("a",)))])
        failing.rollback()
    db.accept(demanding(Demands(tags=("b",))))
    db.claim(runner)
    sets = match_sets_of(db)
    assert len(sets._skipped) == 1

    monkeypatch.setattr(sets, "SKIPPED_SECONDS", 0.0)
    db.accept(demanding(Demands(tags=("c",))))
    db.claim(runner)
    assert sets._skipped == {}


@pytest.mark.parametrize("age", ["2 hours", "3 days"])
def test_unused_profile_is_used_again(db: DbVerbs, age: str) -> None:
    """Refresh it, so that upkeep leaves it."""
    first = db.run(db.start().run_id).profile_id
    db.rows("UPDATE demand_profiles SET last_used_at = now() - CAST(:age AS interval)", age=age)

    assert db.run(db.start().run_id).profile_id == first
    assert db.count("demand_profiles", "last_used_at > now() - interval '1 minute'") == 1


def test_profile_removed_concurrently_by_upkeep_is_recreated(db: DbVerbs) -> None:
    """Create it anew, or no runner could satisfy the run."""
    first = db.run(db.start().run_id)
    db.rows("UPDATE runs SET status = 'completed', ready = false, completed_at = now()")
    db.rows("UPDATE demand_profiles SET last_used_at = now() - interval '2 days'")
    with steppers(db.engine, 2) as (keeper, client):
        keeper.do(upkeep)
        again = client.do(submit_runs, [start_submission()])
        assert client.waits
        keeper.commit()
        client.commit()
    run_id = accepted(again.result()[0]).run_id
    assert db.run(run_id).profile_id != first.profile_id
    assert taken(db, db.runner()) == [run_id]


def profiles_known(sets: MatchSets) -> set[int]:
    return {profile_id for profile_id, _ in sets._known}


def test_removed_profiles_are_forgotten_and_later_ones_matched(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove them from the list of profiles and from each match set, whatever their place."""
    runner = db.runner(tags=list("abcde"))
    runs = [db.accept(demanding(Demands(tags=(tag,))))[0].run_id for tag in "abcd"]
    assert taken(db, runner, wanted=9) == runs
    sets = match_sets_of(db)
    before = [db.run(run_id).profile_id for run_id in runs]
    db.rows(
        "UPDATE runs SET status = 'completed', ready = false, completed_at = now() WHERE run_id <> :kept", kept=runs[2]
    )
    db.rows("UPDATE demand_profiles SET last_used_at = now() - interval '2 days'")
    db.do(upkeep)
    monkeypatch.setattr(sets, "FORGET_SECONDS", 0.0)

    later = db.accept(demanding(Demands(tags=("e",))))[0].run_id
    again = db.accept(demanding(Demands(tags=("a",))))[0].run_id
    assert set(taken(db, runner, wanted=9)) == {later, again}
    assert profiles_known(sets) & set(before) == {before[2]}
    (matches,) = sets._matches.values()
    assert matches.profile_ids == profiles_known(sets)
    assert matches.upto == len(sets._known)


def test_equal_match_sets_are_kept_once_and_unused_registrations_go(
    db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hold one set for a fleet of equal runners, however many."""
    db.accept(*[demanding(Demands(tags=(tag,))) for tag in "abc"])
    fleet = [db.runner(tags=list("abc")) for _ in range(3)]
    for runner in fleet:
        db.claim(runner)
    sets = match_sets_of(db)
    assert len({id(matches.profile_ids) for matches in sets._matches.values()}) == 1

    monkeypatch.setattr(sets, "FORGET_SECONDS", 0.0)
    monkeypatch.setattr(sets, "UNUSED_SECONDS", 0.0)
    db.claim(fleet[0])
    assert len(sets._matches) == 1


def test_least_recently_used_registrations_go_first(db: DbVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove some of them at a time."""
    sets = match_sets_of(db)
    monkeypatch.setattr(sets, "MOST_REGISTRATIONS", 2)
    fleet = [db.runner() for _ in range(3)]
    for runner in (*fleet, fleet[1]):
        db.claim(runner)
    assert list(sets._matches) == [fleet[2].registration, fleet[1].registration]


ANN, BOB = Caller(Role.USER, "ann"), Caller(Role.USER, "bob")


def test_distinct_demands_of_owner_are_bounded_until_unused(db: DbVerbs) -> None:
    """Allow existing ones and those of others; keep nothing of a refused run."""

    def submitted(*names: str, caller: Caller = ANN) -> list[Any]:
        items = [start_submission(caller=caller, additional_demands=Demands(tags=(name,))) for name in names]
        return [type(result) for result in db.submit(*items, most_demands=2)]

    assert submitted("a", "b", "c", "a") == [Submitted, Submitted, TooManyDemands, Submitted]
    assert submitted("c", "b") == [TooManyDemands, Submitted]
    assert submitted("c", caller=BOB) == [Submitted]
    assert submitted("c") == [Submitted]
    assert submitted("d", "e", "f", caller=ADMIN) == [Submitted] * 3
    assert db.count("sessions") == db.count("runs") == 9

    db.rows("UPDATE runs SET status = 'completed', ready = false, completed_at = now()")
    db.rows("UPDATE demand_profiles SET last_used_at = now() - interval '2 days'")
    db.do(upkeep)
    assert submitted("x", "y", "z") == [Submitted, Submitted, TooManyDemands]
