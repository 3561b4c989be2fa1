"""Check that parameters of runs hold a prompt, and the error detail that clients know."""

from typing import Any

import pytest

from app.http.problems import BadRequest
from app.inputs.parameters import PROMPT_SCHEMA, check_parameters


def test_prompt_is_sufficient() -> None:
    check_parameters({"prompt": "x"})


@pytest.mark.parametrize(
    ("parameters", "path", "schema_path"),
    [
        ({}, "$", "required"),
        ({"prompt": ""}, "$.prompt", "properties/prompt/minLength"),
        ({"prompt": 5}, "$.prompt", "properties/prompt/type"),
        ({"prompt": "x", "more": 1}, "$", "additionalProperties"),
    ],
)
def test_invalid_parameters_are_refused_with_path_and_schema(parameters: Any, path: str, schema_path: str) -> None:
    """Answer 400 with jsonschema's message, the path in the parameters and the path in the schema."""
    with pytest.raises(BadRequest) as refused:
        check_parameters(parameters)
    detail = refused.value.detail
    assert detail["error"] == "parameter_validation_failed"
    assert detail["message"] == "Parameters do not match agent's parameters_schema"
    assert detail["agent_name"] == "(no agent)"
    assert detail["parameters_schema"] == PROMPT_SCHEMA
    (error,) = detail["validation_errors"]
    assert (error["path"], error["schema_path"]) == (path, schema_path)
    assert error["message"]
