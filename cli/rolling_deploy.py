import json
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import psutil
import typer

from cli.database import data_directory
from devserver.rolling import Progress, Step, lock_of, progress_file
from runtime.processes import Locked, is_alive, locked, send_signal
from runtime.terminal import complain, fit_streams, say

_LOOK_SECONDS = 0.1
_LAST = {Step.FINISHED, Step.STOPPED}


def rolling_deploy(
    data: Annotated[
        Path | None, typer.Option(file_okay=False, help="Data directory of the `coordinator up` to restart.")
    ] = None,
) -> None:
    """Replace every web and worker process of a running `coordinator up` by one of the installed code.

    One at a time: the new process is ready before the old one drains and ends; no request fails. Exit code 0 when all
    were replaced.
    """
    from runtime.settings import load_settings

    data_dir = data_directory(data, load_settings())
    process = _serving(data_dir)
    if process is None:
        complain(f"no `coordinator up` serves {data_dir}; --data names another directory")
        raise typer.Exit(1)
    with progress_file(data_dir).open("ab+") as file:
        # Read what is written from now on, not the outcome of an earlier restart.
        where = file.seek(0, 2)
    send_signal(process, signal.SIGHUP)
    for progress in _followed(progress_file(data_dir), where, process):
        say(f"{progress.process:<10} {progress.text}", flush=True)
        if progress.step in _LAST | {Step.BUSY}:
            raise typer.Exit(0 if progress.step is Step.FINISHED else 1)
    complain("`coordinator up` ended meanwhile")
    raise typer.Exit(1)


def _serving(data_dir: Path) -> psutil.Process | None:
    if not lock_of(data_dir).exists():
        return None
    with suppress(psutil.NoSuchProcess):
        try:
            with locked(lock_of(data_dir)):
                return None
        except Locked as error:
            return psutil.Process(error.holder) if error.holder else None
    return None


def _followed(path: Path, where: int, process: psutil.Process) -> Iterator[Progress]:
    begun = False
    with path.open("rb") as file:
        file.seek(where)
        rest = b""
        while True:
            alive = is_alive(process)
            *lines, rest = (rest + file.read()).split(b"\n")
            for line in lines:
                said = json.loads(line)
                progress = Progress(Step(said["step"]), said["process"], said["text"])
                # Lines before BEGUN are of an earlier restart; an order during that one is answered BUSY.
                if begun == (progress.step in {Step.BEGUN, Step.BUSY}):
                    continue
                begun = True
                yield progress
            if not alive:
                return
            time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    fit_streams()
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(rolling_deploy)
    app()
