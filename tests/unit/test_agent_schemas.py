"""Check which JSON Schemas of agents are accepted, what violations look like, and that checks have bounds."""

import json
from typing import Any

import pytest

from app.inputs import agent_schemas
from app.inputs.agent_schemas import LONGEST_SCHEMA, MOST_DEPTH, MOST_PATTERNS, AgentSchema, BadSchema

REPORT: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "$id": "https://example.com/report.json",
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1},
        "days": {"$ref": "#/definitions/days"},
        "odd name": {"type": "boolean"},
    },
    "required": ["city"],
    "additionalProperties": False,
    "definitions": {"days": {"type": "array", "items": {"enum": ["mon", "tue"]}}},
}


def violations(schema: Any, parameters: Any) -> list[dict[str, str]]:
    return AgentSchema(json.dumps(schema)).violations(json.dumps(parameters).encode())


def test_parameters_that_satisfy_the_schema_have_no_violations() -> None:
    assert violations(REPORT, {"city": "Bonn", "days": ["mon"]}) == []
    assert violations({}, {"anything": [1, None]}) == []


@pytest.mark.parametrize(
    ("parameters", "path", "schema_path"),
    [
        ({}, "$", "required"),
        ({"city": ""}, "$.city", "properties/city/minLength"),
        ({"city": "x", "days": ["mon", "sun"]}, "$.days[1]", "definitions/days/items/enum"),
        ({"city": "x", "odd name": 1}, "$['odd name']", "properties/odd name/type"),
        ({"city": "x", "more": 1}, "$", "additionalProperties"),
    ],
)
def test_violation_names_its_places(parameters: Any, path: str, schema_path: str) -> None:
    (found,) = violations(REPORT, parameters)
    assert set(found) == {"path", "message", "schema_path"}
    assert found["path"] == path
    assert found["schema_path"].endswith(schema_path.rpartition("/")[2])


def chain(length: int) -> dict[str, Any]:
    """Return a schema whose definitions refer to each other in a row."""
    names = {f"d{place}": {"$ref": f"#/definitions/d{place + 1}"} for place in range(length)}
    return {"$ref": "#/definitions/d0", "definitions": names | {f"d{length}": {"type": "string"}}}


def doubling(levels: int) -> dict[str, Any]:
    """Return a small schema that a check would look at 2 to the power of ``levels`` times."""
    names = {f"d{place}": {"allOf": [{"$ref": f"#/definitions/d{place + 1}"}] * 2} for place in range(levels)}
    return {"$ref": "#/definitions/d0", "definitions": names | {f"d{levels}": {"type": "string"}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


REFUSED: dict[str, tuple[Any, str]] = {
    "no schema": ({"type": "objekt"}, "Draft 7"),
    "value out of place": ({"required": "city"}, "Draft 7"),
    "no object": ([1], "Should be an object"),
    "remote reference": ({"$ref": "https://example.com/other.json"}, "of its own alone"),
    "reference to a file": ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "of its own alone"),
    "reference to the whole": ({"properties": {"a": {"$ref": "#"}}}, "of its own alone"),
    "encoded reference": ({"$ref": "#/definitions/a%20b", "definitions": {"a%20b": {}}}, "of its own alone"),
    "reference to nothing": ({"$ref": "#/definitions/none"}, "to which it refers"),
    "recursion": (
        {"$ref": "#/definitions/node", "definitions": {"node": {"items": {"$ref": "#/definitions/node"}}}},
        "that holds it",
    ),
    "another base": ({"properties": {"a": {"$id": "other", "$ref": "#/definitions/b"}}}, "at its top only"),
    "doubling references": (doubling(20), "values"),
    "deep references": (chain(MOST_DEPTH), "nested deeper"),
    "deep nesting": (nested(MOST_DEPTH), "nested deeper"),
    "look-ahead": ({"pattern": "(?=a)b"}, "Draft 7"),
    "backreference": ({"pattern": r"(a)\1"}, "Draft 7"),
    "large pattern": ({"pattern": "(x{1,100}){1,100}"}, "Draft 7"),
    "slow pattern": ({"pattern": "[ab]*a[ab]{3000}c"}, "Draft 7"),
    "many patterns": ({"patternProperties": {f"p{place}": {} for place in range(MOST_PATTERNS + 1)}}, "patterns"),
    "long": ({"description": "x" * LONGEST_SCHEMA}, "bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_schema_out_of_bounds_is_refused_with_its_reason(case: str) -> None:
    schema, reason = REFUSED[case]
    with pytest.raises(BadSchema, match=reason):
        AgentSchema(json.dumps(schema))


def test_property_with_the_name_of_a_keyword_is_no_keyword() -> None:
    schema = {"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}, "pattern": {"type": "string"}}}
    assert violations(schema, {"$ref": "x", "$id": "y", "pattern": "("}) == []


def test_pattern_that_backtracks_elsewhere_is_matched_in_linear_time() -> None:
    (found,) = violations({"properties": {"a": {"pattern": r"^(\w+\s?)*$"}}}, {"a": "x" * 60_000 + "!"})
    assert found["path"] == "$.a"


def test_formats_are_not_checked() -> None:
    """As the coordinator did whose clients are deployed."""
    assert violations({"properties": {"a": {"format": "email"}}}, {"a": "nobody"}) == []


def test_all_violations_of_small_parameters_are_told_and_the_first_of_large_ones() -> None:
    schema = {"additionalProperties": {"type": "string"}}
    assert len(violations(schema, {f"k{place}": place for place in range(100)})) == agent_schemas.MOST_VIOLATIONS
    (found,) = violations(schema, {f"k{place}": place for place in range(30_000)})
    assert found["path"].startswith("$.k")


def test_one_violation_is_told_where_each_would_repeat_large_parameters() -> None:
    """Each message holds its whole value, and those below anyOf and oneOf are all made for the first violation."""
    large = {"a": "x" * 250_000}
    (found,) = violations({"properties": {"a": {"allOf": [{"not": {}}] * 900}}}, large)
    assert found["path"] == "$.a"
    for name in ("anyOf", "oneOf"):
        (found,) = violations({"properties": {"a": {name: [{"not": {}}] * 900}}}, large)
        assert (found["path"], found["message"]) == ("$", "does not satisfy the schema")


def test_small_parameters_that_violate_one_schema_very_often_have_one_violation() -> None:
    often: dict[str, Any] = {"properties": {"a": {"items": {"allOf": [{"not": {}}] * 900}}}}
    assert len(violations(often, {"a": [0] * 90})) == 1


TOO_LARGE_TO_CHECK: dict[str, tuple[dict[str, Any], Any]] = {
    "many values": ({"items": {"allOf": [{"minimum": place} for place in range(300)]}}, [1] * 20_000),
    "slow keyword": ({"items": {"allOf": [{"multipleOf": 0.1}] * 490}}, [0.1] * 1_990),
    "one pattern and long text": ({"pattern": "[ab]*a[ab]{100}c"}, "ab" * 40_000),
    "pattern that many places refer to": ({"allOf": [{"$ref": "#/definitions/p"}] * 300}, "ab" * 4_000),
    "names of properties": ({"patternProperties": {f"a{place}": {} for place in range(20)}}, {"ab" * 4_000: 1}),
}


@pytest.mark.parametrize("case", TOO_LARGE_TO_CHECK)
def test_parameters_that_would_take_too_long_are_refused(case: str) -> None:
    schema, value = TOO_LARGE_TO_CHECK[case]
    definitions = {"p": {"not": {"pattern": "[ab]*a[ab]{100}c"}}}
    (found,) = violations({"properties": {"a": schema}, "definitions": definitions}, {"a": value})
    assert (found["path"], found["message"]) == ("$", "is too large to be checked against this schema")


def test_usual_patterns_are_accepted() -> None:
    for pattern in (r"^\w+$", r"^\w{1,63}$", "^[A-Za-z0-9_-]{1,128}$", r"^\d{4}-\d{2}-\d{2}$", r"^https?://\S+$"):
        AgentSchema(json.dumps({"properties": {"a": {"pattern": pattern}}}))


def test_only_a_cheap_check_accepts_parameters_without_being_asked() -> None:
    schema = AgentSchema(json.dumps({"properties": {"a": {"type": "string"}, "b": {"type": "array"}}}))
    assert schema.accepts(b'{"a": "x"}')
    assert not schema.accepts(b'{"a": 1}')
    assert not schema.accepts(json.dumps({"b": [1] * 5_000}).encode())
    matching = AgentSchema(json.dumps({"properties": {"a": {"pattern": "^x+$"}}}))
    assert matching.accepts(b'{"a": "x"}')
    assert not matching.accepts(json.dumps({"a": "x" * 5_000}).encode())


def test_long_message_is_cut() -> None:
    (found,) = violations({"properties": {"a": {"type": "integer"}}}, {"a": "x" * 5_000})
    assert len(found["message"]) == 1_025
