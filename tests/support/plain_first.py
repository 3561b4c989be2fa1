"""Verbs as group commit calls them: items of the plain case in one statement, the others in a transaction."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from models.core.plain import NOT_PLAIN, NotPlain
from runtime.postgres import autocommit


class PlainFirst:
    """Verb with a statement of its plain case in front; ``answered`` counts the items that the statement answered."""

    def __init__(self, plain: Callable[..., list[Any]], verb: Callable[..., list[Any]]) -> None:
        self._plain = plain
        self._verb = verb
        self.answered = 0

    def __call__(self, conn: Connection, items: Sequence[Any]) -> list[Any]:
        with autocommit(conn.engine) as own:
            results = self._plain(own, items)
        rest = [item for item, result in zip(items, results, strict=True) if result is NOT_PLAIN]
        self.answered += len(items) - len(rest)
        others = iter(self._verb(conn, rest) if rest else [])
        return [next(others) if isinstance(result, NotPlain) else result for result in results]
