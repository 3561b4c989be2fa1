"""Check that log lines of ours and of libraries have one format."""

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import structlog

from coordinator_client.runner_loop.event_log import EventLog
from runtime.logs import configure_logs, log
from runtime.settings import Settings


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore the logging configuration, which belongs to the process, after each test."""
    root = logging.getLogger()
    handlers, level, ours = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = False
    structlog.configure(**ours)


def lines(stream: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _failing(text: str) -> Iterator[None]:
    yield from ()
    raise ValueError(text)


def configured(**settings: Any) -> StringIO:
    stream = StringIO()
    configure_logs(Settings(**settings), process="web-1", stream=stream)
    return stream


def test_json_line_has_event_keys_level_time_and_process() -> None:
    stream = configured(log_format="json")
    log("app.polls.held").info("claimed", run_id="run_1")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    expected = {
        "event": "claimed",
        "run_id": "run_1",
        "level": "info",
        "logger": "app.polls.held",
        "process": "web-1",
    }
    assert line == expected


def test_fields_of_the_client_library_are_fields() -> None:
    """Write lines of the runner's loop, which knows no structlog, as our own."""
    stream = configured(log_format="json")
    EventLog("coordinator_client.runner").error("lost", exc_info=ValueError("x"), run_id="run_1")
    (line,) = lines(stream)
    assert (line["event"], line["run_id"], line["level"]) == ("lost", "run_1", "error")
    assert line["exception"] == "ValueError: x"


def test_library_lines_share_our_format_and_are_printed_once() -> None:
    """Uvicorn and dramatiq bring handlers of their own, which would print twice."""
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(StringIO()))
    stream = configured(log_format="json")
    logging.getLogger("uvicorn.error").info("Started %s", "here")
    logging.getLogger("dramatiq.worker").warning("slow")
    assert [(line["event"], line["process"]) for line in lines(stream)] == [
        ("Started here", "web-1"),
        ("slow", "web-1"),
    ]


def test_access_log_is_off() -> None:
    stream = configured(log_format="json")
    logging.getLogger("uvicorn.access").info("GET /runner/runs")
    assert lines(stream) == []


def test_exception_stays_on_its_line() -> None:
    """Log collectors must not split a traceback into forty events."""
    stream = configured(log_format="json")
    try:
        json.loads("lost")
    except ValueError:
        log("x").exception("failed")
    (line,) = lines(stream)
    assert "JSONDecodeError" in line["exception"]


def test_log_level_applies_to_all_loggers() -> None:
    stream = configured(log_format="json", log_level="warning")
    log("x").info("quiet")
    logging.getLogger("uvicorn.error").info("quiet")
    log("x").warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_unencodable_text_is_logged() -> None:
    """Clients may send lone surrogates."""
    stream = configured(log_format="json")
    log("x").info("odd", text="\ud800\x00")
    assert lines(stream)[0]["text"] == "\ud800\x00"


@pytest.mark.parametrize("logger", ["runner", "dramatiq.worker"])
def test_console_lines_hold_no_foreign_control_codes(logger: str) -> None:
    """Neither text of a job nor a traceback may steer the terminal or begin a line."""
    stream = configured(log_format="console")
    hostile = "a\x1b]0;mine\x07\x9b2J\u202e\n2026-01-01 [info] forged"
    logging.getLogger(logger).warning("refused: %s", hostile)
    log(logger).warning("refused", reason=hostile, causes=[hostile], error=ValueError(hostile))
    try:
        next(_failing(hostile))
    except ValueError:
        log(logger).exception("failed")
    text = stream.getvalue()
    assert not set("\x1b\x07\x9b\u202e") & set(text)
    assert text.count("a\ufffd]0;mine") >= 3
    before_the_traceback = text.partition("Traceback")[0].splitlines()
    assert len(before_the_traceback) == 3


def test_console_lines_are_coloured_on_terminals_only() -> None:
    stream = configured(log_format="console")
    log("x").info("claimed", run_id="run_1")
    assert "claimed" in stream.getvalue()
    assert "run_id=run_1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
