"""The last release on our schema: while a deployment is under way its replicas serve beside ours."""

import re
from pathlib import Path

import pytest

from models.schema.migrate import newest_revision
from tests.support.previous_release import FormerRelease, check_out, git, last_release
from tests.support.servers import new_directory

# Names of its own files: runs over HTTP, dispatch, the feed, processes of its own.
ITS_TESTS = [
    "tests/integration/test_dispatch.py",
    "tests/integration/test_http_feed.py",
    "tests/integration/test_http_runs.py",
    "tests/integration/test_cluster_support.py",
]


@pytest.fixture
def release(scratch: Path) -> FormerRelease:
    return check_out(last_release(), new_directory(scratch, "release"))


# It brings servers of its own: a minute on a machine that does nothing else.
@pytest.mark.timeout(600)
def test_the_tests_of_the_last_release_pass_on_our_schema(release: FormerRelease) -> None:
    """Its code, its tests, databases that our `coordinator migrate` has made."""
    done = release.run("pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *ITS_TESTS, within=570)
    last = done.stdout.strip().rpartition("\n")[2]

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d* passed", last), last


def test_it_is_the_code_of_the_last_release_that_runs_on_our_schema(
    release: FormerRelease, empty_database_url: str
) -> None:
    """Else the test above would show nothing."""
    (release.directory / "whose.py").write_text(
        "import app, cli, models\n"
        "from tests.support import servers\n"
        "print(app.__file__, cli.__file__, models.__file__, servers.__file__, sep='\\n', flush=True)\n"
        f"servers.migrate({empty_database_url!r})\n"
    )
    done = release.run("whose", within=60)
    *files, said = done.stdout.splitlines()

    assert done.returncode == 0, done.stderr
    assert len(files) == 4
    assert [file for file in files if not file.startswith(f"{release.directory}/")] == []
    assert said == f"schema migrated from nothing to {newest_revision()}"


def test_a_clone_without_the_commit_says_so(tmp_path: Path) -> None:
    """Instead of passing without having run anything."""
    with pytest.raises(AssertionError, match="git fetch --unshallow"):
        check_out("0" * 40, tmp_path)


def test_the_last_release_is_part_of_our_history() -> None:
    """A whole commit id, so that it means the same in every clone."""
    commit = last_release()
    done = git("merge-base", "--is-ancestor", commit, "HEAD")

    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    assert done.returncode == 0, done.stderr
