"""Write the Grafana dashboard, and the table of metrics in docs/observability.md, from the metrics themselves."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prometheus_client.metrics import MetricWrapperBase

from runtime import cluster_metrics, metrics

ROOT: Final = Path(__file__).parent.parent
DASHBOARD: Final = ROOT / "deploy" / "observability" / "dashboard.json"
PAGE: Final = ROOT / "docs" / "observability.md"
BEGIN, END = "<!-- table of metrics -->\n", "<!-- end of table of metrics -->"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS: Final = 24

# Title, unit, and expressions with their legends.
Panel = tuple[str, str, dict[str, str]]


def _rate(name: str, by: str) -> str:
    return f"sum by ({by}) (rate(coordinator_{name}[$__rate_interval]))"


def _cluster(name: str, by: str) -> str:
    return f"max by ({by}) (coordinator_{name})"


def _quantiles(name: str, by: str = "") -> dict[str, str]:
    labels, legend = (f"le, {by}", f" {{{{{by}}}}}") if by else ("le", "")
    buckets = f"sum by ({labels}) (rate(coordinator_{name}_bucket[$__rate_interval]))"
    return {f"histogram_quantile({share}, {buckets})": f"p{share * 100:.0f}{legend}" for share in (0.5, 0.95, 0.99)}


_NOT_COMPLETED: Final = 'coordinator_runs_ended_total{outcome!="completed"}'
_ERRORS: Final = 'coordinator_http_requests_total{status=~"5.."}'

ROWS: Final[dict[str, list[Panel]]] = {
    "Work": [
        ("Ready runs", "short", {_cluster("runs_ready", "profile"): "{{profile}}"}),
        ("Oldest ready run", "s", {_cluster("oldest_ready_age_seconds", "profile"): "{{profile}}"}),
        ("Runs that no live runner can take", "short", {_cluster("runs_unserved", "profile"): "{{profile}}"}),
        (
            "In hand and waiting",
            "short",
            {
                _cluster("runs_in_hand", "state"): "{{state}}",
                _cluster("runs_waiting", "reason"): "waiting: {{reason}}",
            },
        ),
        (
            "Submitted and ended",
            "ops",
            {
                _rate("runs_submitted_total", "type"): "submitted {{type}}",
                _rate("runs_ended_total", "outcome"): "{{outcome}}",
            },
        ),
        (
            "Ends that were not reported as completed",
            "ops",
            {f"sum by (outcome, cause) (rate({_NOT_COMPLETED}[$__rate_interval]))": "{{outcome}}: {{cause}}"},
        ),
        ("Returned to pending", "ops", {_rate("runs_requeued_total", "cause"): "{{cause}}"}),
        ("Reports refused", "ops", {_rate("reports_refused_total", "reason"): "{{reason}}"}),
    ],
    "Latency": [
        ("Ready to claimed", "s", _quantiles("run_wait_seconds")),
        ("Claimed by a worker to delivered", "s", _quantiles("delivery_seconds")),
        ("Delivered to started", "s", _quantiles("start_seconds")),
        ("Duration of runs", "s", _quantiles("run_duration_seconds", "outcome")),
    ],
    "Runners": [
        ("Runners", "short", {_cluster("runners", "state"): "{{state}}"}),
        (
            "Slots",
            "short",
            {
                _cluster("runner_slots", "profile"): "{{profile}}",
                _cluster("runner_slots_used", "profile"): "{{profile}} used",
            },
        ),
        ("Parked polls", "short", {"sum by (instance) (coordinator_polls_parked)": "{{instance}}"}),
        ("Claims", "ops", {_rate("claims_total", "source"): "{{source}}"}),
    ],
    "Feed": [
        ("Streams", "short", {"sum by (instance) (coordinator_streams)": "{{instance}}"}),
        ("Streams ended", "ops", {_rate("stream_cuts_total", "reason"): "{{reason}}"}),
        (
            "Events sent and numbered",
            "ops",
            {_rate("frames_sent_total", "job"): "sent", _rate("events_sequenced_total", "by"): "numbered by {{by}}"},
        ),
        (
            "Oldest event without a position, and lag of readers",
            "s",
            {
                "max(coordinator_feed_oldest_unnumbered_age_seconds)": "without a position",
                "max by (instance) (coordinator_feed_reader_lag_seconds)": "{{instance}}",
            },
        ),
    ],
    "Webhooks": [
        ("Attempts", "ops", {_rate("webhook_deliveries_total", "outcome"): "{{outcome}}"}),
        ("Duration of an attempt", "s", _quantiles("webhook_attempt_seconds")),
        ("Messages that wait", "short", {"max(coordinator_webhook_deliveries_pending)": "pending"}),
        ("Oldest attempt that is due", "s", {"max(coordinator_webhook_oldest_due_age_seconds)": "due"}),
    ],
    "Web": [
        ("Requests", "ops", {_rate("http_requests_total", "route"): "{{route}}"}),
        (
            "Errors",
            "ops",
            {f"sum by (route, status) (rate({_ERRORS}[$__rate_interval]))": "{{status}} {{route}}"},
        ),
        ("Requests that are not held", "s", _quantiles("http_request_seconds")),
        ("Transactions", "s", _quantiles("batch_seconds")),
        ("Items that wait for a transaction", "short", {"sum by (verb) (coordinator_batch_queue_items)": "{{verb}}"}),
        ("Event loop lag", "s", _quantiles("event_loop_lag_seconds")),
    ],
    "Health": [
        (
            "Dependencies",
            "short",
            {"min by (dependency, instance) (coordinator_dependency_up)": "{{dependency}} {{instance}}"},
        ),
        ("Round trips", "s", _quantiles("dependency_seconds", "dependency")),
        (
            "Connections to Postgres in use",
            "short",
            {'sum by (pool) (coordinator_db_pool_connections{state="in_use"})': "{{pool}}"},
        ),
        (
            "Since a worker did each duty",
            "s",
            {"time() - max by (duty) (coordinator_duty_last_success_timestamp_seconds)": "{{duty}}"},
        ),
        (
            "Oldest event that the counts of the history leave out",
            "s",
            {"max(coordinator_stats_lag_seconds)": "not counted"},
        ),
        ("Schedule that is due longest", "s", {"max(coordinator_schedules_late_seconds)": "late"}),
        ("Fires of schedules", "ops", {_rate("schedule_fires_total", "outcome"): "{{outcome}}"}),
        ("From due to decided, fires of schedules", "s", _quantiles("schedule_lateness_seconds")),
        ("Messages that wait for a worker", "short", {_cluster("actor_queue_messages", "queue"): "{{queue}}"}),
        ("Actors", "s", _quantiles("actor_duration_seconds", "actor")),
        ("Dead rows", "short", {_cluster("table_dead_rows", "table"): "{{table}}"}),
        ("Size of tables", "bytes", {_cluster("table_bytes", "table"): "{{table}}"}),
    ],
}


def dashboard() -> dict[str, Any]:
    return {
        "title": "Coordinator",
        "uid": "coordinator",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "tags": ["coordinator"],
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    number = y = 0
    for title, panels in ROWS.items():
        number += 1
        yield {"id": number, "type": "row", "title": title, "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}}
        y += 1
        for place, (name, unit, expressions) in enumerate(panels):
            number += 1
            width, height = 6, 7
            position = {"x": place % 4 * width, "y": y + place // 4 * height, "w": width, "h": height}
            yield {
                "id": number,
                "type": "timeseries",
                "title": name,
                "datasource": SOURCE,
                "gridPos": position,
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
                "targets": [
                    {"refId": chr(ord("A") + at), "expr": expr, "legendFormat": legend, "datasource": SOURCE}
                    for at, (expr, legend) in enumerate(expressions.items())
                ],
            }
        y += (len(panels) + 3) // 4 * 7


@dataclass(frozen=True, slots=True)
class Described:
    """Metric by the name that a scraper sees, and the path that serves it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    path: str


def own_metrics() -> list[Described]:
    """Return all metrics of ours by name."""
    found = []
    for module, path in ((metrics, "/metrics"), (cluster_metrics, "/metrics/cluster")):
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                (family,) = metric.describe()
                name = f"{family.name}_total" if family.type == "counter" else family.name
                labels = tuple(metric._labelnames)  # noqa: SLF001 -- the library shows them no other way
                found.append(Described(name, family.type, labels, family.documentation, path))
    return sorted(found, key=lambda metric: metric.name)


def table() -> str:
    rows = ["| metric | type | labels | meaning | from |", "|---|---|---|---|---|"]
    rows += [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.meaning} | `{metric.path}` |"
        for metric in own_metrics()
    ]
    return "\n".join(rows)


def with_table(page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n\n{END}{after}"


def as_text(board: dict[str, Any]) -> str:
    return json.dumps(board, indent=1) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(as_text(dashboard()))
    PAGE.write_text(with_table(PAGE.read_text()))
