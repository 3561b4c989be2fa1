"""Run workers of the last release beside ours: a deployment replaces them one after the other."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from runtime import names
from testkit.cluster import Cluster
from testkit.servers import new_directory
from testkit.waiting import eventually
from tests.support.db_verbs import DbVerbs
from tests.support.last_release import check_out, git, last_release


def last_release_knows_actors_of_queues_it_serves() -> None:
    """Compare by the release's own module of names, which imports the standard library alone."""
    source = git("show", f"{last_release()}:runtime/names.py").stdout.decode()
    known: dict[str, object] = {"__name__": "names_of_last_release"}
    exec(compile(source, "names.py", "exec"), known)  # noqa: S102 -- code of this repository
    its_queues = known["QUEUE_OF"]
    assert isinstance(its_queues, Mapping)
    served = {str(queue) for queue in its_queues.values()}
    unknown = {
        actor.value: names.stored_queue(actor)
        for actor in names.Actor
        if names.stored_queue(actor) in served and actor.value not in {str(each) for each in its_queues}
    }
    assert not unknown, f"the last release serves these queues and does not know these actors: {unknown}"


def test_last_release_knows_actors_of_queues_it_serves() -> None:
    """A queue that got a new actor has a new name in Redis (runtime/names.py)."""
    last_release_knows_actors_of_queues_it_serves()


def test_workers_of_two_releases_work_side_by_side_without_errors(cluster: Cluster, scratch: Path, db: DbVerbs) -> None:
    """Let both do their duties for some seconds: neither gets a message that it does not know."""
    release = check_out(last_release(), new_directory(scratch, "release"))
    log = cluster.directory / "last-release.log"
    settings = {"COORDINATOR_DATABASE_URL": cluster.database_url, "COORDINATOR_REDIS_URL": cluster.redis_url}
    with log.open("wb") as output:
        its_worker = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "worker"],
            cwd=release.directory,
            env={**release.environment(), **settings, "COORDINATOR_LOG_FORMAT": "json"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "worker is ready" in log.read_text(), 60, what="the worker of the last release")
        ours = cluster.start_worker()
        begun = db.one("SELECT clock_timestamp()")

        def all_done_since() -> bool:
            done = db.rows("SELECT duty FROM duties WHERE last_run > :begun + interval '4 s'", begun=begun)
            return {"dispatch", "broadcast", "callbacks", "expire", "stats"} <= {row.duty for row in done}

        eventually(all_done_since, 60, what="the duties of both")
    finally:
        its_worker.terminate()
        its_worker.wait(30)
    for text in (log.read_text(), ours.log()):
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        assert lines
        assert [line for line in lines if line["level"] in {"error", "critical"}] == []
