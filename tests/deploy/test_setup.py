"""Run scripts/setup.sh on a checkout of three little packages: what each script installs, and when it
installs again.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.unit.test_lock import ROOT

# Build nothing but the pointer to the checkout: an editable install without a foreign build backend.
BACKEND = """
import zipfile
def build_editable(directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{directory}/coordinator-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("coordinator-0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: coordinator\\nVersion: 0\\n")
        wheel.writestr("coordinator-0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("coordinator-0.dist-info/RECORD", "")
    return "coordinator-0-py3-none-any.whl"
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "coordinator"
version = "0"
"""


def wheel(directory: Path, name: str, version: str) -> str:
    """Make a wheel of one empty module; return its line in a lock."""
    path, info = directory / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{file},sha256={_digest(text)},{len(text)}" for file, text in files.items()]
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": "\n".join([*record, f"{info}/RECORD,,"]) + "\n"}.items():
            archive.writestr(file, text)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class Checkout:
    """Directory with the scripts and with locks of packages in a folder beside it; no network is needed."""

    def __init__(self, root: Path) -> None:
        self.root = root / "checkout"
        self.wheels = root / "wheels"
        self.wheels.mkdir()
        (self.root / "scripts").mkdir(parents=True)
        (self.root / "deploy" / "locks").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup.sh", self.root / "scripts" / "setup.sh")
        (self.root / "backend.py").write_text(BACKEND)
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        (self.root / "deploy" / "locks" / "installer.lock").write_text("")
        self.lock(served="1", tool="1")

    def lock(self, *, served: str, tool: str) -> None:
        serving = wheel(self.wheels, "served", served)
        (self.root / "deploy" / "locks" / "up.lock").write_text(serving)
        (self.root / "requirements.lock").write_text(serving + wheel(self.wheels, "tool", tool))

    def set_up(self, level: str) -> list[str]:
        """Set it up as scripts/up (`serving`) or scripts/test (anything else) does; return the lines it printed."""
        done = subprocess.run(
            ["/bin/bash", "-c", f"setup_level={level}; source scripts/setup.sh"],
            cwd=self.root,
            env={
                # No uv: pip without an index takes packages from the folder.
                "PATH": "/usr/bin:/bin",
                "PYTHON": sys.executable,
                "HOME": str(self.root),
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.wheels),
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            },
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        return done.stderr.splitlines()

    def installed(self) -> dict[str, str]:
        found = (self.root / ".venv" / "lib").glob("python3*/site-packages/*.dist-info")
        names = (path.name.removesuffix(".dist-info").partition("-") for path in found)
        return {name: version for name, _, version in names if name in {"served", "tool", "coordinator"}}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_start_and_tests_install_their_parts_once(checkout: Checkout) -> None:
    """Print one line a step; do nothing on a repeat; keep what the other script installed; after a change install
    what changed, and after a move all, since the programs of .venv point to the former path.
    """
    said = checkout.set_up("serving")
    assert [line.partition(" ")[0] for line in said] == ["making", "installing"], said
    assert said[1] == "installing 1 packages of deploy/locks/up.lock"
    assert checkout.installed() == {"served": "1", "coordinator": "0"}
    assert checkout.set_up("serving") == []

    assert checkout.set_up("all") == ["installing 2 packages of requirements.lock"]
    assert checkout.installed() == {"served": "1", "tool": "1", "coordinator": "0"}
    assert checkout.set_up("all") == []
    # The served part is included.
    assert checkout.set_up("serving") == []

    checkout.lock(served="2", tool="2")
    checkout.set_up("serving")
    assert checkout.installed() == {"served": "2", "tool": "1", "coordinator": "0"}
    checkout.set_up("all")
    assert checkout.installed() == {"served": "2", "tool": "2", "coordinator": "0"}

    moved = checkout.root.with_name("moved")
    checkout.root.rename(moved)
    checkout.root = moved
    assert len(checkout.set_up("serving")) == 2
    assert str(moved / ".venv") in (moved / ".venv/bin/activate").read_text()
    assert checkout.set_up("serving") == []
