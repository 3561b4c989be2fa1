"""JSON Schemas (Draft 7) of runners' agents: the accepted ones, and checks of parameters at a bounded cost."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from jsonschema_rs import Draft7Validator, ReferencingError, RegexOptions, ValidationError

from app.inputs.parameters import violation

LONGEST_SCHEMA: Final = 16 * 1024
# Values of a schema with each reference replaced by its target; a check looks at most at each of them for each value
# of the parameters.
MOST_VALUES: Final = 2_000
MOST_DEPTH: Final = 64
MOST_PATTERNS: Final = 32
# Of a compiled pattern: the slowest that was found takes 2.8 us for each byte of text.
PATTERN_BYTES: Final = 32 * 1024
# Patterns, with references resolved, times bytes of the parameters.
MOST_PATTERN_WORK: Final = 64 * 1024
# Pairs of a value of the schema and one of the parameters.
MOST_PAIRS: Final = 200_000
# All violations are made up to so many pairs, and values of the schema times bytes of the parameters: each message
# holds the whole value that it is about.
MOST_PAIRS_OF_ALL: Final = 10_000
MOST_TOLD: Final = 1_000_000
MOST_VIOLATIONS: Final = 20
# Up to so much a check may run on the event loop.
PRESUMED_PAIRS: Final = 10_000
PRESUMED_PATTERN_WORK: Final = 4 * 1024
_CHOICES: Final = frozenset({"anyOf", "oneOf"})


class BadSchema(Exception):
    """Schema that is refused; the text says what to change."""


class AgentSchema:
    """Schema of an agent's parameters. Raises BadSchema unless it is one of Draft 7 within the bounds.

    Patterns are matched in linear time, without look-around and backreferences; references lead to other places of the
    schema alone, and never back to where they stand. Formats are not checked.
    """

    def __init__(self, text: str) -> None:
        if len(text.encode()) > LONGEST_SCHEMA:
            raise BadSchema(f"Should be at most {LONGEST_SCHEMA} bytes of JSON")
        self.shown: Any = json.loads(text)
        self._size = _Size(self.shown)
        # The draft is given, and no other document is asked for.
        given = {name: value for name, value in self.shown.items() if name not in {"$schema", "$id"}}
        options = RegexOptions(size_limit=PATTERN_BYTES)
        try:
            self._validator = Draft7Validator(given, pattern_options=options, validate_formats=False, offline=True)
        except (ValidationError, ReferencingError, ValueError) as refused:
            reason = violation("", getattr(refused, "message", str(refused)), "")["message"]
            raise BadSchema(f"Should be a JSON Schema of Draft 7: {reason}") from None

    def accepts(self, given: bytes) -> bool:
        """Return whether parameters, JSON, satisfy the schema; False also where a check would take long."""
        if self._pairs(given) > PRESUMED_PAIRS or self._size.patterns * len(given) > PRESUMED_PATTERN_WORK:
            return False
        return self._validator.is_valid(json.loads(given))

    def violations(self, given: bytes) -> list[dict[str, str]]:
        """Return the violations of parameters, JSON; at most 20."""
        pairs = self._pairs(given)
        if pairs > MOST_PAIRS or self._size.patterns * len(given) > MOST_PATTERN_WORK:
            return [violation("$", "is too large to be checked against this schema", "")]
        parameters = json.loads(given)
        if pairs <= MOST_PAIRS_OF_ALL and self._size.values * len(given) <= MOST_TOLD:
            return [_told(error) for error in islice(self._validator.iter_errors(parameters), MOST_VIOLATIONS)]
        if self._size.has_choices:
            # The first violation may hold all those of its choices.
            satisfied = self._validator.is_valid(parameters)
            return [] if satisfied else [violation("$", "does not satisfy the schema", "")]
        try:
            self._validator.validate(parameters)
        except ValidationError as first:
            return [_told(first)]
        return []

    def _pairs(self, given: bytes) -> int:
        return self._size.values * _values_at_most(given)


class _Measured(NamedTuple):
    values: int = 1
    levels: int = 1
    patterns: int = 0


class _Size:
    """Values and patterns of a schema with its references resolved. Raises BadSchema for what could cost too much."""

    def __init__(self, root: Any) -> None:
        if not isinstance(root, dict):
            raise BadSchema("Should be an object")
        self._root = root
        self._known: dict[str, _Measured] = {}
        self._open: set[str] = set()
        self._compiled = 0
        self.has_choices = False
        self.values, levels, self.patterns = self._measure(root, 1)
        if self.values > MOST_VALUES:
            raise BadSchema(f"Should have at most {MOST_VALUES} values, with its references resolved")
        if levels > MOST_DEPTH:
            raise _too_deep()
        if self._compiled > MOST_PATTERNS:
            raise BadSchema(f"Should have at most {MOST_PATTERNS} patterns")

    def _measure(self, value: Any, depth: int) -> _Measured:
        if depth > MOST_DEPTH:
            raise _too_deep()
        patterns = 0
        if isinstance(value, dict):
            patterns = self._look(value, depth)
            parts = [self._measure(part, depth + 1) for part in value.values()]
            reference = value.get("$ref")
            if isinstance(reference, str):
                parts.append(self._follow(reference, depth + 1))
        elif isinstance(value, list):
            parts = [self._measure(part, depth + 1) for part in value]
        else:
            return _Measured()
        return _Measured(
            1 + sum(part.values for part in parts),
            1 + max((part.levels for part in parts), default=0),
            patterns + sum(part.patterns for part in parts),
        )

    def _look(self, value: Mapping[str, Any], depth: int) -> int:
        """Return the number of patterns that a schema has itself."""
        if depth > 1 and isinstance(value.get("$id"), str):
            raise BadSchema("Should have an $id at its top only")
        self.has_choices |= not _CHOICES.isdisjoint(value)
        named = value.get("patternProperties")
        patterns = isinstance(value.get("pattern"), str) + (len(named) if isinstance(named, dict) else 0)
        self._compiled += patterns
        return patterns

    def _follow(self, reference: str, depth: int) -> _Measured:
        if reference in self._open:
            raise BadSchema("Should have no reference to a place that holds it")
        if reference not in self._known:
            self._open.add(reference)
            self._known[reference] = self._measure(self._target(reference), depth)
            self._open.remove(reference)
        return self._known[reference]

    def _target(self, reference: str) -> Any:
        # A percent sign would be decoded, to another place than the one that is measured.
        if not reference.startswith("#/") or "%" in reference:
            raise BadSchema("Should refer to places of its own alone: #/definitions/NAME")
        value: Any = self._root
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(value, dict) or name not in value:
                raise BadSchema("Should have the place to which it refers")
            value = value[name]
        return value


def _too_deep() -> BadSchema:
    return BadSchema(f"Should not be nested deeper than {MOST_DEPTH}, with its references resolved")


def _values_at_most(given: bytes) -> int:
    return 1 + given.count(b",") + given.count(b"[") + given.count(b"{")


def _told(error: ValidationError) -> dict[str, str]:
    path = "".join(_steps(error.instance_path))
    return violation(f"${path}", error.message, "/".join(map(str, error.schema_path)))


def _steps(path: list[str | int]) -> Iterator[str]:
    """Yield the steps of a path as the jsonschema package writes them, which clients know."""
    for step in path:
        if isinstance(step, int):
            yield f"[{step}]"
        else:
            yield f".{step}" if step.isidentifier() and step.isascii() else f"[{step!r}]"
