"""Build the source distribution, the wheel from it, and serve from that in an environment of its own."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from devserver import console_build
from testkit.ports import own_port
from testkit.servers import new_directory
from testkit.up_process import OWN_ENVIRONMENT, Up
from testkit.waiting import eventually
from tests.support.console_copy import assets_of

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
BUILD_SECONDS = 240


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**OWN_ENVIRONMENT, "UV_NO_PROGRESS": "1"},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Return the wheel that the source distribution makes, without the repository around it."""
    run(TOOLS / "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    (sources,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sources) as packed:
        packed.extractall(tmp_path / "sources", filter="data")
    (root,) = (tmp_path / "sources").iterdir()
    assert not (root / "app" / "static").exists()
    # The packages of the lock, which were installed once for all tests.
    console_build.install_packages(console_build.find_node())
    (root / "console" / "node_modules").symlink_to(console_build.SOURCE / "node_modules")
    run(TOOLS / "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=root)
    (wheel,) = tmp_path.glob("*.whl")
    return wheel


@pytest.fixture
def installed(wheel: Path, scratch: Path) -> Iterator[Path]:
    """Return the Python of an environment that holds the wheel and the packages of `coordinator up`, no tools."""
    directory = new_directory(scratch, "environment")
    python = directory / "bin" / "python"
    uv = shutil.which("uv", path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}") or "uv"
    run(uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, directory, cwd=ROOT)
    lock = ROOT / "deploy" / "locks" / "up.lock"
    given = ("pip", "install", "--quiet", "--python", python, "--no-deps")
    run(uv, *given, "--require-hashes", "-r", lock, cwd=ROOT)
    run(uv, *given, "--no-index", wheel, cwd=ROOT)
    yield python
    shutil.rmtree(directory)


@pytest.mark.timeout(500)
def test_wheel_of_the_source_distribution_serves_with_its_console(wheel: Path, installed: Path, scratch: Path) -> None:
    """Run `coordinator up` from it, elsewhere: the page, all that it names, and a run that its demo runner completes."""
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {"tests", "testkit", "scripts", "chaos", "benchmarks", "console"} & tops == set()
    built = [name for name in names if name.startswith("app/static/console/") and name.endswith(".js")]
    # One build: its bundle, its worker, and the script that stands before both.
    assert len(built) == 3, built

    up = Up(
        new_directory(scratch, "installed") / "data",
        own_port(),
        *("--web", "1", "--workers", "1"),
        python=str(installed),
    )
    try:
        (url,) = up.urls
        addresses = assets_of(url)
        assert [httpx.get(address, timeout=20).status_code for address in addresses] == [200] * len(addresses)
        assert len(addresses) >= 3
        body = {"type": "start_session", "parameters": {"prompt": "hello"}}
        run_id = httpx.post(f"{url}/runs", json=body, timeout=20).json()["run_id"]
        eventually(lambda: httpx.get(f"{url}/runs/{run_id}", timeout=20).json()["status"] == "completed", 60)
    finally:
        up.end()
