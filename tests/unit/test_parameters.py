"""Parameters of runs: exactly a prompt, else the detail that clients already know."""

from typing import Any

import pytest

from app.http.problems import BadRequest
from app.inputs.parameters import PROMPT_SCHEMA, check_parameters


def test_a_prompt_is_all_that_is_needed() -> None:
    """The one accepted form."""
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
def test_anything_else_is_refused_with_path_and_schema(parameters: Any, path: str, schema_path: str) -> None:
    """400 with jsonschema's message, the path in the parameters and the path in the schema."""
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
