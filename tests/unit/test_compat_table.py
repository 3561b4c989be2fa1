"""Compare outcomes of two coordinators, and hold docs/moving-in.md to the known differences; no client is started."""

from pathlib import Path

import pytest

from compat.registries import PREFIX
from compat.shapes import Shapes
from compat.table import NOT_REACHED, Difference, Same, compare, known_differences, unexpected, unseen, written

PAGE = Path(__file__).parents[2] / "docs" / "moving-in.md"

OUTCOMES: list[tuple[object, object, Same]] = [
    ({"status": 200, "body": {"sessions": []}}, {"status": 200, "body": {"sessions": []}}, Same.YES),
    ({"status": 200, "body": {"a": 1}}, {"status": 200, "body": {"a": 1, "b": 2}}, Same.MORE),
    ([{"a": 1}, {"a": 2}], [{"a": 1, "b": 1}, {"a": 2}], Same.MORE),
    ({"a": 1, "b": 2}, {"a": 1}, Same.NO),
    ({"a": None}, {}, Same.NO),
    ([1], [1, 2], Same.NO),
    ({"status": 200}, {"status": 201}, Same.NO),
    ("text", {"text": 1}, Same.NO),
]


@pytest.mark.parametrize(("theirs", "ours", "same"), OUTCOMES)
def test_outcome_is_the_same_if_it_has_all_of_theirs(theirs: object, ours: object, same: Same) -> None:
    (row,) = compare({"call": theirs}, {"call": ours}, [])
    assert row.same is same


def test_known_differences_excuse_the_calls_that_they_name_alone() -> None:
    """A call that only one of them answered differs, too."""
    known = [Difference("GET /a*", "because"), Difference("GET /same", "not any more"), Difference("GET /never", "-")]
    theirs = {"GET /a": 1, "GET /a/b": 1, "GET /b": 1, "GET /same": 1, "GET /lost": 1}
    ours = {"GET /a": 2, "GET /a/b": 2, "GET /b": 2, "GET /same": 1, "GET /new": 1}
    rows = compare(theirs, ours, known)
    assert [(row.call, row.same.value) for row in rows] == [
        ("GET /a", "known"),
        ("GET /a/b", "known"),
        ("GET /b", "NO"),
        ("GET /same", "yes"),
        ("GET /lost", "NO"),
        ("GET /new", "NO"),
    ]
    assert [(row.theirs, row.ours) for row in unexpected(rows)] == [(1, 2), (1, NOT_REACHED), (NOT_REACHED, 1)]
    assert [each.call for each in unseen(rows, known)] == ["GET /same"]
    table = written(rows)
    assert "1 yes, 0 more, 2 known, 3 NO" in table
    assert "because because" in table


def test_known_difference_of_fields_excuses_no_other_field() -> None:
    known = [Difference("GET /a", "because", ("b",))]
    theirs = {"status": 200, "body": [{"a": 1, "b": 1}]}
    for ours, same in (({"a": 1, "b": 2}, Same.KNOWN), ({"a": 1, "c": 2}, Same.KNOWN), ({"a": 2, "b": 2}, Same.NO)):
        (row,) = compare({"GET /a": theirs}, {"GET /a": {"status": 200, "body": [ours]}}, known)
        assert row.same is same
    assert known[0].title == "`GET /a`: `b`"


def test_ids_times_and_addresses_do_not_differ_but_their_identity_does() -> None:
    one, other = Shapes(), Shapes()
    first = {
        "run_id": "run_" + 12 * "a",
        "at": "2026-01-01T10:00:00.5+00:00",
        "url": "http://127.0.0.1:1234/x",
        "id": 7,
    }
    second = {"run_id": "run_" + 32 * "b", "at": "2026-02-01T10:00:00Z", "url": "http://127.0.0.1:99/x", "id": 8}
    assert one.of(first) == other.of(second)
    assert one.of(first["run_id"]) == "run#1"
    assert one.of("run_" + 12 * "c") == "run#2"
    faults = {"detail": [{"loc": ["body", "a"], "msg": "x", "input": 1}]}
    assert one.answer(422, faults) == {"status": 422, "body": {"detail": [{"loc": ["body", "a"]}]}}
    assert one.answer(400, {"detail": "no"}) == {"status": 400, "body": {"detail": "no"}}


def test_moving_in_names_every_known_difference() -> None:
    """Each with its calls and its reason, as compat/known_differences.toml has them."""
    page = " ".join(PAGE.read_text().split())
    missing = [each.call for each in known_differences() if f"| {each.title} | {each.reason} |" not in page]
    assert missing == []
    assert not any(each.call == "*" for each in known_differences())
    assert PREFIX.strip()
