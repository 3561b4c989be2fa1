from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from app.http.problems import BadRequest
from models.runs.prompts import is_prompt

NO_AGENT: Final = "(no agent)"
# Shown to clients, with its fields in the order that they know; `is_prompt` checks it.
PROMPT_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {"prompt": {"type": "string", "minLength": 1}},
    "additionalProperties": False,
}
MAX_MESSAGE: Final = 1024


def check_parameters(parameters: Mapping[str, Any], agent_name: str = NO_AGENT) -> None:
    """Raise BadRequest unless the parameters are exactly ``{"prompt": non-empty string}``, as a run needs without an
    agent, and with one that has no schema.
    """
    if not is_prompt(parameters):
        raise refused_parameters(agent_name, list(_prompt_violations(parameters)), PROMPT_SCHEMA)


def refused_parameters(agent_name: str, violations: Sequence[Mapping[str, str]], schema: Any) -> BadRequest:
    return BadRequest(
        {
            "error": "parameter_validation_failed",
            "message": "Parameters do not match agent's parameters_schema",
            "agent_name": agent_name,
            "validation_errors": list(violations),
            "parameters_schema": schema,
        }
    )


def _prompt_violations(parameters: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the violations of PROMPT_SCHEMA in the words of the jsonschema package, which clients know."""
    if "prompt" not in parameters:
        yield violation("$", "'prompt' is a required property", "required")
    if extras := sorted(parameters.keys() - {"prompt"}):
        named = ", ".join(repr(name) for name in extras)
        were = "was" if len(extras) == 1 else "were"
        message = f"Additional properties are not allowed ({named} {were} unexpected)"
        yield violation("$", message, "additionalProperties")
    prompt = parameters.get("prompt", ...)
    if prompt == "":
        yield violation("$.prompt", "'' should be non-empty", "properties/prompt/minLength")
    elif prompt is not ... and not isinstance(prompt, str):
        yield violation("$.prompt", f"{prompt!r} is not of type 'string'", "properties/prompt/type")


def violation(path: str, message: str, schema_path: str) -> dict[str, str]:
    shown = message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "…"
    return {"path": path, "message": shown, "schema_path": schema_path}
