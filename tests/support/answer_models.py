"""Comparison of real answers with the models of app/schemas: the same fields, in the same order, and no others."""

from functools import cache
from typing import Any

from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from app.main import create_app
from runtime.settings import Settings


@cache
def models_of_answers() -> dict[tuple[str, int], Any]:
    """Return the model of each answer, by endpoint and status."""
    return {
        (f"{method} {route.path}", int(status)): described["model"]
        for route in create_app(Settings()).routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
        for status, described in route.responses.items()
        if "model" in described
    }


def check_fields(endpoint: str, status: int, answer: Any) -> None:
    """Require exactly the fields of the answer's model, in their order. Raises AssertionError."""
    model = models_of_answers()[endpoint, status]
    name = f"{status} of {endpoint} is no {getattr(model, '__name__', model)}"
    adapter = TypeAdapter(model)
    try:
        shown = adapter.dump_python(adapter.validate_python(answer, extra="forbid"), mode="json", exclude_unset=True)
    except ValidationError as refused:
        raise AssertionError(f"{name}: {refused}") from refused
    assert shown == answer, name
    assert names_in(shown) == names_in(answer), f"{name}: the order of its fields differs"


def has_fields_of_its_model(_: Any, response: Any, case: Any) -> None:
    """Check an answer that schemathesis received."""
    if (case.operation.label, response.status_code) in models_of_answers():
        check_fields(case.operation.label, response.status_code, response.json())


def names_in(value: Any) -> Any:
    """Return the names of all fields, in order."""
    match value:
        case dict():
            return [(name, names_in(inner)) for name, inner in value.items()]
        case list():
            return [names_in(inner) for inner in value]
        case _:
            return None
