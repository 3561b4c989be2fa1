import asyncio
from time import perf_counter

from benchmarks.meter import BEGINS, ENDS, percentile
from benchmarks.wire import connect, request


async def reads(
    urls: list[str], *, paths: dict[str, str], tokens: dict[str, str], rounds: int, pause: float
) -> dict[str, float]:
    """Make each call as each caller, one after the other, in rounds that begin at least `pause` seconds apart.

    Returns `p50` and `p95` of the slowest call, and those of each call as `p50_<caller>_<call>`.
    """
    connection = await connect(urls[0])
    took: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        if number == 1:
            print(BEGINS, flush=True)
        began_round = perf_counter()
        for caller, token in tokens.items():
            for name, path in paths.items():
                began = perf_counter()
                status, body = await connection.call(request("GET", path, token=token))
                if number and status == 200:
                    took.setdefault(f"{caller}_{name}", []).append(1000 * (perf_counter() - began))
                if status not in {200, 403, 404}:
                    raise ValueError(f"{status} to {caller} {path}: {body[:300]!r}")
        await asyncio.sleep(max(0.0, began_round + pause - perf_counter()))
    print(ENDS, flush=True)
    figures: dict[str, float] = {}
    for name, times in took.items():
        ordered = sorted(times)
        figures |= {f"p50_{name}": percentile(ordered, 50), f"p95_{name}": percentile(ordered, 95)}
    slowest = max((value, name) for name, value in figures.items() if name.startswith("p95_"))[1]
    return {**figures, "p95": figures[slowest], "p50": figures[slowest.replace("p95", "p50", 1)]}
