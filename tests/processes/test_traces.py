"""Traces through real processes: a client, two web replicas, a worker, our runner and a collector."""

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator_client.client import CoordinatorClient
from coordinator_client.requests import RunRequest
from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.collector import Collector, Received
from tests.support.command import coordinator
from tests.support.coordination import Coordination

# Submits a child that calls back, and prints the trace that it was given.
JOB = """
import asyncio, json, os, sys
from coordinator_client.client import CoordinatorClient
from coordinator_client.requests import RunRequest
run = json.load(sys.stdin)

async def submit():
    async with CoordinatorClient("SECOND") as coordinator:
        await coordinator.submit(RunRequest(
            parameters={"prompt": "child"},
            parent_session_id=run["session_id"],
            execution_mode="async_callback",
        ))

if run["parameters"]["prompt"] == "parent":
    asyncio.run(submit())
print(json.dumps({"trace": os.environ.get("TRACEPARENT"), "state": os.environ.get("TRACESTATE")}))
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector().serving() as collector:
        yield collector


def traced(cluster: Cluster, collector: Collector, **settings: object) -> tuple[Coordination, str]:
    """Start two web processes and a worker that export traces; return the address of the second, too."""
    cluster.environment = collector.environment
    webs, _ = cluster.start_processes(webs=2, workers=1, tracing=True, **settings)
    cluster.environment = {}
    return Coordination(cluster, webs[0].url), webs[1].url


async def submit(url: str, prompt: str, traceparent: str | None = None) -> tuple[str, str]:
    async with CoordinatorClient(url, traceparent=traceparent) as client:
        submitted = await client.submit(RunRequest(parameters={"prompt": prompt}))
    return submitted["run_id"], submitted["session_id"]


def new_traceparent(flags: str = "01") -> tuple[str, str, str]:
    """Return a traceparent as a client's tracer sends it, its trace and its span."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return f"00-{trace}-{span}-{flags}", trace, span


def ended_runs(coordination: Coordination, session_id: str, number: int) -> list[dict[str, Any]]:
    """Wait until so many runs of the session, and of those it started, have ended; return them, the first first."""

    def ended() -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = coordination.ask("GET", "/runs?limit=100")["runs"]
        own = [run for run in runs if session_id in {run["session_id"], run["parent_session_id"]}]
        return own[::-1] if len(own) == number and all(run["completed_at"] for run in own) else []

    return eventually(ended, 60, what=f"{number} ended runs")


def first_result(coordination: Coordination, session_id: str) -> Any:
    """Return what the first job of the session printed, which is its result."""
    return next(e["result_data"] for e in coordination.events(session_id) if e["event_type"] == "result")


def only(spans: list[Received]) -> Received:
    (span,) = spans
    return span


async def test_one_trace_leads_from_client_to_callback(cluster: Cluster, collector: Collector) -> None:
    """Submit with a trace: the job's child and the callback continue it, over both replicas."""
    coordination, second = traced(cluster, collector)
    coordination.start_python_runner(JOB.replace("SECOND", second), urls=(coordination.url, second))
    traceparent, trace, client_span = new_traceparent()
    _, session_id = await submit(coordination.url, "parent", traceparent)
    parent, child, callback = ended_runs(coordination, session_id, 3)
    assert callback["session_id"] == session_id

    def spans_of(run: dict[str, Any]) -> list[Received]:
        return collector.named("run", coordinator_run_id=run["run_id"])

    eventually(lambda: all(map(spans_of, (parent, child, callback))), what="the spans of all runs")
    whole = {run["run_id"]: only(spans_of(run)) for run in (parent, child, callback)}
    assert {span.trace for span in whole.values()} == {trace}
    assert {span.resource["coordinator.process"] for span in whole.values()} == {"worker"}

    submission = only(collector.named("POST /runs", coordinator_run_id=parent["run_id"]))
    assert (submission.trace, submission.parent, submission.kind) == (trace, client_span, "server")
    assert whole[parent["run_id"]].parent == submission.span
    execution = only(collector.named("execution", coordinator_run_id=parent["run_id"]))
    assert execution.parent == whole[parent["run_id"]].span
    given = first_result(coordination, session_id)
    assert given == {"trace": f"00-{trace}-{execution.span}-01", "state": None}
    child_submission = only(collector.named("POST /runs", coordinator_run_id=child["run_id"]))
    assert (child_submission.trace, child_submission.parent) == (trace, execution.span)
    assert whole[child["run_id"]].parent == child_submission.span
    assert whole[callback["run_id"]].parent == submission.span
    assert {span.trace for span in collector.named("queued")} == {trace}
    assert all(span.began <= span.ended for span in collector.spans)
    # The runner reports in the trace of its run; held requests have no span.
    reports = collector.named("POST /runner/runs/report")
    assert execution.span in {span.parent for span in reports}
    assert not collector.named("GET /runner/runs")
    _check_statement_of(submission, collector)


def _check_statement_of(submission: Received, collector: Collector) -> None:
    written = [span for span in collector.spans if (submission.trace, submission.span) in span.links]
    statement = only([span for span in written if span.name in {"submit_plain", "submit_runs"}])
    assert (statement.parent, statement.kind) == (submission.span, "client")
    assert submission.began <= statement.began <= statement.ended <= submission.ended + 1_000_000


async def test_submission_without_trace_starts_one(cluster: Cluster, collector: Collector) -> None:
    coordination, _ = traced(cluster, collector)
    coordination.start_python_runner(JOB)
    run_id, session_id = await submit(coordination.url, "alone")
    coordination.until(run_id, "completed")
    eventually(lambda: collector.named("run", coordinator_run_id=run_id), what="its span")
    submission = only(collector.named("POST /runs"))
    execution = only(collector.named("execution"))
    assert submission.parent == ""
    assert execution.trace == submission.trace
    assert first_result(coordination, session_id)["trace"] == f"00-{submission.trace}-{execution.span}-01"


async def test_unsampled_trace_goes_on_to_job_and_exports_nothing(cluster: Cluster, collector: Collector) -> None:
    """Honour the flag of the client; a sampled run that ends after it proves that it was passed over."""
    coordination, _ = traced(cluster, collector)
    coordination.start_python_runner(JOB)
    traceparent, trace, _ = new_traceparent("00")
    run_id, session_id = await submit(coordination.url, "quiet", traceparent)
    coordination.until(run_id, "completed")
    later, _ = await submit(coordination.url, "loud")
    coordination.until(later, "completed")
    eventually(lambda: collector.named("run", coordinator_run_id=later), what="the span of the later run")
    assert trace not in {span.trace for span in collector.spans}
    given = first_result(coordination, session_id)["trace"]
    assert re.fullmatch(f"00-{trace}-[0-9a-f]{{16}}-00", given)


async def test_missing_collector_loses_spans_only(cluster: Cluster) -> None:
    """Runs go on, each process says it once, and spans are exported when the collector is there."""
    collector = Collector()
    coordination, _ = traced(cluster, collector)
    coordination.start_python_runner(JOB)
    web = cluster.processes[0]
    for number in range(3):
        run_id, _ = await submit(coordination.url, f"alone {number}")
        coordination.until(run_id, "completed")
    eventually(lambda: "spans not exported" in web.log(), what="the line of the web process")
    with collector.serving():

        def arrived() -> bool:
            coordination.ask("GET", "/runs?limit=1")
            return bool(collector.named("GET /runs")) and bool(collector.named("run"))

        eventually(arrived, 60, every=0.2, what="spans of requests and runs")
    lines = [json.loads(line) for line in web.log().splitlines()]
    assert [line["event"] for line in lines].count("spans not exported") == 1
    assert not [line for line in lines if line["logger"].startswith("opentelemetry")]


async def test_trace_passes_through_while_tracing_is_off(cluster: Cluster) -> None:
    """Hand the client's trace on to the job, without an exporter."""
    web = cluster.start_web()
    coordination = Coordination(cluster, web.url)
    cluster.environment = {"TRACEPARENT": new_traceparent()[0], "TRACESTATE": "of=runner"}
    coordination.start_python_runner(JOB)
    traceparent, trace, span = new_traceparent()
    traced_run, with_trace = await submit(web.url, "alone", traceparent)
    plain_run, without = await submit(web.url, "alone")
    for run_id in (traced_run, plain_run):
        coordination.until(run_id, "completed")
    given = first_result(coordination, with_trace)["trace"]
    assert re.fullmatch(f"00-{trace}-[0-9a-f]{{16}}-01", given)
    assert given != f"00-{trace}-{span}-01"
    # The runner's own trace, with which it was started, is not that of its jobs.
    assert first_result(coordination, without) == {"trace": None, "state": None}


def test_command_submits_into_trace_of_its_environment(cluster: Cluster, collector: Collector) -> None:
    coordination, _ = traced(cluster, collector)
    traceparent, trace, span = new_traceparent()
    done = coordinator("submit", "x", COORDINATOR_URL=coordination.url, TRACEPARENT=traceparent)
    assert done.returncode == 0, done.stderr
    odd = coordinator("submit", "x", COORDINATOR_URL=coordination.url, TRACEPARENT="no trace\u00e9")
    assert odd.returncode == 0, odd.stderr
    eventually(lambda: len(collector.named("POST /runs")) == 2, what="both submissions")
    first, second = sorted(collector.named("POST /runs"), key=lambda span: span.began)
    assert (first.trace, first.parent) == (trace, span)
    assert (second.trace == trace, second.parent) == (False, "")


def test_no_exporter_is_imported_while_tracing_is_off() -> None:
    """Import what web and worker processes import, in a process of its own.

    FastAPI imports the API of OpenTelemetry, and the client of Redis parts of its SDK where that is installed.
    """
    code = (
        "import sys, app.main, workers.main, runner.runner, cli.main\n"
        "from runtime.settings import Settings\n"
        "from runtime.otel_loading import open_tracer\n"
        "app.main.create_app(Settings())\n"
        "assert open_tracer(Settings(), 'web') is None\n"
        "ours = ('opentelemetry.exporter', 'opentelemetry.sdk.trace', 'runtime.otel.')\n"
        "print([name for name in sys.modules if f'{name}.'.startswith(ours)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: must be otlp, console or none, not zipkin"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "only http/protobuf is supported, not grpc"),
    ],
)
@pytest.mark.parametrize("command", ["web", "worker"])
def test_exporter_that_is_not_supported_is_refused_at_start(
    command: str, variables: dict[str, str], complaint: str
) -> None:
    servers = {"DATABASE_URL": "postgresql://u@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0"}
    done = coordinator(command, COORDINATOR_TRACING="1", **servers, **variables)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert complaint in done.stderr


def test_switched_off_sdk_and_exporter_serve_without_traces(cluster: Cluster) -> None:
    cluster.environment = {"OTEL_SDK_DISABLED": "true"}
    first = cluster.start_web(tracing=True)
    cluster.environment = {"OTEL_TRACES_EXPORTER": "none"}
    second = cluster.start_web(tracing=True)
    for web in (first, second):
        assert Coordination(cluster, web.url).ask("GET", "/runs?limit=1")["runs"] == []
        # On a crowded machine Redis may answer the first look of a process late.
        lines = [line for line in web.log().splitlines() if "runtime.redis_probe" not in line]
        assert not [line for line in lines if re.search('"level": "(warning|error)"', line)]
