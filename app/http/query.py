"""Define query parameters: one object reads a parameter and describes it (PROTOCOL, Runs)."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final

from starlette.datastructures import QueryParams

from app.http.bodies import Fault, Invalid
from models.core.storable_text import storable

LARGEST_LIMIT: Final = 1000
LONGEST_POLL: Final = 600.0
FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    description: str
    _: KW_ONLY
    required: bool = False

    @property
    def bounds(self) -> str:
        return ""

    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "string"}

    def _invalid(self, kind: str, message: str) -> Invalid:
        return Invalid([Fault(kind, ("query", self.name), message)])


class Text(Parameter):
    def of(self, query: QueryParams) -> str | None:
        """Return the text as Postgres can compare it, or None."""
        text = query.get(self.name)
        return storable(text) if text else None


class Texts(Parameter):
    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "array", "items": {"type": "string"}}

    def of(self, query: QueryParams) -> tuple[str, ...]:
        return tuple(storable(text) for text in query.getlist(self.name) if text)


@dataclass(frozen=True, slots=True)
class Flag(Parameter):
    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "boolean"}

    def of(self, query: QueryParams) -> bool | None:
        text = query.get(self.name, "").lower()
        if text and text not in FLAGS:
            raise self._invalid("bool_parsing", "Should be true or false")
        return FLAGS.get(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(Parameter):
    least: int
    most: int

    @property
    def bounds(self) -> str:
        return f"{self.least} to {self.most}"

    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def of(self, query: QueryParams) -> int | None:
        text = query.get(self.name)
        if not text:
            return None
        if text.isascii() and text.isdigit() and len(text) <= 9 and self.least <= int(text) <= self.most:
            return int(text)
        raise self._invalid("int_range", f"Should be a whole number from {self.bounds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds(Parameter):
    most: float

    @property
    def bounds(self) -> str:
        return f"0 to {self.most:g}"

    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "number", "minimum": 0, "maximum": self.most}

    def of(self, query: QueryParams) -> float | None:
        text = query.get(self.name)
        if not text:
            return None
        try:
            value = float(text) if len(text) <= 32 else -1.0
        except ValueError:
            value = -1.0
        if not 0 <= value <= self.most:
            raise self._invalid("float_range", f"Should be a number of seconds from {self.bounds}")
        return value


LIMIT: Final = Whole("limit", "Most items of the page", least=1, most=LARGEST_LIMIT)
CURSOR: Final = Text("cursor", "`next_cursor` of the page before")
# The authentication of a poll needs it before its route does.
POLL_WAIT: Final = Seconds("wait", "Seconds for which to hold the poll", most=LONGEST_POLL)
