"""Run the last release on our schema: during a deployment its replicas serve beside ours."""

import re
from pathlib import Path

import pytest

from models.schema.revisions import newest_revision
from testkit.servers import new_directory
from tests.support.last_release import PreviousRelease, check_out, git, last_release

# Files of that release: runs over HTTP, dispatch, the feed, processes of its own.
ITS_TESTS = [
    "tests/integration/test_dispatch.py",
    "tests/integration/test_http_feed.py",
    "tests/integration/test_http_runs.py",
    "tests/integration/test_cluster_support.py",
]
# Leave out the cases of refused input, which reach no table.
REFUSED_INPUT = (
    *("refused", "whatever_a_filter_holds", "422", "characters", "no_database_keeps", "limit_is", "wait_is_at_most"),
    *("cursor_that_is", "unknown_run", "at_most_1000", "empty_cursor", "does_not_come_up"),
)
READING_OR_WRITING = f"not ({' or '.join(REFUSED_INPUT)})"


@pytest.fixture
def release(scratch: Path) -> PreviousRelease:
    return check_out(last_release(), new_directory(scratch, "release"))


# Starts servers of its own: a minute on an idle machine.
@pytest.mark.timeout(600)
def test_tests_of_the_last_release_pass_on_our_schema(release: PreviousRelease) -> None:
    """Run its code and tests on databases made by our `coordinator migrate`."""
    options = ("-q", "-n", "2", "-p", "no:cacheprovider", "-k", READING_OR_WRITING)
    done = release.run("pytest", *options, *ITS_TESTS, within=570)
    last = done.stdout.strip().rpartition("\n")[2]

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d* passed", last), last


def test_code_of_the_last_release_runs_on_our_schema(release: PreviousRelease, empty_database_url: str) -> None:
    """Prove that the test above did not run our code."""
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


def test_clone_without_the_commit_is_an_error(tmp_path: Path) -> None:
    """Do not pass without having run anything."""
    with pytest.raises(AssertionError, match="git fetch --unshallow"):
        check_out("0" * 40, tmp_path)


def test_last_release_is_part_of_our_history() -> None:
    """Name a whole commit id, which means the same in every clone."""
    commit = last_release()
    done = git("merge-base", "--is-ancestor", commit, "HEAD")

    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    assert done.returncode == 0, done.stderr
