"""Validate the parameters of a run against the schema of its agent (PROTOCOL, Submission)."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson
from jsonschema import Draft7Validator, ValidationError

from app.http.problems import BadRequest

NO_AGENT: Final = "(no agent)"
PROMPT_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"prompt": {"type": "string", "minLength": 1}},
    "required": ["prompt"],
    "additionalProperties": False,
}
MAX_MESSAGE: Final = 1024


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise BadRequest unless the parameters are exactly ``{"prompt": non-empty string}``.

    Agents with schemas of their own come with the registry; until then every run has this one.
    """
    prompt = parameters.get("prompt")
    if len(parameters) == 1 and isinstance(prompt, str) and prompt:
        return
    errors = sorted(_validator(orjson.dumps(PROMPT_SCHEMA)).iter_errors(parameters), key=lambda error: list(error.path))
    raise BadRequest(
        {
            "error": "parameter_validation_failed",
            "message": "Parameters do not match agent's parameters_schema",
            "agent_name": NO_AGENT,
            "validation_errors": [_shown(error) for error in errors],
            "parameters_schema": PROMPT_SCHEMA,
        }
    )


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Draft7Validator:
    return Draft7Validator(orjson.loads(schema))


def _shown(error: ValidationError) -> dict[str, str]:
    path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    message = error.message if len(error.message) <= MAX_MESSAGE else error.message[:MAX_MESSAGE] + "…"
    return {"path": path, "message": message, "schema_path": "/".join(str(part) for part in error.absolute_schema_path)}
