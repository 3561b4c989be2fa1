from typing import Final

from starlette.types import Scope

from runtime import logs
from runtime.tracing.contexts import TraceContext, parse_traceparent

TRACEPARENT: Final = b"traceparent"


def sent_context(scope: Scope) -> TraceContext | None:
    """Return the trace context that the client sent; None without one, or for one that W3C Trace Context ignores."""
    sent = [value for key, value in scope["headers"] if key == TRACEPARENT]
    return parse_traceparent(sent[0].decode("latin-1").strip()) if len(sent) == 1 else None


def traceparent_of(scope: Scope) -> str | None:
    """Return the context that a submission continues: its request's span or, while tracing is off, the client's."""
    answered = logs.request.get()
    trace = None if answered is None else answered.trace
    context = sent_context(scope) if trace is None else trace.context
    return None if context is None else context.traceparent
