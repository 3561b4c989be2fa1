import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import httpx

from compat.shapes import Shapes

ANSWER_SECONDS: Final = 60.0


class Recorder:
    """Client that takes the addresses of a coordinator in turns, and keeps the outcome of each call by its name."""

    def __init__(self, urls: Sequence[str], directory: Path) -> None:
        self.outcomes: dict[str, Any] = {}
        self.shapes = Shapes(directory)
        self.urls = list(urls)
        self._next = cycle(urls)
        self._http = httpx.Client(timeout=ANSWER_SECONDS)

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        name: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make a call, keep its outcome under the name ("" for none) and return the body as it came."""
        answer = self._http.request(
            method, next(self._next) + path, json=body, params=params, headers=dict(headers or {})
        )
        found = _body(answer)
        if name:
            self.note(name, self.shapes.answer(answer.status_code, found))
        return found

    def note(self, name: str, outcome: Any) -> None:
        if name in self.outcomes:
            raise ValueError(f"two calls are named {name}")
        self.outcomes[name] = outcome

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[tuple[str, Any]]]:
        """Open a stream of events; iterate over type and data of those that have both."""
        with self._http.stream("GET", next(self._next) + path) as answer:
            yield _events(answer.iter_lines())


def _body(answer: httpx.Response) -> Any:
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError:
        kind = answer.headers.get("content-type", "").partition(";")[0]
        return f"{kind}, attachment {answer.headers.get('content-disposition', '')}".strip()


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    kind, data = "", ""
    for line in lines:
        name, _, value = line.partition(":")
        if name == "event":
            kind = value.strip()
        elif name == "data":
            data += value.strip()
        elif not line:
            if kind and data:
                yield kind, json.loads(data)
            kind, data = "", ""
