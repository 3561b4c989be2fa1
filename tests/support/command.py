"""`coordinator` as a person calls it, until it ends."""

import subprocess
from pathlib import Path
from typing import TypeAlias

from devserver.supervisor import ROOT
from tests.support.cluster import COMMAND, inherited

Ended: TypeAlias = "subprocess.CompletedProcess[str]"


def coordinator(*arguments: str, home: str | Path = ROOT, stdin: str = "", **environment: str) -> Ended:
    """Call it with these arguments, from `home`; of the environment it sees PATH, HOME and what is given here."""
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
