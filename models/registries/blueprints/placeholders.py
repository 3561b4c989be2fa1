import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_PLACEHOLDER: Final = re.compile(r"\$\{([^}]+)\}")
# Left to the runner, which knows its own addresses.
_OF_RUNNER: Final = "runner."


def has_placeholder(text: str) -> bool:
    return _PLACEHOLDER.search(text, 0, _end_of_last(text)) is not None


def _end_of_last(text: str) -> int:
    """Return where the last placeholder can end. A search behind it would read the rest from every ``${`` on."""
    return text.rfind("}") + 1


class TooLarge(Exception):
    """The texts with their values would exceed the limit."""


@dataclass(frozen=True, slots=True)
class Values:
    """Values of one run for placeholders: ``params``, ``scope``, ``env`` (allowed variables only) and ``runtime``."""

    params: Mapping[str, Any] = field(default_factory=dict)
    scope: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    runtime: Mapping[str, str] = field(default_factory=dict)

    def of(self, source: str) -> Mapping[str, Any]:
        match source:
            case "params":
                return self.params
            case "scope":
                return self.scope
            case "env":
                return self.env
            case "runtime":
                return self.runtime
        return {}


class Substitution:
    """Puts the values of a run in place of ``${source.key}`` in texts, up to ``most`` characters in all.

    The key is everything behind the first dot. A placeholder that is unknown or null stays as it is written. Text that
    came from a value is not looked at again, so that no parameter can ask for a variable.
    """

    def __init__(self, values: Values, most: int) -> None:
        self._values = values
        self._left = most
        self._known: dict[str, str] = {}

    def value(self, given: Any) -> Any:
        """Return a JSON value with all its texts filled in; keys stay. Raises TooLarge."""
        if isinstance(given, str):
            return self.text(given)
        if isinstance(given, Mapping):
            return {key: self.value(inner) for key, inner in given.items()}
        if isinstance(given, list | tuple):
            return [self.value(inner) for inner in given]
        return given

    def text(self, given: str) -> str:
        self._take(len(given))
        end = _end_of_last(given)
        return _PLACEHOLDER.sub(self._replacement, given[:end]) + given[end:] if "${" in given else given

    def _replacement(self, found: re.Match[str]) -> str:
        text = self._text_of(found)
        self._take(len(text))
        return text

    def _text_of(self, found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in self._known:
            source, _, key = name.partition(".")
            value = None if name.startswith(_OF_RUNNER) else self._values.of(source).get(key)
            self._known[name] = found.group(0) if value is None else str(value)
        return self._known[name]

    def _take(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise TooLarge
