import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from devserver.console import Console
from devserver.console_build import is_built
from devserver.embedded_server import log_of
from devserver.supervisor import Supervisor


async def build_in_background(
    data_dir: Path, url: str, env: Mapping[str, str], supervisor: Supervisor, console: Console
) -> None:
    """Build the console in a process of its own, if its sources are newer than what was built; report where it is
    served, or where the log of a failure is. Everything else serves without it.
    """
    path = log_of(data_dir, "console")
    try:
        if not await asyncio.to_thread(is_built):
            console.say("console", "is being built in the background")
            with path.open("ab") as log:
                code = await supervisor.run_once((sys.executable, "-m", "devserver.console_build"), env, log)
            if code:
                console.say("console", f"not built, all else serves without it; see {path}")
                return
        console.say("console", url)
    except OSError as error:
        console.say("console", f"not built, all else serves without it: {error}")
