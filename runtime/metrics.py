from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

# The time at which a series was made doubles the number of series, and no question needs it.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client annotates it not

_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SHORT = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
_WAITS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
_RUNS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

REQUESTS = Counter("coordinator_http_requests", "Requests answered", ["method", "route", "status"])
ACCEPTING_PAUSED = Counter("coordinator_accepting_paused", "Times that a process reached its connection limit")
REQUEST_SECONDS = Histogram(
    "coordinator_http_request_seconds", "Time to the first byte of requests that are not held", ["route"], buckets=_FAST
)

RUNS_SUBMITTED = Counter("coordinator_runs_submitted", "Runs that this process wrote", ["type"])
# cause: reported, stopped, no_match, lost, timeout, never_started
RUNS_ENDED = Counter("coordinator_runs_ended", "Runs whose end this process wrote", ["outcome", "cause"])
# cause: lost, timeout, claim (not delivered), start (delivered, not started), released (given back by its runner)
RUNS_REQUEUED = Counter("coordinator_runs_requeued", "Runs that this process returned to pending", ["cause"])
# source: as of claims
RUN_WAIT = Histogram(
    "coordinator_run_wait_seconds", "Time from ready to claimed, of runs claimed here", ["source"], buckets=_WAITS
)
DELIVERY_SECONDS = Histogram(
    "coordinator_delivery_seconds", "Time from a claim by a worker to its delivery here", buckets=_SHORT
)
START_SECONDS = Histogram("coordinator_start_seconds", "Time from delivered to started", buckets=_SHORT)
RUN_DURATION = Histogram("coordinator_run_duration_seconds", "Time from started to ended", ["outcome"], buckets=_RUNS)
# reason: stale_claim, invalid_transition
REPORTS_REFUSED = Counter("coordinator_reports_refused", "Reports of runners that changed nothing", ["reason"])

BATCH_ITEMS = Histogram("coordinator_batch_items", "Items in one transaction", ["verb"], buckets=_SIZES)
BATCH_SECONDS = Histogram(
    "coordinator_batch_seconds", "Duration of one transaction, commit included", ["verb"], buckets=_FAST
)
# outcome: repeated, bisected, unavailable
BATCH_TROUBLES = Counter(
    "coordinator_batch_troubles", "Batches that were repeated, bisected or unavailable", ["verb", "outcome"]
)
REPORTS_HELD = Gauge("coordinator_reports_held", "Reports held while Postgres is away")

# source: poll, parked, woken, recheck, dispatch
CLAIMS = Counter("coordinator_claims", "Runs claimed, by source", ["source"])
CLAIM_SECONDS = Histogram("coordinator_claim_seconds", "Duration of one claim pass", ["source"], buckets=_FAST)
POLLS_HELD = Gauge("coordinator_polls_parked", "Polls of runners held by this process")
# kind: the deadline that passed
EXPIRED = Counter("coordinator_expired", "Rows that expiry ended or requeued", ["kind"])
PARENTS_RESUMED = Counter("coordinator_parents_resumed", "Callback runs that resume parents")
# action: stop, delete, replay
BULK_RUNS = Counter("coordinator_bulk_runs", "Runs on which a bulk acted", ["action"])
# outcome: submitted, skipped, buffered (counted again when it ends), missed, failed
SCHEDULE_FIRES = Counter("coordinator_schedule_fires", "Decisions on fires of schedules", ["outcome"])
SCHEDULE_LATENESS = Histogram(
    "coordinator_schedule_lateness_seconds", "Time from when a fire was due to its decision", buckets=_WAITS
)

# outcome: delivered, retried, failed (for good), superseded (recorded too late: sent again by another process)
WEBHOOK_DELIVERIES = Counter("coordinator_webhook_deliveries", "Attempts to send a message to a webhook", ["outcome"])
WEBHOOK_SECONDS = Histogram("coordinator_webhook_attempt_seconds", "Duration of an attempt", buckets=_SHORT)

# outcome: sent, failed, coalesced
WAKEUPS = Counter("coordinator_rings", "Wake-ups sent to Redis", ["bell", "outcome"])
# outcome: sent, failed
POLL_WAKEUPS = Counter("coordinator_poll_wakeups", "Runners whose parked polls were woken through Redis", ["outcome"])
# outcome: woken, sent; given to dispatch: in vain, none waits, failed, not looked for
SUBMISSION_WAKEUPS = Counter(
    "coordinator_submission_wakeups", "Submitted runs for which a parked poll was woken or looked for", ["outcome"]
)
# by: commits (fast path of web processes), reader (of a web process, in place of workers), actor
SEQUENCED = Counter("coordinator_events_sequenced", "Events that this process numbered", ["by"])
# outcome: numbered, empty, busy (another process was numbering), failed
NUMBERING_PASSES = Counter(
    "coordinator_numbering_passes", "Passes of numbering after commits of this web process", ["outcome"]
)

STREAMS = Gauge("coordinator_streams", "Streams of the feed in this process")
# reason: lifetime, drain, limit (of the caller), revoked (credential), slow (the client does not read)
STREAM_CUTS = Counter("coordinator_stream_cuts", "Streams that this process ended", ["reason"])
CATCH_UP_PAGES = Counter("coordinator_feed_catchup_pages", "Pages read for clients behind the events kept in memory")
READER_LAG_EVENTS = Gauge("coordinator_feed_reader_lag_events", "Announced positions that the reader has not read")
READER_LAG_SECONDS = Gauge("coordinator_feed_reader_lag_seconds", "Time for which the reader is behind")
FRAMES_SENT = Counter("coordinator_frames_sent", "Events sent to clients of the feed")
# reason: malformed, epoch, ahead, expired
RESETS = Counter("coordinator_feed_resets", "Clients whose cursor could not be resumed", ["reason"])

# outcome: done, failed
ACTOR_SECONDS = Histogram(
    "coordinator_actor_duration_seconds", "Duration of one run of an actor", ["actor", "outcome"], buckets=_FAST
)
ACTOR_QUEUE = Gauge("coordinator_actor_queue_messages", "Messages that wait for a worker", ["queue"])

BATCH_QUEUE = Gauge("coordinator_batch_queue_items", "Items that wait for the next transaction", ["verb"])
# state: in_use, idle
POOL_CONNECTIONS = Gauge("coordinator_db_pool_connections", "Connections to Postgres", ["pool", "state"])
# dependency: postgres, redis
DEPENDENCY_UP = Gauge("coordinator_dependency_up", "1 if this process can use it, else 0", ["dependency"])
DEPENDENCY_FAILURES = Counter("coordinator_dependency_failures", "Calls that found it away", ["dependency"])
DEPENDENCY_SECONDS = Histogram(
    "coordinator_dependency_seconds", "Round trip of the regular check", ["dependency"], buckets=_FAST
)
# outcome: exported, lost (the collector did not take them)
SPANS = Counter("coordinator_trace_spans", "Spans handed to the exporter of traces", ["outcome"])
LOOP_LAG = Histogram("coordinator_event_loop_lag_seconds", "Delay of a timer of the event loop", buckets=_FAST)
BUILD_INFO = Gauge("coordinator_build_info", "Version, and the schema revision that it needs", ["version", "schema"])

_before_render: list[Callable[[], None]] = []


def before_render(refresh: Callable[[], None]) -> Callable[[], None]:
    """Have gauges set by ``refresh`` before each answer to a scraper; return what ends that."""
    _before_render.append(refresh)
    return lambda: _before_render.remove(refresh)


def set_build(schema: str) -> None:
    BUILD_INFO.labels(version("coordinator"), schema).set(1)


def render() -> tuple[bytes, str]:
    for refresh in _before_render:
        refresh()
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
