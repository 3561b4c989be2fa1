"""Registration on a real database: who is let in, and what becomes of the process that was there before."""

from dataclasses import replace
from typing import Any

import pytest

from models.core.errors import BadCursor, DuplicateRunner, RunnerNotRegistered
from models.runners.heartbeat import Heard, Touch, touch_runners
from models.runners.leave import LeaveRunner, deregister_runners
from models.runners.listing import RunnerPage, list_runners, page_runners
from models.runners.register import Registered, RegisterResult, Registration, register_runners
from tests.support.clocks import counts, fall_silent, pass_time
from tests.support.contenders import crowd
from tests.support.reports import accepted, claimed, idle, report, running, say, stop
from tests.support.truth import Runner, Truth, asking


def offer(name: str = "host", **values: Any) -> Registration:
    given: dict[str, Any] = {"executor_type": "autonomous"} | values
    return Registration(name, "/project", "profile", **given)


def register(truth: Truth, *items: Registration) -> list[RegisterResult]:
    return truth.do(register_runners, items)


def enter(truth: Truth, item: Registration) -> Runner:
    """Register what nobody can object to."""
    (result,) = register(truth, item)
    assert isinstance(result, Registered), result
    return there(truth, result.runner_id)


def there(truth: Truth, runner_id: str) -> Runner:
    return Runner(runner_id, truth.one("SELECT registration FROM runners WHERE runner_id = :r", r=runner_id))


def test_a_new_runner_is_told_its_id_and_interval(truth: Truth) -> None:
    """60 s, or 10 s to one that names its instance."""
    item, other = offer(), offer("other", instance_id="one")
    assert register(truth, item, other) == [Registered(item.runner_id, 60), Registered(other.runner_id, 10)]
    infos = {info.runner_id: info for info in truth.do(list_runners)}
    assert infos.keys() == {item.runner_id, other.runner_id}
    assert infos[item.runner_id].status == "online"


def test_a_runner_is_listed_with_all_it_said(truth: Truth) -> None:
    """PROTOCOL, GET /runners."""
    executor = '{"type": "autonomous", "command": "agent", "more": [1, "\\u0000"]}'
    item = offer(executor=executor, command="agent", tags=("b", "a"), require_matching_tags=True, capacity=3)
    runner = enter(truth, item)
    (info,) = truth.do(list_runners)
    assert (info.hostname, info.project_dir, info.executor_profile) == ("host", "/project", "profile")
    assert (info.executor, info.tags, info.require_matching_tags) == (executor, ["a", "b"], True)
    assert (info.capacity, info.runs_in_hand, info.lost) == (3, 0, False)
    assert 0 <= info.seconds_since_heartbeat < 60
    fall_silent(truth, runner, 121)
    (info,) = truth.do(list_runners)
    assert (info.status, info.lost) == ("stale", False)
    assert 121 <= info.seconds_since_heartbeat < 180


def test_runs_in_hand_are_counted(truth: Truth) -> None:
    """Claimed, running and stopping ones."""
    runner = enter(truth, offer())
    accepted(truth, running(truth, runner), "completed")
    claimed(truth, runner)
    stop(truth, running(truth, runner).session_id)
    assert truth.do(list_runners)[0].runs_in_hand == 2


def test_a_second_process_of_an_online_runner_is_refused(truth: Truth) -> None:
    """And changes nothing."""
    runner = enter(truth, offer())
    (result,) = register(truth, offer(tags=("other",)))
    assert result == DuplicateRunner(runner.runner_id, "host", "/project", "profile")
    assert there(truth, runner.runner_id) == runner
    assert truth.do(list_runners)[0].tags == []


def test_a_registration_whose_answer_was_lost_is_repeated_harmlessly(truth: Truth) -> None:
    """Executing a batch twice is executing it once."""
    item = offer()
    first = register(truth, item)
    registration = there(truth, item.runner_id)
    assert register(truth, item) == first
    assert there(truth, item.runner_id) == registration


def test_the_same_identity_twice_in_one_batch_is_one_runner(truth: Truth) -> None:
    """In item order: the second is one too many, unless it is the same process."""
    results = register(truth, offer(), offer(), offer("other", instance_id="one"), offer("other", instance_id="one"))
    assert [type(result) for result in results] == [Registered, DuplicateRunner, Registered, Registered]
    assert truth.count("runners") == 2


def test_of_many_processes_of_one_identity_one_is_let_in(truth: Truth) -> None:
    """All at once, on any number of web processes."""
    results = crowd(8, lambda _: register(truth, offer())[0])
    assert sum(isinstance(result, Registered) for result in results) == 1


def test_the_same_process_reconnects_and_keeps_number_and_runs(truth: Truth) -> None:
    """Also while it is online, stale or lost."""
    item = offer(instance_id="one", capacity=1)
    runner = enter(truth, item)
    run = running(truth, runner)
    for silence in (0, 45, 70):
        fall_silent(truth, runner, silence)
        again = replace(item, capacity=5, registration_uid=f"uid-{silence}")
        assert enter(truth, again) == runner
        assert counts(truth) == {}
    assert truth.run(run.run_id).status == "running"
    (info,) = truth.do(list_runners)
    assert (info.capacity, info.runs_in_hand, info.status) == (5, 1, "online")
    accepted(truth, run, "completed")


def test_the_same_process_with_another_offer_gets_another_number_and_keeps_its_runs(truth: Truth) -> None:
    """What a number satisfies is remembered by every process that claims."""
    runner = enter(truth, offer(instance_id="one"))
    run, calm, stopping = running(truth, runner), idle(truth, runner), running(truth, runner)
    stop(truth, stopping.session_id)
    renewed = enter(truth, offer(instance_id="one", tags=("new",)))
    assert renewed.registration > runner.registration
    assert counts(truth) == {}
    assert truth.run(run.run_id).registration == renewed.registration
    assert truth.session(calm.session_id).registration == renewed.registration
    assert truth.answer(asking(renewed))[0].stop_sessions == [stopping.session_id]
    accepted(truth, run, "completed")
    accepted(truth, stopping, "stopped")


def test_a_token_less_process_is_barred_under_its_new_number_from_what_its_old_one_was(truth: Truth) -> None:
    """Its late report must not end a new claim."""
    runner = enter(truth, offer(instance_id="one"))
    run = claimed(truth, runner)
    pass_time(truth, "runs", "claim_deadline_at", 1000)
    assert counts(truth) == {"claims released": 1}
    renewed = enter(truth, offer(instance_id="one", tags=("new",)))
    assert truth.run(run.run_id).not_for == [runner.registration, renewed.registration]
    assert truth.claim(renewed) == []


@pytest.mark.parametrize("silence", [121, 200])
@pytest.mark.parametrize(("former", "new"), [(None, None), ("one", "two"), ("one", None)])
def test_a_restarted_runner_ends_its_former_registration_at_once(
    truth: Truth, silence: float, former: str | None, new: str | None
) -> None:
    """Else it would keep its dead runs alive for ever: all in the same transaction."""
    runner = enter(truth, offer(instance_id=former))
    waiting, active = claimed(truth, runner), running(truth, runner)
    again, stopping, calm = running(truth, runner, max_attempts=2), running(truth, runner), idle(truth, runner)
    stop(truth, stopping.session_id)
    poll = asking(runner)
    truth.answer(poll)
    fall_silent(truth, runner, silence)
    renewed = enter(truth, offer(instance_id=new))
    assert renewed.registration > runner.registration
    statuses = [truth.run(run.run_id).status for run in (waiting, active, again, stopping)]
    assert statuses == ["pending", "failed", "pending", "stopped"]
    assert truth.run(active.run_id).error == "Runner lost: another process took its place"
    assert truth.session(calm.session_id).status == "finished"
    assert truth.count("stop_commands") == 0
    assert truth.waiting() == set()
    assert counts(truth) == {}
    (late,) = say(truth, report(active, "completed"))
    assert not getattr(late, "changed", False)


def test_a_new_process_is_not_taken_for_the_old_one(truth: Truth) -> None:
    """Whether it sends tokens or says what it holds is learnt anew."""
    runner = enter(truth, offer())
    truth.do(touch_runners, [Touch(runner.runner_id, ())])
    truth.rows("UPDATE runners SET sends_tokens = true")
    fall_silent(truth, runner, 121)
    enter(truth, offer())
    row = truth.rows("SELECT sends_tokens, sends_holding, counted_beat_at FROM runners")[0]
    assert tuple(row) == (False, False, None)


def test_a_runner_that_left_may_come_back(truth: Truth) -> None:
    """Under a new number, also as the same instance."""
    item = offer(instance_id="one")
    runner = enter(truth, item)
    truth.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=True)])
    renewed = enter(truth, replace(item, registration_uid="uid-2"))
    assert renewed.registration > runner.registration
    assert truth.do(touch_runners, [Touch(runner.runner_id)]) == [Heard()]


def test_reconnecting_does_not_undo_being_sent_away(truth: Truth) -> None:
    """Until it has heard of it; a process that registers after that has decided to come back."""
    item = offer(instance_id="one")
    runner = enter(truth, item)
    truth.do(deregister_runners, [LeaveRunner(runner.runner_id, self_initiated=False)])
    enter(truth, replace(item, registration_uid="uid-2"))
    assert truth.answer(asking(runner))[0].deregistered
    enter(truth, replace(item, registration_uid="uid-3"))
    assert truth.answer(asking(runner))[0].parked


def test_unknown_runners_are_not_known(truth: Truth) -> None:
    """401 for a beat, 404 for a leave."""
    beats = truth.do(touch_runners, [Touch("lnch_unknown"), Touch("lnch_unknown", ("run_1",))])
    assert beats == [RunnerNotRegistered("lnch_unknown")] * 2
    results = truth.do(deregister_runners, [LeaveRunner("lnch_unknown", one) for one in (True, False)])
    assert [type(result).__name__ for result in results] == ["NotFound", "NotFound"]


def test_a_silent_runner_is_forgotten_after_a_day(truth: Truth) -> None:
    """It has to register again."""
    runner = enter(truth, offer())
    fall_silent(truth, runner, 86_500)
    assert truth.do(touch_runners, [Touch(runner.runner_id)]) == [RunnerNotRegistered(runner.runner_id)]
    assert truth.do(list_runners) == []
    assert enter(truth, offer()).registration > runner.registration


def test_walk_through_pages_of_runners_sees_each_once(truth: Truth) -> None:
    """In the order of registration; a cursor that is none is refused."""
    made = [truth.runner().runner_id for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page = truth.do(page_runners, None, limit=2, after=cursor)
        assert isinstance(page, RunnerPage)
        seen += [info.runner_id for info in page.runners]
        cursor = page.next_cursor
    assert (seen, cursor) == (made, None)
    assert truth.do(page_runners, None, limit=2, after="none") == BadCursor("none")
