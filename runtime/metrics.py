"""Define the metrics of a process, read by Prometheus from /metrics, each named once."""

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

REQUESTS = Counter("coordinator_http_requests", "Requests answered", ["method", "route", "status"])
ACCEPTING_PAUSED = Counter("coordinator_accepting_paused", "Times that a process reached its connection limit")
REQUEST_SECONDS = Histogram("coordinator_http_request_seconds", "Time to the first byte", ["route"], buckets=_FAST)

BATCH_ITEMS = Histogram("coordinator_batch_items", "Items in one transaction", ["verb"], buckets=_SIZES)
BATCH_SECONDS = Histogram(
    "coordinator_batch_seconds", "Duration of one transaction, commit included", ["verb"], buckets=_FAST
)
# outcome: repeated, bisected, unavailable
BATCH_TROUBLES = Counter(
    "coordinator_batch_troubles", "Batches that were repeated, bisected or unavailable", ["verb", "outcome"]
)
REPORTS_HELD = Gauge("coordinator_reports_held", "Reports held while Postgres is away")

# source: poll, parked, recheck, dispatch
CLAIMS = Counter("coordinator_claims", "Runs claimed, by source", ["source"])
CLAIM_SECONDS = Histogram("coordinator_claim_seconds", "Duration of one claim pass", ["source"], buckets=_FAST)
POLLS_HELD = Gauge("coordinator_polls_parked", "Polls of runners held by this process")
# kind: the deadline that passed
EXPIRED = Counter("coordinator_expired", "Rows that expiry ended or requeued", ["kind"])
PARENTS_RESUMED = Counter("coordinator_parents_resumed", "Callback runs that resume parents")

# outcome: sent, failed, coalesced
WAKEUPS = Counter("coordinator_rings", "Wake-ups sent to Redis", ["bell", "outcome"])
# outcome: sent, failed
POLL_WAKEUPS = Counter("coordinator_poll_wakeups", "Runners whose parked polls were woken through Redis", ["outcome"])
SEQUENCED = Counter("coordinator_events_sequenced", "Events that this process numbered")

STREAMS = Gauge("coordinator_streams", "Streams of the feed in this process")
FRAMES_SENT = Counter("coordinator_frames_sent", "Events sent to clients of the feed")
# reason: malformed, epoch, ahead, expired
RESETS = Counter("coordinator_feed_resets", "Clients whose cursor could not be resumed", ["reason"])

# outcome: done, failed
ACTOR_SECONDS = Histogram(
    "coordinator_actor_seconds", "Duration of one run of an actor", ["actor", "outcome"], buckets=_FAST
)


def render() -> tuple[bytes, str]:
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
