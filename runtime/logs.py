import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from io import StringIO
from typing import Final, TextIO

import structlog
from structlog.typing import Processor

from runtime.printable import printable, printable_line
from runtime.settings import Settings
from runtime.tracing.requests import RequestTrace

# Parameters of a path that lines name.
_NAMED: Final = ("run_id", "session_id", "runner_id")
_LONGEST_NAME: Final = 128

# With handlers of their own these libraries would print each line twice, in another format.
_ADOPTED = ("uvicorn", "uvicorn.error", "uvicorn.access", "dramatiq", "alembic")
# Raise the level of loggers that write a line for each HTTP call of the runner or for each connection.
_QUIET = ("httpx", "httpcore", "urllib3", "asyncio", "alembic.runtime.plugins")


class Request:
    """Request that this task answers, as its log lines and its span name it: ids of its path, and those added later."""

    __slots__ = ("names", "request_id", "trace")

    def __init__(self, request_id: bytes) -> None:
        self.request_id = request_id
        self.names: Mapping[str, str] = {}
        self.trace: RequestTrace | None = None

    def named(self) -> dict[str, str]:
        return {name: self.names[name][:_LONGEST_NAME] for name in _NAMED if name in self.names}


# Not a variable of structlog's: to set this one costs a tenth.
request: Final[ContextVar[Request | None]] = ContextVar("request", default=None)


def name_request(**names: str) -> None:
    """Have lines and the span of the request that is answered name a run, a session or a runner."""
    answered = request.get()
    if answered is not None:
        answered.names = {**answered.names, **names}


def configure_logs(settings: Settings, *, process: str, stream: TextIO | None = None) -> None:
    """Send all lines of this process to `stream` (default: stderr), each with `process`. No access log."""
    target = sys.stderr if stream is None else stream
    shared = _shared_processors()
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    handler = logging.StreamHandler(target)
    handler.setFormatter(_formatter(settings, process, shared, colours=target.isatty()))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    _adopt()


def log(name: str) -> structlog.stdlib.BoundLogger:
    """Return a module's logger: `log(__name__).info("claimed", run_id=...)`. The event is constant; values go into
    keys.
    """
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        _add_request,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _add_request(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    answered = request.get()
    if answered is not None:
        event["request_id"] = answered.request_id.decode("ascii")
        for name, value in answered.named().items():
            event.setdefault(name, value)
        if answered.trace is not None:
            event.setdefault("trace_id", answered.trace.context.trace_id)
    return event


def _take_fields(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Write fields of the client library, which knows no structlog, as those of our own lines."""
    record = event.get("_record")
    if isinstance(fields := getattr(record, "event_fields", None), dict):
        event.update(fields, event=getattr(record, "event_name", ""))
    return event


def _formatter(settings: Settings, process: str, shared: list[Processor], *, colours: bool) -> logging.Formatter:
    def name_process(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["process"] = process
        return event

    if settings.log_format == "json":
        rendering: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        rendering = [_make_printable, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=_traceback)]
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_take_fields, *shared], processors=[name_process, remove_meta, *rendering]
    )


def _make_printable(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Make each value one printable line, so that text of a job or a coordinator fakes no log lines or colours."""
    for key, value in event.items():
        if key not in {"exc_info", "exception", "stack"} and not isinstance(value, bool | int | float | None):
            event[key] = printable_line(value if isinstance(value, str) else repr(value))
    for key in {"exception", "stack"} & event.keys():
        event[key] = printable(str(event[key]))
    return event


def _traceback(target: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    text = StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    target.write(printable(text.getvalue()))


def _adopt() -> None:
    for name in _ADOPTED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    logging.getLogger("uvicorn.access").disabled = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def silence(name: str) -> None:
    """Drop the lines of a library, below critical ones, that would say for each item what we say once."""
    logging.getLogger(name).setLevel(logging.CRITICAL)
