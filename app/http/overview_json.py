"""Serialize what an overview shows, as the models of app/schemas define it."""

from dataclasses import asdict
from typing import Any

import orjson

from models.overview.counts import RunCounts
from models.overview.queues import Queues
from models.overview.series import Series
from models.state.runs import iso


def counts_json(counts: RunCounts) -> dict[str, Any]:
    pending = {"ready": counts.ready, "delayed": counts.delayed, "waiting": counts.waiting}
    return {
        "now": {"pending": pending, **counts.in_hand},
        "ended": counts.ended,
        "window": {"since": iso(counts.since)},
        "exact": counts.exact,
        "as_of": iso(counts.as_of),
    }


def queues_json(queues: Queues) -> dict[str, Any]:
    shown = [
        {
            "profile_id": queue.profile_id,
            "demands": orjson.Fragment(queue.demands.as_json()),
            "ready": queue.ready,
            "oldest_ready_at": iso(queue.oldest_ready_at),
            "waiting": queue.waiting,
            "in_hand": queue.in_hand,
            "matching_runners": asdict(queue.runners),
            "claims_per_minute": queue.claims_per_minute,
            "eta_seconds": queue.eta_seconds,
        }
        for queue in queues.queues
    ]
    return {"queues": shown, "truncated": queues.truncated}


def series_json(series: Series, metric: str, by: str | None, step: int) -> dict[str, Any]:
    return {
        "metric": metric,
        "step": step,
        "since": iso(series.since),
        "until": iso(series.until),
        "as_of": iso(series.as_of),
        "series": [
            {"labels": {} if by is None else {by: curve.label}, "points": curve.points} for curve in series.curves
        ],
    }
