"""Follow the feed by the TypeScript client in a process of Node, over connections that are cut, and compare."""

import asyncio
import json
import random
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from runtime.settings import Settings
from tests.processes.test_feed_client import ALL, THE_END, Told, history, now, say, talk
from tests.support.db_verbs import DbVerbs
from tests.support.web import served, until_ready
from tests.support.web_proxy import web_proxy

DIFFERS = "the reader differs from the feed"
# Connections to each instance that are cut; later ones last as long as a stream does.
CUTS = 8


async def reader_sees_history(node: str, package: Path, settings: Settings, db: DbVerbs) -> None:
    """Cut in the head of an answer, in a frame, within a character and between frames. Go on at the other instance."""
    dice = random.Random(1)

    def somewhere(left: list[None]) -> int | None:
        with suppress(IndexError):
            left.pop()
            return dice.choice([dice.randint(0, 600), dice.randint(300, 6000)])
        return None

    short = settings.model_copy(update={"stream_lifetime_seconds": 0.5})
    with served(short) as web, served(short) as other:
        for each in (web, other):
            until_ready(each)
        start = now(web.client)
        async with (
            web_proxy(web.client.url, partial(somewhere, [None] * CUTS)) as first,
            web_proxy(other.client.url, partial(somewhere, [None] * CUTS)) as second,
        ):
            wanted = {"urls": [first.url, second.url], "after": start, "types": ALL, "end": THE_END}
            reader = await asyncio.create_subprocess_exec(
                node, package / ".built" / "tests" / "record.js", json.dumps(wanted), stdout=asyncio.subprocess.PIPE
            )
            try:
                output = asyncio.create_task(reader.communicate())
                writers = (partial(talk, each.client, 30, place) for place, each in enumerate((web, other)))
                await asyncio.gather(*(asyncio.to_thread(writer) for writer in writers))
                session_id = web.client.submit()["session_id"]
                # Several: a reader that misses one must end too.
                while not output.done():
                    say(web.client, session_id, THE_END)
                    await asyncio.wait({output}, timeout=1)
                told = [tuple(json.loads(line)) for line in (await output)[0].splitlines()]
            finally:
                if reader.returncode is None:
                    reader.kill()
                    await reader.wait()
        assert told == up_to_end(history(db, start)), DIFFERS
        assert min(first.cuts, second.cuts) >= CUTS / 2


def up_to_end(told: list[Told]) -> list[Told]:
    ends = [place for place, item in enumerate(told) if _is_end(item[1], item[2])]
    return told[: ends[0] + 1]


def _is_end(event: str, data: Any) -> bool:
    return event == "event" and data["data"]["event_type"] == THE_END
