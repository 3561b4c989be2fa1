from importlib import import_module
from importlib.util import find_spec

from runtime.settings import Settings, SettingsError
from runtime.tracing.spans import Tracer


def open_tracer(settings: Settings, process: str) -> Tracer | None:
    """Return the tracer of this process, None while tracing is off: no exporter is imported then."""
    if not settings.tracing:
        return None
    tracer: Tracer | None = import_module("runtime.otel").open_tracer(process)
    return tracer


def need_tracing(settings: Settings) -> None:
    """Raise SettingsError if tracing is on and its extra is not installed, or its variables ask for what is not
    supported.
    """
    if not settings.tracing:
        return
    try:
        there = find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        raise SettingsError("COORDINATOR_TRACING is on, but its extra is not installed: coordinator[otel]")
    import_module("runtime.otel").make_exporter()
