from collections.abc import Iterator, Mapping
from typing import Any, Final

from app.http.problems import BadRequest

NO_AGENT: Final = "(no agent)"
# Shown to clients; `_violations` checks it.
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
    violations = list(_violations(parameters))
    if violations:
        raise BadRequest(
            {
                "error": "parameter_validation_failed",
                "message": "Parameters do not match agent's parameters_schema",
                "agent_name": NO_AGENT,
                "validation_errors": violations,
                "parameters_schema": PROMPT_SCHEMA,
            }
        )


def _violations(parameters: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the violations of PROMPT_SCHEMA in the words of the jsonschema package, which clients know."""
    if "prompt" not in parameters:
        yield _violation("$", "'prompt' is a required property", "required")
    if extras := sorted(parameters.keys() - {"prompt"}):
        named = ", ".join(repr(name) for name in extras)
        were = "was" if len(extras) == 1 else "were"
        message = f"Additional properties are not allowed ({named} {were} unexpected)"
        yield _violation("$", message, "additionalProperties")
    prompt = parameters.get("prompt", ...)
    if prompt == "":
        yield _violation("$.prompt", "'' should be non-empty", "properties/prompt/minLength")
    elif prompt is not ... and not isinstance(prompt, str):
        yield _violation("$.prompt", f"{prompt!r} is not of type 'string'", "properties/prompt/type")


def _violation(path: str, message: str, schema_path: str) -> dict[str, str]:
    shown = message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "…"
    return {"path": path, "message": shown, "schema_path": schema_path}
