"""Run `coordinator` as a person does, until it ends."""

import subprocess
from pathlib import Path
from typing import TypeAlias

from devserver.supervisor import ROOT
from testkit.cluster import COMMAND, inherited

Ended: TypeAlias = "subprocess.CompletedProcess[str]"


def coordinator(*arguments: str, home: str | Path = ROOT, stdin: str = "", **environment: str) -> Ended:
    """Run it with these arguments in `home`; its environment holds PATH, HOME and the given variables only."""
    return subprocess.run(
        [str(COMMAND), *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=60,
        env={**inherited("PATH"), "HOME": str(home), **environment},
        cwd=home,
        check=False,
    )
