"""Registration on a real database: which processes are accepted, and what becomes of the former one."""

from dataclasses import replace
from typing import Any

import pytest

from models.core.errors import BadCursor, DuplicateRunner, RunnerNotRegistered
from models.runners.heartbeat import Touch, Touched, touch_runners
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.listing import RunnerPage, list_runners, page_runners
from models.runners.register import Registered, RegisterResult, register_runners
from models.runners.registration import Registration
from tests.support.clocks import counts, fall_silent, pass_time
from tests.support.contenders import run_in_threads
from tests.support.db_verbs import DbVerbs, Runner, poll_request
from tests.support.reports import accepted, claimed, idle, report, running, say, stop


def offer(name: str = "host", **values: Any) -> Registration:
    given: dict[str, Any] = {"executor_type": "autonomous"} | values
    return Registration(name, "/project", "profile", **given)


def register(db: DbVerbs, *items: Registration) -> list[RegisterResult]:
    return db.do(register_runners, items)


def enter(db: DbVerbs, item: Registration) -> Runner:
    """Register an acceptable runner."""
    (result,) = register(db, item)
    assert isinstance(result, Registered), result
    return there(db, result.runner_id)


def there(db: DbVerbs, runner_id: str) -> Runner:
    return Runner(runner_id, db.one("SELECT registration FROM runners WHERE runner_id = :r", r=runner_id))


def test_new_runner_is_told_its_id_and_interval(db: DbVerbs) -> None:
    """Tell 60 s, or 10 s to one with an instance id."""
    item, other = offer(), offer("other", instance_id="one")
    assert register(db, item, other) == [Registered(item.runner_id, 60), Registered(other.runner_id, 10)]
    infos = {info.runner_id: info for info in db.do(list_runners)}
    assert infos.keys() == {item.runner_id, other.runner_id}
    assert infos[item.runner_id].status == "online"


def test_runner_is_listed_with_its_whole_offer(db: DbVerbs) -> None:
    executor = '{"type": "autonomous", "command": "agent", "more": [1, "\\u0000"]}'
    item = offer(executor=executor, command="agent", tags=("b", "a"), require_matching_tags=True, capacity=3)
    runner = enter(db, item)
    (info,) = db.do(list_runners)
    assert (info.hostname, info.project_dir, info.executor_profile) == ("host", "/project", "profile")
    assert (info.executor, info.tags, info.require_matching_tags) == (executor, ["a", "b"], True)
    assert (info.capacity, info.runs_in_hand, info.lost) == (3, 0, False)
    assert 0 <= info.seconds_since_heartbeat < 60
    fall_silent(db, runner, 121)
    (info,) = db.do(list_runners)
    assert (info.status, info.lost) == ("stale", False)
    assert 121 <= info.seconds_since_heartbeat < 180


def test_runs_in_hand_are_counted_in_list(db: DbVerbs) -> None:
    """Count claimed, running and stopping ones."""
    runner = enter(db, offer())
    accepted(db, running(db, runner), "completed")
    claimed(db, runner)
    stop(db, running(db, runner).session_id)
    assert db.do(list_runners)[0].runs_in_hand == 2


def test_second_process_of_online_runner_is_refused(db: DbVerbs) -> None:
    runner = enter(db, offer())
    (result,) = register(db, offer(tags=("other",)))
    assert result == DuplicateRunner(runner.runner_id, "host", "/project", "profile")
    assert there(db, runner.runner_id) == runner
    assert db.do(list_runners)[0].tags == []


def test_registration_with_lost_answer_is_repeated_harmlessly(db: DbVerbs) -> None:
    """Execute the batch twice: the effect is the same."""
    item = offer()
    first = register(db, item)
    registration = there(db, item.runner_id)
    assert register(db, item) == first
    assert there(db, item.runner_id) == registration


def test_same_identity_twice_in_one_batch_is_one_runner(db: DbVerbs) -> None:
    """Refuse the second in item order, unless it is the same process."""
    results = register(db, offer(), offer(), offer("other", instance_id="one"), offer("other", instance_id="one"))
    assert [type(result) for result in results] == [Registered, DuplicateRunner, Registered, Registered]
    assert db.count("runners") == 2


def test_one_of_many_processes_of_identity_is_accepted(db: DbVerbs) -> None:
    """Register all at once, on any number of web processes."""
    results = run_in_threads(8, lambda _: register(db, offer())[0])
    assert sum(isinstance(result, Registered) for result in results) == 1


def test_same_process_reconnects_and_keeps_number_and_runs(db: DbVerbs) -> None:
    item = offer(instance_id="one", capacity=1)
    runner = enter(db, item)
    run = running(db, runner)
    for silence in (0, 45, 70):
        fall_silent(db, runner, silence)
        again = replace(item, capacity=5, registration_uid=f"uid-{silence}")
        assert enter(db, again) == runner
        assert counts(db) == {}
    assert db.run(run.run_id).status == "running"
    (info,) = db.do(list_runners)
    assert (info.capacity, info.runs_in_hand, info.status) == (5, 1, "online")
    accepted(db, run, "completed")


def test_same_process_with_another_offer_gets_new_number_and_keeps_runs(db: DbVerbs) -> None:
    """Change the number, since every claiming process caches what a number satisfies."""
    runner = enter(db, offer(instance_id="one"))
    run, calm, stopping = running(db, runner), idle(db, runner), running(db, runner)
    stop(db, stopping.session_id)
    renewed = enter(db, offer(instance_id="one", tags=("new",)))
    assert renewed.registration > runner.registration
    assert counts(db) == {}
    assert db.run(run.run_id).registration == renewed.registration
    assert db.session(calm.session_id).registration == renewed.registration
    assert db.answer(poll_request(renewed))[0].stop_sessions == [stopping.session_id]
    accepted(db, run, "completed")
    accepted(db, stopping, "stopped")


def test_process_without_tokens_keeps_exclusions_under_new_number(db: DbVerbs) -> None:
    """Copy the exclusions: its late report must not end a new claim."""
    runner = enter(db, offer(instance_id="one"))
    run = claimed(db, runner)
    pass_time(db, "runs", "claim_deadline_at", 1000)
    assert counts(db) == {"claims released": 1}
    renewed = enter(db, offer(instance_id="one", tags=("new",)))
    assert db.run(run.run_id).not_for == [runner.registration, renewed.registration]
    assert db.claim(renewed) == []


@pytest.mark.parametrize("silence", [121, 200])
@pytest.mark.parametrize(("former", "new"), [(None, None), ("one", "two"), ("one", None)])
def test_restarted_runner_ends_its_former_registration_at_once(
    db: DbVerbs, silence: float, former: str | None, new: str | None
) -> None:
    """End it in the same transaction, or its dead runs would stay alive forever."""
    runner = enter(db, offer(instance_id=former))
    waiting, active = claimed(db, runner), running(db, runner)
    again, stopping, calm = running(db, runner, max_attempts=2), running(db, runner), idle(db, runner)
    stop(db, stopping.session_id)
    poll = poll_request(runner)
    db.answer(poll)
    fall_silent(db, runner, silence)
    renewed = enter(db, offer(instance_id=new))
    assert renewed.registration > runner.registration
    statuses = [db.run(run.run_id).status for run in (waiting, active, again, stopping)]
    assert statuses == ["pending", "failed", "pending", "stopped"]
    assert db.run(active.run_id).error == "Runner lost: another process took its place"
    assert db.session(calm.session_id).status == "finished"
    assert db.count("stop_commands") == 0
    assert db.waiting() == set()
    assert counts(db) == {}
    (late,) = say(db, report(active, "completed"))
    assert not getattr(late, "changed", False)


def test_new_process_inherits_no_learned_properties(db: DbVerbs) -> None:
    """Learn again whether it sends tokens or `holding`."""
    runner = enter(db, offer())
    db.do(touch_runners, [Touch(runner.runner_id, ())])
    db.rows("UPDATE runners SET sends_tokens = true")
    fall_silent(db, runner, 121)
    enter(db, offer())
    row = db.rows("SELECT sends_tokens, sends_holding, counted_beat_at FROM runners")[0]
    assert tuple(row) == (False, False, None)


def test_runner_that_left_may_return(db: DbVerbs) -> None:
    """Give it a new number, also as the same instance."""
    item = offer(instance_id="one")
    runner = enter(db, item)
    db.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=True)])
    renewed = enter(db, replace(item, registration_uid="uid-2"))
    assert renewed.registration > runner.registration
    assert db.do(touch_runners, [Touch(runner.runner_id)]) == [Touched()]


def test_reconnecting_does_not_cancel_deregistration(db: DbVerbs) -> None:
    """Keep the order until it is told; a process that registers after that is accepted."""
    item = offer(instance_id="one")
    runner = enter(db, item)
    db.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=False)])
    enter(db, replace(item, registration_uid="uid-2"))
    assert db.answer(poll_request(runner))[0].deregistered
    enter(db, replace(item, registration_uid="uid-3"))
    assert db.answer(poll_request(runner))[0].parked


def test_unknown_runners_are_refused(db: DbVerbs) -> None:
    """Answer 401 to a heartbeat and 404 to a leave."""
    beats = db.do(touch_runners, [Touch("lnch_unknown"), Touch("lnch_unknown", ("run_1",))])
    assert beats == [RunnerNotRegistered("lnch_unknown")] * 2
    results = db.do(deregister_runners, [LeaveRunner("lnch_unknown", itself) for itself in (True, False)])
    assert [type(result).__name__ for result in results] == ["NotFound", "NotFound"]


def test_silent_runner_is_forgotten_after_a_day(db: DbVerbs) -> None:
    """Require a new registration."""
    runner = enter(db, offer())
    fall_silent(db, runner, 86_500)
    assert db.do(touch_runners, [Touch(runner.runner_id)]) == [RunnerNotRegistered(runner.runner_id)]
    assert db.do(list_runners) == []
    assert enter(db, offer()).registration > runner.registration


def test_walk_through_pages_of_runners_sees_each_once(db: DbVerbs) -> None:
    """Follow the order of registration; an invalid cursor is refused."""
    made = [db.runner().runner_id for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page = db.do(page_runners, None, limit=2, after=cursor)
        assert isinstance(page, RunnerPage)
        seen += [info.runner_id for info in page.runners]
        cursor = page.next_cursor
    assert (seen, cursor) == (made, None)
    assert db.do(page_runners, None, limit=2, after="none") == BadCursor("none")
