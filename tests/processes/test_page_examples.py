"""Run the examples of docs/schedules.md and docs/webhooks.md, as a reader types them in, against a real coordinator."""

import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

from devserver.supervisor import ROOT
from testkit.cluster import Cluster, inherited
from testkit.ports import own_port
from testkit.waiting import eventually
from tests.support.coordination import Coordination
from tests.support.task_runners import start_program
from tests.support.webhooks import LOOPBACK

SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^ {4}```python\n(.*?)^ {4}```$", re.MULTILINE | re.DOTALL)
SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]+")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def typed_in(script: str, url: str, directory: Path) -> str:
    """Return the output of a shell in which all lines have to succeed."""
    env = {**inherited("HOME", "LANG"), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "COORDINATOR_URL": url}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],  # noqa: S607 - the reader's shell
        env=env,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_examples_of_schedules_run(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.start_web().url
    (script,) = SHELL.findall(page("schedules.md"))
    said = typed_in(script, url, tmp_path)
    assert "morning-report" in said
    shown = Coordination(cluster, url).ask("GET", "/schedules/morning-report")
    assert (shown["state"], shown["run"]["labels"]) == ("active", {"team": "sky"})


def test_examples_of_webhooks_run(cluster: Cluster, tmp_path: Path) -> None:
    """Create the webhook, start the receiver with its secret, and have it verify a test message."""
    url = cluster.start_web(webhook_allow=LOOPBACK).url
    cluster.start_worker(webhook_allow=LOOPBACK)
    port = own_port()
    script = SHELL.findall(page("webhooks.md"))[0].replace("https://example.com/hook", f"http://127.0.0.1:{port}/hook")
    first, *others = script.splitlines()
    (secret,) = SECRET.findall(typed_in(first, url, tmp_path))
    (code,) = PYTHON.findall(page("webhooks.md"))
    program = tmp_path / "receiver.py"
    program.write_text(textwrap.dedent(code).replace("whsec_…", secret).replace("8000", str(port)))
    receiver = start_program(cluster, str(program))
    eventually(lambda: is_listening(port), what="the receiver")
    typed_in("\n".join(others), url, tmp_path)
    eventually(lambda: "webhook.test" in receiver.log(), what="the message")
    eventually(lambda: "delivered" in typed_in(others[-1], url, tmp_path), what="the record of the delivery")


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
