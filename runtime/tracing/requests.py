"""Spans of HTTP requests, and of the statements that write for several of them."""

import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from runtime.tracing.contexts import TraceContext
from runtime.tracing.spans import Span, SpanKind, Tracer

# Default limit of OpenTelemetry for the links of a span.
MOST_LINKS: Final = 128


class RequestTrace(NamedTuple):
    """Span of the request that is answered. Its ``context`` goes on to what the request submits."""

    tracer: Tracer
    context: TraceContext
    parent: TraceContext | None


def begin_request(tracer: Tracer, sent: TraceContext | None) -> RequestTrace:
    return RequestTrace(tracer, tracer.start(sent), sent)


def end_request(
    trace: RequestTrace, method: str, route: str, status: int, seconds: float, names: Mapping[str, str]
) -> None:
    """End the span of a request that took so many seconds until now."""
    if not trace.context.sampled:
        return
    ended = time.time_ns()
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        **{f"coordinator.{name.removesuffix('_id')}.id": value for name, value in names.items()},
    }
    trace.tracer.end(
        Span(
            f"{method} {route}",
            SpanKind.SERVER,
            trace.context,
            trace.parent,
            ended - int(seconds * 1e9),
            ended,
            attributes,
            error=f"HTTP {status}" if status >= 500 else None,
        )
    )


def end_statement(verb: str, traces: Sequence[RequestTrace], items: int, seconds: float) -> None:
    """End the span of a transaction that wrote so many items; its links name the sampled requests, 128 at most.

    It belongs to the trace of the first of them, so that a request which was alone shows it.
    """
    served = list({trace.context: trace for trace in traces if trace.context.sampled}.values())
    if not served:
        return
    first, ended = served[0], time.time_ns()
    first.tracer.end(
        Span(
            verb,
            SpanKind.CLIENT,
            first.context.child(),
            first.context,
            ended - int(seconds * 1e9),
            ended,
            {"db.system.name": "postgresql", "db.operation.name": verb, "db.operation.batch.size": items},
            [trace.context for trace in served[:MOST_LINKS]],
        )
    )
