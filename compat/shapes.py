"""Outcomes without what differs from run to run: ids, times, ports, counters."""

import re
from pathlib import Path
from typing import Any, Final

_IDS: Final = re.compile(r"\b(ses|run|lnch|hook)_[0-9a-f]{12,32}\b")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?")
_ADDRESS: Final = re.compile(r"\b(?:127\.0\.0\.1|localhost):\d+")
# Fields whose numbers are of no meaning to a client.
_COUNTERS: Final = {"id", "seconds_since_heartbeat", "poll_timeout_seconds", "heartbeat_interval_seconds"}


class Shapes:
    """Names each id by the order in which it is seen, so that the same id has the same name in all outcomes."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = None if directory is None else str(directory)
        self._names: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def of(self, value: Any, field: str = "") -> Any:
        if isinstance(value, dict):
            return {self._text(name): self.of(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.of(inner) for inner in value]
        if isinstance(value, str):
            return self._text(value)
        if field in _COUNTERS and isinstance(value, int | float) and not isinstance(value, bool):
            return "NUMBER"
        return value

    def answer(self, status: int, body: Any) -> dict[str, Any]:
        """Return an HTTP answer; of a 422 only the places of the faults, whose words are those of a library."""
        if status == 422 and isinstance(body, dict) and isinstance(body.get("detail"), list):
            body = {"detail": [{"loc": fault.get("loc")} for fault in body["detail"]]}
        return {"status": status, "body": self.of(body)}

    def _text(self, text: str) -> str:
        named = _IDS.sub(self._name, text)
        if self._directory is not None:
            named = named.replace(self._directory, "DIRECTORY")
        return _ADDRESS.sub("HOST", _TIME.sub("TIME", named))

    def _name(self, found: "re.Match[str]") -> str:
        if found[0] not in self._names:
            number = self._numbers[found[1]] = self._numbers.get(found[1], 0) + 1
            self._names[found[0]] = f"{found[1]}#{number}"
        return self._names[found[0]]
