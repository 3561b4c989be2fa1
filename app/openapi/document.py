"""Add to /openapi.json what FastAPI does not see: bodies parsed by routes, query parameters, errors."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.auth.permissions import ADMINS_ONLY, PERMISSIONS

REF: Final = "#/components/schemas/{model}"
REFUSALS: Final = {
    "401": "The credential is missing or malformed",
    "403": "The credential was rejected, or its role may not do this",
}
TOO_MANY: Final = {"429": "Over a limit of the caller; see `Retry-After`"}

_bodies: dict[str, type[BaseModel]] = {}


def body(model: type[BaseModel], *, many: bool = False) -> dict[str, Any]:
    """Describe the request body of a route that parses it itself; ``many``: a list of them is accepted too."""
    _bodies[model.__name__] = model
    single: dict[str, Any] = {"$ref": REF.format(model=model.__name__)}
    schema = {"anyOf": [single, {"type": "array", "items": single, "maxItems": 1000}]} if many else single
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def query(parameters: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """Describe query parameters: name, JSON type, meaning."""
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "description": meaning, "schema": {"type": kind}}
            for name, kind, meaning in parameters
        ]
    }


def fields(properties: Mapping[str, tuple[str, bool, str]]) -> dict[str, Any]:
    """Describe a body that is read leniently: JSON type, whether required, and meaning by name."""
    schema = {
        "type": "object",
        "required": [name for name, (_, required, _) in properties.items() if required],
        "properties": {name: {"type": kind, "description": meaning} for name, (kind, _, meaning) in properties.items()},
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_PROBLEM: Final = {
    "title": "Problem",
    "description": "Every error: the fault as text, as object, or for 422 as list.",
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "anyOf": [
                {"type": "string"},
                {"type": "object"},
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "type": {"type": "string"},
                            "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                            "msg": {"type": "string"},
                        },
                    },
                },
            ]
        }
    },
}


def describe(app: FastAPI) -> None:
    """Replace the application's `openapi()` by one that adds these descriptions."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            _, definitions = models_json_schema([(model, "validation") for model in _bodies.values()], ref_template=REF)
            schemas = described.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(definitions.get("$defs", {}))
            schemas["Problem"] = _PROBLEM
            _drop_guesses(described)
            _add_refusals(described)
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend what FastAPI describes


def _add_refusals(described: dict[str, Any]) -> None:
    """Add the answers of authentication and limits: 401, 403 and, on counted endpoints, 429."""
    content = {"application/json": {"schema": {"$ref": REF.format(model="Problem")}}}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            permission = PERMISSIONS.get(f"{method.upper()} {path}", ADMINS_ONLY)
            if permission.public:
                continue
            refusals = REFUSALS if permission.counted is None else REFUSALS | TOO_MANY
            for status, description in refusals.items():
                operation["responses"].setdefault(status, {"description": description, "content": content})


def _drop_guesses(described: dict[str, Any]) -> None:
    """Drop the 422 that FastAPI adds to every route with a path parameter; ours take any text there."""
    for methods in described["paths"].values():
        for operation in methods.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for guess in ("HTTPValidationError", "ValidationError"):
        described["components"]["schemas"].pop(guess, None)
