"""Spans as the rest of the code describes them, without OpenTelemetry, which is imported only while tracing is on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from runtime.tracing.contexts import TraceContext


class SpanKind(StrEnum):
    SERVER = "server"
    CLIENT = "client"
    CONSUMER = "consumer"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Span:
    """Finished span; times in nanoseconds since the epoch. ``error`` is why it failed."""

    name: str
    kind: SpanKind
    context: TraceContext
    parent: TraceContext | None
    began: int
    ended: int
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    links: Sequence[TraceContext] = ()
    error: str | None = None


class Tracer(ABC):
    """Destination of the spans of one process."""

    @abstractmethod
    def start(self, parent: TraceContext | None) -> TraceContext:
        """Return the context of a new span: in the parent's trace or, without one, in a new one; sampled or not."""

    @abstractmethod
    def end(self, span: Span) -> None:
        """Hand a finished span over to be exported, unless it is not sampled. Never blocks, never raises."""

    @abstractmethod
    def flush(self, seconds: float) -> None:
        """Export what waits, and return when that is done or the time is up."""

    @abstractmethod
    def close(self, seconds: float) -> None:
        """Export what waits, for so many seconds at most; the rest is lost."""
