"""Check the example notation from which OpenAPI schemas are made."""

from typing import Any

import pytest

from app.openapi.shapes import Anything, Choice, Free, MayLack, NullOr, OrNull, example, schema
from models.core.statuses import RunType

TEXT_OR_NULL = {"anyOf": [{"type": "string"}, {"type": "null"}]}


@pytest.mark.parametrize(
    ("shape", "shown", "stands_for"),
    [
        ("text", "text", {"type": "string"}),
        (1, 1, {"type": "integer"}),
        (1.5, 1.5, {"type": "number"}),
        (True, True, {"type": "boolean"}),
        (RunType.START, "start_session", {"type": "string", "enum": ["start_session", "resume_session"]}),
        (OrNull("text"), "text", TEXT_OR_NULL),
        (NullOr("text"), None, TEXT_OR_NULL),
        (Free({"a": 1}), {"a": 1}, {"type": "object"}),
        (Free([]), [], {"type": "array"}),
        (Anything(5), 5, {}),
        (["a", "b"], ["a", "b"], {"type": "array", "items": {"type": "string"}}),
        (["a", 1], ["a", 1], {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}),
        (Choice(1, "a"), 1, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
    ],
)
def test_shape_gives_an_example_and_a_schema(shape: Any, shown: Any, stands_for: dict[str, Any]) -> None:
    assert example(shape) == shown
    assert schema(shape) == stands_for


def test_fields_are_required_unless_marked_optional() -> None:
    """Describe optional fields, but leave them out of the example."""
    shape = {"ok": True, "message": MayLack("Already ended")}
    assert example(shape) == {"ok": True}
    assert schema(shape) == {
        "type": "object",
        "required": ["ok"],
        "properties": {"ok": {"type": "boolean"}, "message": {"type": "string"}},
    }


def test_example_without_type_is_refused() -> None:
    """Null alone would describe nothing else."""
    with pytest.raises(KeyError):
        schema({"error": None})
