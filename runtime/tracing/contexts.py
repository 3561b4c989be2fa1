"""Trace contexts as W3C Trace Context writes them, and the spans that belong to a run by its id."""

import hashlib
import os
import re
from typing import Final, NamedTuple

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


# A tuple is made in a third of the time that a frozen dataclass takes.
class TraceContext(NamedTuple):
    """Span of a trace, ids in hex: 32 and 16 digits. ``sampled``: its spans are exported."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self, span_id: str | None = None) -> "TraceContext":
        return TraceContext(self.trace_id, span_id or new_span_id(), self.sampled)


def new_ids() -> tuple[str, str]:
    """Return the ids of a new trace and of its first span."""
    ids = os.urandom(24).hex()
    return ids[:32], ids[32:]


def new_span_id() -> str:
    return os.urandom(8).hex()


def parse_traceparent(value: str) -> TraceContext | None:
    """Return the context that the text names, None if it names none. A later version may add fields at its end."""
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))


def run_span_id(run_id: str) -> str:
    """Return the id of a run's span. Derived, since nothing is kept of a span until the run has ended."""
    return _derived(f"{run_id} run")


def execution_span_id(run_id: str, attempt: int) -> str:
    return _derived(f"{run_id} execution {attempt}")


def execution_traceparent(traceparent: str | None, run_id: str, attempt: int) -> str | None:
    """Return the context that a job continues: the span of this attempt, in the trace of the run's submission."""
    submitted = None if traceparent is None else parse_traceparent(traceparent)
    return None if submitted is None else submitted.child(execution_span_id(run_id, attempt)).traceparent


def _derived(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
