"""Check the memory that request bodies may hold, in total and per caller, and that large ones are parsed in threads."""

import asyncio
import threading

import pytest

from app.http.body_limits import PARSED_AT_ONCE, PARSED_INLINE_BYTES, BodyParser, Upload, Uploads
from app.writes.attempts import Unavailable

pytestmark = pytest.mark.anyio


async def waiting(uploads: Uploads, number: int) -> None:
    while uploads.waiting != number:  # noqa: ASYNC110 -- turns of the loop, no time
        await asyncio.sleep(0)


async def test_upload_beyond_bound_waits_until_another_is_answered() -> None:
    uploads = Uploads(100, 60)
    first, second = Upload(uploads, ""), Upload(uploads, "")
    await first.take(80)
    late = asyncio.create_task(second.take(40))
    await waiting(uploads, 1)
    assert uploads.held == 80
    first.release()
    await late
    assert uploads.held == 40


async def test_oldest_upload_is_read_on_when_all_wait() -> None:
    """Avoid the deadlock of several uploads that each hold a part and together hold everything."""
    uploads = Uploads(100, 60)
    all_of_them = [Upload(uploads, "") for _ in range(4)]
    for one in all_of_them:
        await one.take(25)
    rest = [asyncio.create_task(one.take(25)) for one in all_of_them]
    await waiting(uploads, 3)
    for one, its_rest in zip(all_of_them, rest, strict=True):
        await its_rest
        one.release()
    assert uploads.held == 0


async def test_caller_holds_half_at_most_and_others_are_read_on() -> None:
    uploads = Uploads(100, 60)
    flood = [Upload(uploads, "user:flood") for _ in range(3)]
    await flood[0].take(30)
    await flood[1].take(20)
    more = asyncio.create_task(flood[2].take(10))
    await waiting(uploads, 1)
    await Upload(uploads, "user:other").take(50)
    flood[1].release()
    await more
    assert uploads.held == 90


async def test_upload_that_waits_too_long_is_unavailable_and_leaves_nothing() -> None:
    """Give back its bytes and its place in the queue."""
    uploads = Uploads(100, 0)
    first, second = Upload(uploads, ""), Upload(uploads, "")
    await first.take(100)
    with pytest.raises(Unavailable):
        await second.take(1)
    second.release()
    first.release()
    first.release()
    assert (uploads.held, uploads.waiting) == (0, 0)


async def test_large_bodies_are_parsed_in_few_threads() -> None:
    parser = BodyParser()
    go, begun = threading.Event(), threading.Semaphore(0)

    def parse(raw: bytes) -> bool:
        begun.release()
        assert go.wait(60)
        return threading.current_thread() is not threading.main_thread()

    large = b"x" * (PARSED_INLINE_BYTES + 1)
    parsing = [asyncio.create_task(parser.run(parse, large)) for _ in range(PARSED_AT_ONCE + 1)]
    for _ in range(PARSED_AT_ONCE):
        assert await asyncio.to_thread(begun.acquire, timeout=60)
    assert await parser.run(len, b"small") == 5
    assert not begun.acquire(blocking=False)
    go.set()
    assert await asyncio.gather(*parsing) == [True] * (PARSED_AT_ONCE + 1)
    parser.close()
