from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchers:
    """Held requests and streams by the credential that they end with."""

    def __init__(self) -> None:
        self._ends: dict[str, set[Callable[[], None]]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._ends)

    @contextmanager
    def watching(self, name: str, end: Callable[[], None]) -> Iterator[None]:
        ends = self._ends.setdefault(name, set())
        ends.add(end)
        try:
            yield
        finally:
            ends.discard(end)
            if not ends and self._ends.get(name) is ends:
                del self._ends[name]

    def end(self, name: str) -> None:
        for end in list(self._ends.get(name, ())):
            end()
