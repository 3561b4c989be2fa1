"""Check how a registration relates to the existing row: same process, another process, or duplicate."""

from datetime import UTC, datetime
from typing import Any

import pytest

from models.core.limits import DEFAULT_LIMITS
from models.runners.heartbeat import lost_after, stale_after, told_interval
from models.runners.registration import Existing, Registration, Relation, identity, relation_to


def row(**values: Any) -> Existing:
    known = {
        "runner_id": "lnch_1",
        "registration": 7,
        "registration_uid": "uid-1",
        "instance_id": None,
        "owner": None,
        "executor_type": "autonomous",
        "tags": ["a", "b"],
        "require_matching_tags": False,
        "sends_tokens": True,
        "lost_at": None,
        "left_at": None,
        "leave_told_at": None,
        "is_stale": False,
    }
    return Existing(**{**known, **values})


def item(**values: Any) -> Registration:
    given: dict[str, Any] = {"tags": ("b", "a"), "executor_type": "autonomous"} | values
    return Registration("host", "/project", "profile", **given)


def decide(there: Existing, new: Registration) -> Relation:
    return relation_to(there, new)


def identified(new: Registration, there: Existing) -> str:
    """Return the runner that registers while this row has the plain id."""
    return identity(new, {new.runner_id: there})


def test_repeated_request_is_a_repeat() -> None:
    """Its answer was lost; later changes do not matter."""
    assert decide(row(left_at="then"), item(registration_uid="uid-1")) is Relation.REPEATED


@pytest.mark.parametrize(("ours", "theirs"), [(None, None), ("one", None), (None, "one"), ("one", "two")])
def test_another_process_of_online_identity_is_duplicate(ours: str | None, theirs: str | None) -> None:
    """Include requests without an instance: deployed runners register only at their start."""
    assert decide(row(instance_id=ours), item(instance_id=theirs)) is Relation.DUPLICATE


@pytest.mark.parametrize(
    "state",
    [{"is_stale": True}, {"lost_at": "then"}, {"left_at": "then"}, {"leave_told_at": "then"}],
    ids=["stale", "lost", "left", "told to leave"],
)
def test_another_process_replaces_a_stale_one(state: dict[str, Any]) -> None:
    """End the former registration."""
    assert decide(row(**state), item()) is Relation.ANOTHER_PROCESS
    assert decide(row(instance_id="one", **state), item(instance_id="two")) is Relation.ANOTHER_PROCESS


@pytest.mark.parametrize("is_stale", [False, True])
def test_same_process_reconnects_at_any_time(*, is_stale: bool) -> None:
    """Keep its number unless it offers something else now."""
    there = row(instance_id="one", is_stale=is_stale)
    assert decide(there, item(instance_id="one")) is Relation.SAME_PROCESS
    for other in ({"tags": ("a",)}, {"executor_type": "other"}, {"require_matching_tags": True}):
        assert decide(there, item(instance_id="one", **other)) is Relation.SAME_PROCESS_OTHER_OFFER


def test_process_that_had_left_gets_a_new_registration() -> None:
    """The runs it held were given away."""
    assert decide(row(instance_id="one", left_at="then"), item(instance_id="one")) is Relation.ANOTHER_PROCESS


def test_same_properties_always_give_same_id() -> None:
    """Treat an empty command as none."""
    assert item().runner_id == item(command="", tags=(), instance_id="x").runner_id
    assert item(command="agent").runner_id != item().runner_id
    assert item().runner_id.startswith("lnch_")
    assert len(item().runner_id) == len("lnch_") + 12


def test_stale_and_lost_windows_follow_the_told_interval() -> None:
    """Stale after twice and lost after three times the interval, but not before the settings allow."""
    assert (told_interval(None, DEFAULT_LIMITS), told_interval("one", DEFAULT_LIMITS)) == (60, 10)
    assert [stale_after(told, DEFAULT_LIMITS) for told in (10, 15, 60)] == [30, 30, 120]
    assert [lost_after(told, DEFAULT_LIMITS) for told in (10, 20, 60)] == [60, 60, 180]


@pytest.mark.parametrize("is_stale", [False, True])
def test_registration_of_another_owner_is_never_taken_over(*, is_stale: bool) -> None:
    """Register another runner, whatever the state of the other owner's. An admin may reconnect the same process."""
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


def test_registration_without_owner_is_taken_over_once_silent() -> None:
    """Let the same process take it over at any time, under another number, since a number has one owner."""
    mine = item(owner="bob", subject="bob", instance_id="one")
    assert decide(row(instance_id="one"), mine) is Relation.SAME_PROCESS_OTHER_OFFER
    assert identified(mine, row(instance_id="one")) == mine.runner_id
    assert identified(mine, row(instance_id="two")) == mine.own_id
    assert identified(mine, row(instance_id="two", is_stale=True)) == mine.runner_id


def test_runner_of_owner_keeps_its_id() -> None:
    """Keep it also when the plain id has become free."""
    mine = item(owner="bob", subject="bob")
    assert mine.own_id is not None
    assert identity(mine, {mine.own_id: row(owner="bob")}) == mine.own_id
    assert identity(mine, {}) == mine.runner_id
    assert len({item(owner=one).own_id for one in ("bob", "ann", "")}) == 3
    assert item().own_id is None
