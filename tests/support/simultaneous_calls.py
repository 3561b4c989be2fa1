"""Call verbs at the same moment, each in a thread and a transaction of its own."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from runtime.postgres import LOCK_TIMEOUT, is_retryable, sqlstate
from tests.support.contenders import run_in_threads
from tests.support.db_verbs import DbVerbs

T = TypeVar("T")


def call_together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return the results of the calls in their order; all begin when the last thread is ready."""
    return run_in_threads(len(calls), lambda place: calls[place]())


def verb_call(
    db: DbVerbs, verb: Callable[..., Sequence[Any]], *items: Any, repeats: int = 1
) -> Callable[[], Sequence[Any]]:
    """Build a call of a verb as the web and its clients make it, with the same items each time.

    The web repeats it once when the database asks for that (`repeats`); a client repeats it after a lock timeout, which
    on a busy machine proves nothing.
    """
    return partial(_until_decided, db, verb, items, repeats)


def _until_decided(
    db: DbVerbs, verb: Callable[..., Sequence[Any]], items: Sequence[Any], repeats: int
) -> Sequence[Any]:
    waits = 20
    while True:
        try:
            return db.do(verb, items)
        except Exception as fault:
            if sqlstate(fault) == LOCK_TIMEOUT and waits:
                waits -= 1
            elif is_retryable(fault) and repeats:
                repeats -= 1
            else:
                raise
