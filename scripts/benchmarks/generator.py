"""The load generator, a process of its own: reads one load as JSON from stdin, prints what it measured as JSON."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
import uvloop

from scripts.benchmarks import loads_feed, loads_runs

Load = Callable[..., Awaitable[dict[str, float]]]

LOADS: Final[dict[str, Load]] = {
    "submissions": loads_runs.submissions,
    "lives": loads_runs.lives,
    "submit-to-runner": loads_runs.submit_to_runner,
    "event-to-client": loads_feed.event_to_client,
}
# However long the load means to run: a generator that hangs must not outlive the benchmark.
MOST_SECONDS: Final = 600


async def generate(job: dict[str, Any]) -> dict[str, float]:
    """Run the load that the job names; what it measured. Raises TimeoutError when it does not end by itself."""
    async with asyncio.timeout(MOST_SECONDS):
        return await LOADS[job.pop("load")](**job)


if __name__ == "__main__":
    sys.stdout.write(orjson.dumps(uvloop.run(generate(orjson.loads(sys.stdin.buffer.read())))).decode() + "\n")
