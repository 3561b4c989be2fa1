from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from starlette.datastructures import QueryParams
from starlette.requests import Request

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
        text = query.get(self.name)
        return storable(text) if text else None


class Texts(Parameter):
    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "array", "items": {"type": "string"}}

    def of(self, query: QueryParams) -> tuple[str, ...]:
        return tuple(storable(text) for text in query.getlist(self.name) if text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Parameter):
    among: tuple[str, ...]

    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "string", "enum": list(self.among)}

    def of(self, query: QueryParams) -> str | None:
        text = query.get(self.name)
        if text and text not in self.among:
            raise self._invalid("enum", f"Should be one of {', '.join(self.among)}")
        return text or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices(Choice):
    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "array", "items": {"type": "string", "enum": list(self.among)}}

    def all_of(self, query: QueryParams) -> tuple[str, ...]:
        found = tuple(text for text in query.getlist(self.name) if text)
        if not set(found) <= set(self.among):
            raise self._invalid("enum", f"Should be one of {', '.join(self.among)}; repeat the parameter for more")
        return found


# Bounds from which a window can be counted back and forth.
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 9998


class Moment(Parameter):
    @property
    def schema(self) -> Mapping[str, Any]:
        return {"type": "string", "format": "date-time"}

    def of(self, query: QueryParams) -> datetime | None:
        text = query.get(self.name)
        if not text:
            return None
        try:
            # A plus that was not encoded comes as a blank.
            moment = datetime.fromisoformat(text.replace(" ", "+") if text[10:11] == "T" else text)
            if moment.tzinfo is not None and FIRST_YEAR <= moment.year <= LAST_YEAR:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        message = (
            f"Should be a timestamp of the years {FIRST_YEAR} to {LAST_YEAR} with its offset from UTC, like "
            "2026-01-01T12:00:00Z (a + is written %2B)"
        )
        raise self._invalid("timestamp", message)


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


def strict_query(request: Request, known: Iterable[Parameter]) -> QueryParams:
    """Return the query of a request that takes exactly the known parameters, in UTF-8 and without NUL.

    Raises Invalid, also for a parameter that is given twice and takes one value. For reads that deployed clients do not
    make: an unknown or doubled filter that is passed over answers another question.
    """
    named = {parameter.name: parameter for parameter in known}
    try:
        text = unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise Invalid([Fault("unicode", ("query",), "Should be UTF-8 without NUL, percent-encoded")])
    query = request.query_params
    faults = [
        Fault("unknown_parameter", ("query", name), f"Should be one of {', '.join(sorted(named))}")
        for name in query
        if name not in named
    ]
    faults += [
        Fault("repeated_parameter", ("query", name), "Should be given once")
        for name, parameter in named.items()
        if len(query.getlist(name)) > 1 and parameter.schema["type"] != "array"
    ]
    if faults:
        raise Invalid(faults[:20])
    return query


LIMIT: Final = Whole("limit", "Most items of the page", least=1, most=LARGEST_LIMIT)
CURSOR: Final = Text("cursor", "`next_cursor` of the page before")
CURSOR_IN_BODY: Final = Flag(
    "cursor_in_body", "Whether `feed_cursor` is in the body, too (default: with any parameter but `status` of runs)"
)
# The authentication of a poll needs it before its route does.
POLL_WAIT: Final = Seconds("wait", "Seconds for which to hold the poll", most=LONGEST_POLL)
