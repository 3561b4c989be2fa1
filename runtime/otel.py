"""Export spans by OpenTelemetry: its variables OTEL_* decide where to, how many and with which resource."""

import os
import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from runtime.logs import log, silence
from runtime.metrics import SPANS
from runtime.settings import SettingsError
from runtime.tracing.contexts import TraceContext, new_ids, new_span_id
from runtime.tracing.spans import Span, SpanKind, Tracer

PROTOCOL: Final = "http/protobuf"
# Write lines of their own for each batch that a collector does not take, and for each span that finds the queue full.
_LOUD: Final = ("opentelemetry.exporter.otlp", "opentelemetry.sdk._shared_internal", "opentelemetry.sdk.trace.export")
_KINDS: Final = {
    SpanKind.SERVER: api.SpanKind.SERVER,
    SpanKind.CLIENT: api.SpanKind.CLIENT,
    SpanKind.CONSUMER: api.SpanKind.CONSUMER,
    SpanKind.INTERNAL: api.SpanKind.INTERNAL,
}

logger = log(__name__)


class OpenTelemetryTracer(Tracer):
    """Tracer that exports in batches, on a thread of its own. Spans that no collector takes in time are dropped."""

    def __init__(self, resource: Resource, exporter: SpanExporter) -> None:
        # Reads OTEL_TRACES_SAMPLER.
        self._sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler
        self._resource = resource
        self._scope = InstrumentationScope("coordinator", version("coordinator"))
        self._processor = BatchSpanProcessor(_NotedExporter(exporter))

    def start(self, parent: TraceContext | None) -> TraceContext:
        if parent is None:
            trace_id, span_id = new_ids()
            remote = None
        else:
            trace_id, span_id = parent.trace_id, new_span_id()
            remote = api.set_span_in_context(api.NonRecordingSpan(_span_context(parent, is_remote=True)))
        decided = self._sampler.should_sample(remote, int(trace_id, 16), "request")
        return TraceContext(trace_id, span_id, decided.decision is Decision.RECORD_AND_SAMPLE)

    def end(self, span: Span) -> None:
        if not span.context.sampled:
            return
        code = api.StatusCode.UNSET if span.error is None else api.StatusCode.ERROR
        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=_span_context(span.context),
                parent=None if span.parent is None else _span_context(span.parent),
                resource=self._resource,
                attributes=dict(span.attributes),
                links=[api.Link(_span_context(linked)) for linked in span.links],
                kind=_KINDS[span.kind],
                status=api.Status(code, span.error),
                start_time=span.began,
                end_time=span.ended,
                instrumentation_scope=self._scope,
            )
        )

    def flush(self, seconds: float) -> None:
        self._processor.force_flush(int(seconds * 1000))

    def close(self, seconds: float) -> None:
        # The exporter may wait for a collector for longer than a process has to end.
        closing = threading.Thread(target=self._processor.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(seconds)


class _NotedExporter(SpanExporter):
    """Exporter that counts spans and writes a line when a collector stops or begins to take them."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._works = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        cause = "refused, or not reachable"
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 -- a collector's fault must end nothing here
            result, cause = SpanExportResult.FAILURE, str(error)
        works = result is SpanExportResult.SUCCESS
        SPANS.labels("exported" if works else "lost").inc(len(spans))
        if works is not self._works:
            if works:
                logger.info("spans are exported again")
            else:
                logger.warning("spans not exported", spans=len(spans), cause=cause)
        self._works = works
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def open_tracer(process: str) -> Tracer | None:
    """Return the tracer of this process, `web` or `worker`; None if OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER=none."""
    exporter = make_exporter()
    if exporter is None or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    for name in _LOUD:
        silence(name)
    own = Resource.create({"service.name": "coordinator", "coordinator.process": process})
    # Variables go before what we say: `merge` keeps those of its argument.
    return OpenTelemetryTracer(own.merge(OTELResourceDetector().detect()), exporter)


def make_exporter() -> SpanExporter | None:
    """Return the exporter that the variables ask for, None for none. Raises SettingsError for one not supported."""
    match os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp":
        case "otlp":
            for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
                asked = os.environ.get(name, "").strip()
                if asked and asked != PROTOCOL:
                    raise SettingsError(f"{name}: only {PROTOCOL} is supported, not {asked}")
            return OTLPSpanExporter()
        case "console":
            return ConsoleSpanExporter()
        case "none":
            return None
        case other:
            raise SettingsError(f"OTEL_TRACES_EXPORTER: must be otlp, console or none, not {other}")


def _span_context(context: TraceContext, *, is_remote: bool = False) -> api.SpanContext:
    flags = api.TraceFlags(context.sampled)
    return api.SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote=is_remote, trace_flags=flags)
