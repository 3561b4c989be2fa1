from collections.abc import Callable
from typing import Any, Final, TypeAlias

from runtime import metrics
from runtime.logs import log

# Key of ``Connection.info``; models/core/facts.py notes under the same one, and cannot be imported from here.
NOTED: Final = "coordinator.facts"
# Name, labels, number and ids of a fact.
Fact: TypeAlias = tuple[str, tuple[str, ...], float | None, dict[str, str | None] | None]

logger = log(__name__)


def _submitted(labels: tuple[str, ...]) -> Callable[[float | None], None]:
    counter = metrics.RUNS_SUBMITTED.labels(*labels)
    return lambda number: counter.inc(number or 0)


def _ended(labels: tuple[str, ...]) -> Callable[[float | None], None]:
    counter, duration = metrics.RUNS_ENDED.labels(*labels), metrics.RUN_DURATION.labels(labels[0])

    def count(seconds: float | None) -> None:
        counter.inc()
        if seconds is not None:
            duration.observe(seconds)

    return count


def _requeued(labels: tuple[str, ...]) -> Callable[[float | None], None]:
    counter = metrics.RUNS_REQUEUED.labels(*labels)
    return lambda _: counter.inc()


def _delivered(_: tuple[str, ...]) -> Callable[[float | None], None]:
    return _observe(metrics.DELIVERY_SECONDS.observe)


def _started(_: tuple[str, ...]) -> Callable[[float | None], None]:
    return _observe(metrics.START_SECONDS.observe)


def _observe(observe: Callable[[float], None]) -> Callable[[float | None], None]:
    return lambda seconds: None if seconds is None else observe(seconds)


_COUNT: Final = {
    "submitted": _submitted,
    "delivered": _delivered,
    "started": _started,
    "ended": _ended,
    "requeued": _requeued,
}
NAMES: Final = frozenset(_COUNT)
_SAY: Final = {"ended": "run ended by the coordinator", "requeued": "run requeued"}
# Look up each label set once: `labels()` costs more than counting.
_bound: dict[tuple[str, tuple[str, ...]], Callable[[float | None], None]] = {}


def begin_facts(info: dict[Any, Any]) -> list[Fact]:
    """Have facts noted on a connection from here on; return the list that will hold them."""
    noted: list[Fact] = []
    info[NOTED] = noted
    return noted


def count_facts(noted: list[Fact]) -> None:
    """Count committed facts; log those about a run that the coordinator itself ended or took back."""
    for name, labels, number, about in noted:
        count = _bound.get((name, labels))
        if count is None:
            count = _bound[name, labels] = _COUNT[name](labels)
        count(number)
        if about is not None:
            logger.info(_SAY[name], cause=labels[-1], **about)
