import threading
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine

T = TypeVar("T")


class PerEngine(Generic[T]):
    """Keep one object for each database, made when a connection to it first asks. Safe in threads."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._of: WeakKeyDictionary[Engine, T] = WeakKeyDictionary()

    def __call__(self, conn: Connection) -> T:
        with self._lock:
            found = self._of.get(conn.engine)
            if found is None:
                found = self._of[conn.engine] = self._make()
            return found
