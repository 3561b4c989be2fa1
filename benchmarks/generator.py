import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
import uvloop

from benchmarks import (
    loads_crowd,
    loads_feed,
    loads_flood,
    loads_own,
    loads_polls,
    loads_raw,
    loads_reads,
    loads_runs,
    loads_stops,
)
from benchmarks.wire import Unexpected

Load = Callable[..., Awaitable[dict[str, float]]]

LOADS: Final[dict[str, Load]] = {
    "submissions": loads_runs.submissions,
    "lives": loads_runs.lives,
    "submit-to-runner": loads_runs.submit_to_runner,
    "stop-to-runner": loads_stops.stop_to_runner,
    "event-to-client": loads_feed.event_to_client,
    "event-to-crowd": loads_crowd.event_to_crowd,
    "parked-polls": loads_polls.parked_polls,
    "heartbeats": loads_polls.heartbeats,
    "claims": loads_polls.claims,
    "claim-rate": loads_polls.claim_rate,
    "calm": loads_flood.calm,
    "flood": loads_flood.flood,
    "reads": loads_reads.reads,
    "raw-submissions": loads_raw.raw_submissions,
    "raw-lives": loads_raw.raw_lives,
    "raw-hand-over": loads_raw.raw_hand_over,
    "raw-events": loads_raw.raw_events,
    "serve-trivially": loads_own.serve_trivially,
    "serve-barely": loads_own.serve_barely,
    "own-cost": loads_own.own_cost,
}
# Upper bound of any load: a generator that hangs must not outlive the benchmark.
MOST_SECONDS: Final = 600


async def generate(job: dict[str, Any]) -> dict[str, float]:
    async with asyncio.timeout(MOST_SECONDS):
        return await LOADS[job.pop("load")](**job)


def main() -> int:
    met: BaseException | None = None
    try:
        figures = uvloop.run(generate(orjson.loads(sys.stdin.buffer.read())))
        print(orjson.dumps(figures).decode())
    except* (Unexpected, ValueError, TimeoutError, OSError) as group:
        met = group
    if met is None:
        return 0
    while isinstance(met, BaseExceptionGroup):
        met = met.exceptions[0]
    print(f"generator: {met!r}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
