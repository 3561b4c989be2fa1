import asyncio
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from app.writes.attempts import Attempts, Unavailable
from models.runners.drain import open_transactions as transactions_of_runners

# Wait this long for transactions that may hold a claim: longer than Postgres lets one be idle.
LONGEST_SECONDS: Final = 10.0
FIRST_PAUSE_SECONDS: Final = 0.005
LONGEST_PAUSE_SECONDS: Final = 0.2


async def wait_for_claims(
    looks: Attempts,
    *,
    open_transactions: Callable[[Connection], frozenset[str]] = transactions_of_runners,
    seconds: float = LONGEST_SECONDS,
) -> None:
    """Return once no claim can commit that read a runner before this call. Raises Unavailable after ``seconds``.

    With other ``open_transactions`` the same of what these have read.
    """
    now = asyncio.get_running_loop().time
    end = now() + seconds
    pause = FIRST_PAUSE_SECONDS
    left = await looks.autocommit(open_transactions)
    while left:
        if now() >= end:
            raise Unavailable
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        left &= await looks.autocommit(open_transactions)
