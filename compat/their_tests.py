"""Their own tests of the HTTP API: as they are on their coordinator, and through HTTP on ours."""

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from compat.coordinators import Coordinator, their_variables
from compat.environment import SERVER, Environment

TESTS: Final = SERVER / "tests" / "api"
FIXTURES: Final = Path(__file__).with_name("http_fixtures.py")
SECONDS: Final = 600


def run_their_tests(environment: Environment, coordinator: Coordinator) -> dict[str, Any]:
    """Return whether each test passes: on the application of the checkout, or at the addresses of ours.

    Ours get the same files, and fixtures that speak HTTP instead of starting the application.
    """
    if coordinator.name == "theirs":
        tests, more = environment.checkout / TESTS, dict[str, str]()
    else:
        tests = coordinator.directory / "tests" / "api"
        shutil.copytree(environment.checkout / TESTS, tests, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(FIXTURES, tests.parent / "conftest.py")
        (tests.parent / "urls.txt").write_text(" ".join(coordinator.urls))
        more = {"PYTHONPATH": str(environment.checkout / SERVER)}
    report = coordinator.directory / "tests.xml"
    # A configuration of its own: pytest would look for one above the directory of the copy.
    (coordinator.directory / "pytest.ini").write_text("[pytest]\n")
    command = [str(environment.python), "-m", "pytest", "-c", str(coordinator.directory / "pytest.ini")]
    command += [str(tests), "-q", "-p", "no:cacheprovider", f"--rootdir={tests.parent}", f"--junitxml={report}"]
    variables = environment.variables(**their_variables(coordinator.directory / "of-tests"), **more)
    with (coordinator.directory / "tests.log").open("wb") as log:
        subprocess.run(
            command, cwd=coordinator.directory, env=variables, stdout=log, stderr=log, timeout=SECONDS, check=False
        )
    if not report.is_file():
        return {"their tests": (coordinator.directory / "tests.log").read_text(errors="replace")[-2000:]}
    return {f"their test: {name}": outcome for name, outcome in _outcomes(report).items()}


def _outcomes(report: Path) -> dict[str, str]:
    found = {}
    # The report of a pytest that we started ourselves.
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314  # as above
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name', '')}"
        failed = case.find("failure") is not None or case.find("error") is not None
        found[name] = "failed" if failed else "passed"
    return found
