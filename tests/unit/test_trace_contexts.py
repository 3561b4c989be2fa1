"""Check the reading of trace contexts against the rules of W3C Trace Context."""

import pytest

from app.application import UNTRACED
from app.main import create_app
from coordinator_client.trace_context import checked_traceparent
from runtime.settings import Settings
from runtime.tracing.contexts import TraceContext, execution_traceparent, new_ids, parse_traceparent, run_span_id

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("sent", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-fe", False),
        # A later version may add fields.
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes", True),
    ],
)
def test_valid_traceparent_is_read(sent: str, *, sampled: bool) -> None:
    assert parse_traceparent(sent) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "x",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        "00-" + "\u0661" * 32 + f"-{SPAN}-01",
        "0" * 100_000,
    ],
)
def test_malformed_traceparent_is_none(sent: str) -> None:
    assert parse_traceparent(sent) is None
    assert checked_traceparent(sent) is None


def test_contexts_are_written_as_they_are_read() -> None:
    for context in (TraceContext(*new_ids(), sampled=True), TraceContext(*new_ids(), sampled=False)):
        assert parse_traceparent(context.traceparent) == context
        assert checked_traceparent(context.traceparent) == context.traceparent
        assert context.child().trace_id == context.trace_id
        assert context.child().span_id != context.span_id


def test_spans_of_run_have_ids_of_their_own() -> None:
    """Each attempt is a span, known before anything of it is exported."""
    submitted = f"00-{TRACE}-{SPAN}-01"
    first, second = (execution_traceparent(submitted, "run_1", attempt) for attempt in (1, 2))
    other = execution_traceparent(submitted, "run_2", 1)
    assert len({first, second, other, f"00-{TRACE}-{run_span_id('run_1')}-01", submitted}) == 5
    assert first == execution_traceparent(submitted, "run_1", 1)
    assert execution_traceparent(None, "run_1", 1) is None
    assert execution_traceparent("broken", "run_1", 1) is None


def test_untraced_paths_are_paths_of_routes() -> None:
    assert {getattr(route, "path", "") for route in create_app(Settings()).routes} >= UNTRACED
