import asyncio
from typing import Final

from app.writes.attempts import Attempts, Unavailable
from app.writes.claim_ends import wait_for_claims
from app.writes.group_commit import GroupCommit
from models.runs.holds import MOST_SETTLED, Settled, transactions_of_holds

# Settle so many chunks within a request; workers settle what is left, every 10 s.
MOST_CHUNKS: Final = 200


async def settle(looks: Attempts, chunks: GroupCommit[int, Settled]) -> None:
    """Apply the holds as they are now to all waiting runs. Raises Unavailable if that takes too long.

    Wait first for transactions that may have read the holds as they were: what those make ready is looked at then.
    """
    await wait_for_claims(looks, open_transactions=transactions_of_holds)
    for _ in range(MOST_CHUNKS):
        settled = await chunks.one(MOST_SETTLED)
        if isinstance(settled, Settled) and not settled.more:
            return
        await asyncio.sleep(0)
    raise Unavailable
