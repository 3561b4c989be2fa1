"""Run `coordinator` as a person does, until it ends."""

import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TypeAlias

from devserver.supervisor import ROOT
from testkit.cluster import COMMAND, inherited
from testkit.prefork import ForkServer

Ended: TypeAlias = "subprocess.CompletedProcess[str]"

# Forks all commands of this test process; tests/conftest.py closes it.
fork_server = ForkServer()


def coordinator(*arguments: str, home: str | Path = ROOT, stdin: str = "", **environment: str) -> Ended:
    """Run it with these arguments in `home`; its environment holds PATH, HOME and the given variables only."""
    env = {**inherited("PATH"), "HOME": str(home), **environment}
    with TemporaryFile() as given, TemporaryFile() as output, TemporaryFile() as errors:
        given.write(stdin.encode())
        given.seek(0)
        if fork_server.suits(arguments, env):
            process = fork_server.start(arguments, env=env, cwd=Path(home), files=(given, output, errors))
            try:
                code = process.wait(60)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                raise
        else:
            code = subprocess.run(
                [str(COMMAND), *arguments],
                stdin=given,
                stdout=output,
                stderr=errors,
                timeout=60,
                env=env,
                cwd=home,
                check=False,
            ).returncode
        return subprocess.CompletedProcess(arguments, code, _text(output), _text(errors))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
