from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.auth.permissions import ADMINS_ONLY, PERMISSIONS
from app.http.query import Parameter

SCHEMAS: Final = "#/components/schemas/"
REFUSALS: Final = {
    "401": "The credential is missing or malformed",
    "403": "The credential was rejected, or its role may not do this",
}
TOO_MANY: Final = {"429": "Over a limit of the caller; see `Retry-After`"}

_bodies: dict[str, type[BaseModel]] = {}


def body(model: type[BaseModel], *, many: int = 0, required: bool = True) -> dict[str, Any]:
    """Describe the request body of a route that parses it itself; ``many``: also a list of up to so many of them."""
    _bodies[model.__name__] = model
    one: dict[str, Any] = {"$ref": SCHEMAS + model.__name__}
    schema = {"anyOf": [one, {"type": "array", "items": one, "maxItems": many}]} if many else one
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def query(*parameters: Parameter) -> dict[str, Any]:
    return {
        "parameters": [
            {
                "name": parameter.name,
                "in": "query",
                "required": parameter.required,
                "description": parameter.description + (f" ({parameter.bounds})" if parameter.bounds else ""),
                "schema": dict(parameter.schema),
            }
            for parameter in parameters
        ]
    }


def describe(app: FastAPI) -> None:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            _, definitions = models_json_schema(
                [(model, "validation") for model in _bodies.values()], ref_template=SCHEMAS + "{model}"
            )
            described["components"]["schemas"].update(definitions["$defs"])
            _drop_guesses(described)
            _add_refusals(described)
            _add_examples(described)
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend what FastAPI describes


def example(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    match schema:
        case {"examples": [first, *_]} | {"const": first} | {"enum": [first, *_]}:
            return first
        case {"$ref": str(reference)}:
            return example(schemas[reference.removeprefix(SCHEMAS)], schemas)
        case {"anyOf": [first, *_]}:
            return example(first, schemas)
        case {"type": "array"}:
            item = example(schema["items"], schemas)
            return [] if item is None else [item]
        case {"type": "object", "properties": fields}:
            return {name: example(fields[name], schemas) for name in schema.get("required", ())}
    return None


def _operations(described: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def _add_examples(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    for _, operation in _operations(described):
        for holder in (*operation["responses"].values(), operation.get("requestBody", {})):
            content = holder.get("content", {}).get("application/json")
            if content and "example" not in content:
                content["example"] = example(content["schema"], schemas)


def _add_refusals(described: dict[str, Any]) -> None:
    for name, operation in _operations(described):
        permission = PERMISSIONS.get(name, ADMINS_ONLY)
        if permission.public:
            continue
        refusals = REFUSALS if permission.counted is None else REFUSALS | TOO_MANY
        for status, description in refusals.items():
            content = {"schema": {"$ref": SCHEMAS + "Problem"}, "example": {"detail": description}}
            refusal = {"description": description, "content": {"application/json": content}}
            operation["responses"].setdefault(status, refusal)


def _drop_guesses(described: dict[str, Any]) -> None:
    """Drop the 422 that FastAPI adds to every route with a path parameter; ours take any text there."""
    for _, operation in _operations(described):
        if "HTTPValidationError" in str(operation["responses"].get("422")):
            del operation["responses"]["422"]
    for guess in ("HTTPValidationError", "ValidationError"):
        described["components"]["schemas"].pop(guess, None)
