"""TypeScript client under Node, against real processes of the coordinator."""

import os
import subprocess
import sys

import pytest

from runtime.settings import Settings
from scripts import typescript_tool
from testkit.cluster import Cluster
from tests.support.coordination import Coordination
from tests.support.db_verbs import DbVerbs
from tests.support.typescript_client import built_client
from tests.support.typescript_reader import reader_sees_history

TESTS = [typescript_tool.BUILT / "tests" / f"{name}.test.js" for name in ("calls", "feed")]
SECONDS = 120


def test_client_passes_its_tests_under_node(cluster: Cluster) -> None:
    """Submit, wait, follow over ends of streams, errors, aborts: clients/typescript/tests."""
    node = built_client()
    web = cluster.start_web(stream_lifetime_seconds=1, feed_poll_seconds=0.05)
    cluster.start_worker()
    demo = (sys.executable, "-m", "runner.demo")
    Coordination(cluster, web.url).start_runner("--name", "demo", "--concurrency", "8", "--", *demo)
    ended = subprocess.run(
        [node, "--test", *map(str, TESTS)],
        env={"PATH": os.environ["PATH"], "COORDINATOR_TEST_URL": web.url},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]


async def test_reader_in_typescript_cut_at_any_byte_sees_each_event_once(
    settings: Settings, db: DbVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resume at another instance, also when streams end by themselves; positions and data are those of the database."""
    monkeypatch.setattr("app.feed.stream.RETRY_MILLISECONDS", (1, 20))
    await reader_sees_history(built_client(), typescript_tool.SOURCE, settings, db)
