"""Derive examples and JSON schemas from one notation.

A plain value stands for all values of its type, a member of an enum for all members; a field of an object is required.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

Answers = dict[int | str, dict[str, Any]]

_TYPES: Final[Mapping[type, str]] = {str: "string", bool: "boolean", int: "integer", float: "number"}


@dataclass(frozen=True, slots=True)
class OrNull:
    """Value like this, or null."""

    like: Any


@dataclass(frozen=True, slots=True)
class NullOr:
    """Value like this, or null; the example shows null."""

    like: Any


@dataclass(frozen=True, slots=True)
class MayLack:
    """Optional field; the example omits it."""

    like: Any


@dataclass(frozen=True, slots=True)
class Free:
    """Object or list with arbitrary contents, whose example is this."""

    shown: Any


@dataclass(frozen=True, slots=True)
class Anything:
    """Arbitrary JSON value, whose example is this."""

    shown: Any = None


class Choice:
    """Alternatives; the example shows the first."""

    def __init__(self, *likes: Any) -> None:
        self.likes = likes


def example(shape: Any) -> Any:
    """Return the example of a shape."""
    match shape:
        case OrNull():
            return example(shape.like)
        case NullOr():
            return None
        case Free() | Anything():
            return shape.shown
        case Choice():
            return example(shape.likes[0])
        case Enum():
            return shape.value
        case Mapping():
            return {name: example(value) for name, value in shape.items() if not isinstance(value, MayLack)}
        case list():
            return [example(value) for value in shape]
        case _:
            return shape


def schema(shape: Any) -> dict[str, Any]:
    """Return the JSON schema of a shape. Raises KeyError for a value without a type, such as None."""
    match shape:
        case OrNull() | NullOr():
            return {"anyOf": [schema(shape.like), {"type": "null"}]}
        case MayLack():
            return schema(shape.like)
        case Anything():
            return {}
        case Free():
            return {"type": "array" if isinstance(shape.shown, list) else "object"}
        case Choice():
            return _any_of(shape.likes)
        case Enum():
            return {"type": "string", "enum": [member.value for member in type(shape)]}
        case Mapping():
            return {
                "type": "object",
                "required": [name for name, value in shape.items() if not isinstance(value, MayLack)],
                "properties": {name: schema(value) for name, value in shape.items()},
            }
        case list():
            return {"type": "array", "items": _any_of(shape)}
        case _:
            return {"type": _TYPES[type(shape)]}


def _any_of(likes: Sequence[Any]) -> dict[str, Any]:
    several: list[dict[str, Any]] = []
    for like in likes:
        described = schema(like)
        if described not in several:
            several.append(described)
    return several[0] if len(several) == 1 else {"anyOf": several} if several else {}


def answer(description: str, shape: Any) -> dict[str, Any]:
    """Return the /openapi.json entry of an answer of this shape."""
    content = {"schema": schema(shape), "example": example(shape)}
    return {"description": description, "content": {"application/json": content}}


def error(description: str, detail: Any) -> dict[str, Any]:
    """Return the /openapi.json entry of an error answer with this detail."""
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": {"detail": detail}}
    return {"description": description, "content": {"application/json": content}}
