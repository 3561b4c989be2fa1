"""Functions in processes that end, hang or are interrupted before their function begins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devserver.supervisor import ROOT


@pytest.mark.parametrize(
    ("function", "importing", "outcome"),
    [
        ("answer", "", "200000"),
        ("answer", "end", "TaskFailed The process of the function ended with exit code 7"),
        ("answer", "interrupt", "200000"),
        ("until_cancelled", "wait", "RunCancelled "),
        ("leave_fork", "", "TaskFailed The process of the function ended by SIGKILL"),
    ],
    ids=["plain", "ends on import", "Ctrl-C on import", "cancelled on import", "killed beside its fork"],
)
def test_process_has_an_outcome(tmp_path: Path, function: str, importing: str, outcome: str) -> None:
    """Give parameters larger than a pipe takes."""
    command = [sys.executable, "-m", "tests.support.process_calls", function, str(tmp_path), importing]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            said, _ = program.communicate(timeout=60)
        finally:
            program.kill()
    assert said == f"OUTCOME: {outcome}\n"
