"""What a registration is to the row that is there: the same process, another one, or one too many."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from models.core.limits import DEFAULT_LIMITS
from models.runners.heartbeat import lost_after, stale_after, told_interval
from models.runners.register import Registration, Relation, identity, relation_to


def row(**values: Any) -> Any:
    known = {
        "registration_uid": "uid-1",
        "instance_id": None,
        "owner": None,
        "executor_type": "autonomous",
        "tags": ["a", "b"],
        "require_matching_tags": False,
        "told_interval": 60,
        "lost_at": None,
        "left_at": None,
        "leave_told_at": None,
        "is_stale": False,
    }
    return SimpleNamespace(**{**known, **values})


def item(**values: Any) -> Registration:
    given: dict[str, Any] = {"tags": ("b", "a"), "executor_type": "autonomous"} | values
    return Registration("host", "/project", "profile", **given)


def decide(there: Any, new: Registration) -> Relation:
    return relation_to(there, new)


def identified(new: Registration, there: Any) -> str:
    """The runner that it is while this row has the plain id."""
    return identity(new, {new.runner_id: there})


def test_the_same_request_again_is_a_repeat() -> None:
    """Its answer was lost: whatever else has happened."""
    assert decide(row(left_at="then"), item(registration_uid="uid-1")) is Relation.REPEATED


@pytest.mark.parametrize(("ours", "theirs"), [(None, None), ("one", None), (None, "one"), ("one", "two")])
def test_another_process_of_an_online_identity_is_a_duplicate(ours: str | None, theirs: str | None) -> None:
    """Also without any instance: deployed runners register only at their start."""
    assert decide(row(instance_id=ours), item(instance_id=theirs)) is Relation.DUPLICATE


@pytest.mark.parametrize(
    "state",
    [{"is_stale": True}, {"lost_at": "then"}, {"left_at": "then"}, {"leave_told_at": "then"}],
    ids=["stale", "lost", "left", "told to leave"],
)
def test_another_process_takes_the_place_of_one_that_is_gone(state: dict[str, Any]) -> None:
    """Whose registration ends with it."""
    assert decide(row(**state), item()) is Relation.ANOTHER_PROCESS
    assert decide(row(instance_id="one", **state), item(instance_id="two")) is Relation.ANOTHER_PROCESS


@pytest.mark.parametrize("is_stale", [False, True])
def test_the_same_process_reconnects_at_any_time(*, is_stale: bool) -> None:
    """It keeps its number, unless it offers something else now."""
    there = row(instance_id="one", is_stale=is_stale)
    assert decide(there, item(instance_id="one")) is Relation.SAME_PROCESS
    for other in ({"tags": ("a",)}, {"executor_type": "other"}, {"require_matching_tags": True}):
        assert decide(there, item(instance_id="one", **other)) is Relation.SAME_PROCESS_OTHER_OFFER


def test_a_process_that_had_left_begins_anew() -> None:
    """What it held was given away."""
    assert decide(row(instance_id="one", left_at="then"), item(instance_id="one")) is Relation.ANOTHER_PROCESS


def test_the_same_properties_always_give_the_same_id() -> None:
    """An empty command is none."""
    assert item().runner_id == item(command="", tags=(), instance_id="x").runner_id
    assert item(command="agent").runner_id != item().runner_id
    assert item().runner_id.startswith("lnch_")
    assert len(item().runner_id) == len("lnch_") + 12


def test_windows_follow_the_told_interval() -> None:
    """Stale after twice, lost after three times, but not before the settings say."""
    assert (told_interval(None, DEFAULT_LIMITS), told_interval("one", DEFAULT_LIMITS)) == (60, 10)
    assert [stale_after(told, DEFAULT_LIMITS) for told in (10, 15, 60)] == [30, 30, 120]
    assert [lost_after(told, DEFAULT_LIMITS) for told in (10, 20, 60)] == [60, 60, 180]


@pytest.mark.parametrize("is_stale", [False, True])
def test_registration_of_another_owner_is_never_taken_over(*, is_stale: bool) -> None:
    """Online, silent or left: the other owner's is a runner of its own. An admin may reconnect the same process."""
    theirs = row(owner="ann", is_stale=is_stale, instance_id="one")
    foreign = item(owner="bob", subject="bob", instance_id="one")
    left = row(owner="ann", left_at=datetime.now(UTC))
    for there in (theirs, left):
        assert decide(there, foreign) is Relation.DUPLICATE
        assert identified(foreign, there) == foreign.own_id
        assert identified(item(owner="ann", subject="ann"), there) == foreign.runner_id
    assert decide(theirs, item(owner="", instance_id="one")) is Relation.SAME_PROCESS
    assert identified(item(owner="", instance_id="one"), theirs) == foreign.runner_id
    assert identified(item(owner="", instance_id="other"), theirs) != foreign.runner_id
    assert identified(item(), theirs) == foreign.runner_id


def test_registration_of_nobody_is_taken_over_once_it_is_silent() -> None:
    """By the same process at any time, under another number, since a number has one owner."""
    mine = item(owner="bob", subject="bob", instance_id="one")
    assert decide(row(instance_id="one"), mine) is Relation.SAME_PROCESS_OTHER_OFFER
    assert identified(mine, row(instance_id="one")) == mine.runner_id
    assert identified(mine, row(instance_id="two")) == mine.own_id
    assert identified(mine, row(instance_id="two", is_stale=True)) == mine.runner_id


def test_runner_of_an_owner_keeps_its_id() -> None:
    """Also when the plain one has become free."""
    mine = item(owner="bob", subject="bob")
    assert mine.own_id is not None
    assert identity(mine, {mine.own_id: row(owner="bob")}) == mine.own_id
    assert identity(mine, {}) == mine.runner_id
    assert len({item(owner=one).own_id for one in ("bob", "ann", "")}) == 3
    assert item().own_id is None
