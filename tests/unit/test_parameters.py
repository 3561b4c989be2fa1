"""Check that parameters of runs hold a prompt, and the error detail that clients know."""

from typing import Any

import pytest

from app.http.problems import BadRequest
from app.inputs.parameters import PROMPT_SCHEMA, check_parameters


def test_prompt_is_sufficient() -> None:
    check_parameters({"prompt": "x"})


MISSING = ("$", "'prompt' is a required property", "required")


def unexpected(names: str) -> tuple[str, str, str]:
    return "$", f"Additional properties are not allowed ({names} unexpected)", "additionalProperties"


@pytest.mark.parametrize(
    ("parameters", "violations"),
    [
        ({}, [MISSING]),
        ({"x": 1}, [MISSING, unexpected("'x' was")]),
        ({"prompt": ""}, [("$.prompt", "'' should be non-empty", "properties/prompt/minLength")]),
        ({"prompt": 5}, [("$.prompt", "5 is not of type 'string'", "properties/prompt/type")]),
        ({"prompt": None}, [("$.prompt", "None is not of type 'string'", "properties/prompt/type")]),
        ({"prompt": "x", "b": 1, "a'": 1}, [unexpected("\"a'\", 'b' were")]),
        (
            {"prompt": "", "x": 1},
            [unexpected("'x' was"), ("$.prompt", "'' should be non-empty", "properties/prompt/minLength")],
        ),
    ],
)
def test_invalid_parameters_are_refused_with_path_and_schema(
    parameters: Any, violations: list[tuple[str, str, str]]
) -> None:
    """Answer 400 with the messages of the jsonschema package, the path in the parameters and the path in the schema."""
    detail = refusal(parameters)
    assert detail["error"] == "parameter_validation_failed"
    assert detail["message"] == "Parameters do not match agent's parameters_schema"
    assert detail["agent_name"] == "(no agent)"
    assert detail["parameters_schema"] == PROMPT_SCHEMA
    assert detail["validation_errors"] == [
        {"path": path, "message": message, "schema_path": schema_path} for path, message, schema_path in violations
    ]


def test_long_messages_are_cut() -> None:
    (error,) = refusal({"prompt": ["x" * 5000]})["validation_errors"]
    assert error["message"] == "['" + "x" * 1022 + "…"


def refusal(parameters: Any) -> Any:
    with pytest.raises(BadRequest) as refused:
        check_parameters(parameters)
    return refused.value.detail
