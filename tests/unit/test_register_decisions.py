"""What a registration is to the row that is there: the same process, another one, or one too many."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from models.base import DEFAULT_LIMITS
from models.register import Registration, Verdict, verdict
from models.runners import lost_after, stale_after, told_interval


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


def decide(there: Any, new: Registration) -> Verdict:
    return verdict(there, new)


def test_the_same_request_again_is_a_repeat() -> None:
    """Its answer was lost: whatever else has happened."""
    assert decide(row(left_at="then"), item(registration_uid="uid-1")) is Verdict.REPEATED


@pytest.mark.parametrize(("ours", "theirs"), [(None, None), ("one", None), (None, "one"), ("one", "two")])
def test_another_process_of_an_online_identity_is_a_duplicate(ours: str | None, theirs: str | None) -> None:
    """Also without any instance: deployed runners register only at their start."""
    assert decide(row(instance_id=ours), item(instance_id=theirs)) is Verdict.DUPLICATE


@pytest.mark.parametrize(
    "state",
    [{"is_stale": True}, {"lost_at": "then"}, {"left_at": "then"}, {"leave_told_at": "then"}],
    ids=["stale", "lost", "left", "told to leave"],
)
def test_another_process_takes_the_place_of_one_that_is_gone(state: dict[str, Any]) -> None:
    """Whose registration ends with it."""
    assert decide(row(**state), item()) is Verdict.ANOTHER_PROCESS
    assert decide(row(instance_id="one", **state), item(instance_id="two")) is Verdict.ANOTHER_PROCESS


@pytest.mark.parametrize("is_stale", [False, True])
def test_the_same_process_reconnects_at_any_time(*, is_stale: bool) -> None:
    """It keeps its number, unless it offers something else now."""
    there = row(instance_id="one", is_stale=is_stale)
    assert decide(there, item(instance_id="one")) is Verdict.SAME_PROCESS
    for other in ({"tags": ("a",)}, {"executor_type": "other"}, {"require_matching_tags": True}):
        assert decide(there, item(instance_id="one", **other)) is Verdict.SAME_PROCESS_OTHER_OFFER


def test_a_process_that_had_left_begins_anew() -> None:
    """What it held was given away."""
    assert decide(row(instance_id="one", left_at="then"), item(instance_id="one")) is Verdict.ANOTHER_PROCESS


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
def test_an_identity_that_somebody_else_registered_is_taken_until_it_is_left(*, is_stale: bool) -> None:
    """Whatever its process does: whoever could take it over could end its runs. An admin may."""
    theirs = row(owner="ann", is_stale=is_stale, instance_id="one")
    foreign = item(owner="bob", subject="bob", instance_id="one")
    assert decide(theirs, foreign) is Verdict.DUPLICATE
    assert decide(row(owner="ann", left_at=datetime.now(UTC)), foreign) is Verdict.ANOTHER_PROCESS
    assert decide(theirs, item(owner="", instance_id="one")) is Verdict.SAME_PROCESS
    assert decide(row(owner=None, instance_id="one"), foreign) is Verdict.SAME_PROCESS
