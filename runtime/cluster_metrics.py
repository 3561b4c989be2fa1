"""Metrics of the whole installation, from Postgres: the same in each process that serves them, so never summed."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

CLUSTER = CollectorRegistry()


def _gauge(name: str, description: str, *labels: str) -> Gauge:
    return Gauge(f"coordinator_{name}", description, labels, registry=CLUSTER)


# profile: short name of the demands
RUNS_READY = _gauge("runs_ready", "Runs that a runner may take now", "profile")
OLDEST_READY = _gauge("oldest_ready_age_seconds", "Time for which the oldest of them has been ready", "profile")
RUNS_UNSERVED = _gauge("runs_unserved", "Ready runs whose demands no live runner satisfies", "profile")
# reason: delayed (not_before), session (an earlier run or a stop of it is open), held (a hold applies)
RUNS_WAITING = _gauge("runs_waiting", "Pending runs that are not ready", "reason")
# state: claimed, running, stopping
RUNS_IN_HAND = _gauge("runs_in_hand", "Runs that a runner has", "state")
# state: online, draining, stale, lost
RUNNERS = _gauge("runners", "Runners that have not left", "state")
# profile: executor profile of the runners
RUNNER_SLOTS = _gauge("runner_slots", "Runs that online runners with a capacity can have at once", "profile")
RUNNER_SLOTS_USED = _gauge("runner_slots_used", "Runs that these runners have", "profile")
FEED_UNNUMBERED = _gauge("feed_unnumbered_events", "Events without a position, which no client can see yet")
FEED_OLDEST = _gauge("feed_oldest_unnumbered_age_seconds", "Age of the oldest of them")
FEED_HEAD = _gauge("feed_head_position", "Position of the newest event")
FEED_FLOOR = _gauge("feed_floor_position", "Position up to which retention has dropped events")
STATS_LAG = _gauge("stats_lag_seconds", "Age of the oldest event that the counts of the history leave out")
SCHEDULES_LATE = _gauge("schedules_late_seconds", "Time since the schedule that is due longest was to be decided")
WEBHOOKS_PENDING = _gauge("webhook_deliveries_pending", "Messages to webhooks in use that wait or are being sent")
WEBHOOKS_OLDEST = _gauge("webhook_oldest_due_age_seconds", "Time for which the oldest attempt has been due")
DUTY_LAST = _gauge("duty_last_success_timestamp_seconds", "Unix time at which a worker did the duty last", "duty")
# kind: expiry, web, runners
OUTAGES = _gauge("outages_last_day", "Own outages that ended in the last 24 h", "kind")
OUTAGE_SECONDS = _gauge("outage_seconds_last_day", "Duration of these outages", "kind")
TABLE_DEAD_ROWS = _gauge("table_dead_rows", "Dead rows of a table, as Postgres estimates", "table")
TABLE_BYTES = _gauge("table_bytes", "Size of a table with its indexes", "table")
SNAPSHOT_AGE = _gauge("cluster_snapshot_age_seconds", "Age of these values; infinite before the first")
SNAPSHOT_SECONDS = _gauge("cluster_snapshot_seconds", "Time that it took to read them")

BY_LABEL = (
    RUNS_READY,
    OLDEST_READY,
    RUNS_UNSERVED,
    RUNS_WAITING,
    RUNS_IN_HAND,
    RUNNERS,
    RUNNER_SLOTS,
    RUNNER_SLOTS_USED,
    DUTY_LAST,
    OUTAGES,
    OUTAGE_SECONDS,
)


def render_cluster() -> tuple[bytes, str]:
    return generate_latest(CLUSTER), CONTENT_TYPE_LATEST
