"""Check that the directory of `coordinator up` (passwords, keys, database) is readable by its user alone."""

import stat
from pathlib import Path

import pytest

from devserver.rolling import lock_of
from devserver.serving import make_private
from devserver.supervisor import CannotServe


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_data_directory_is_closed_to_others(tmp_path: Path) -> None:
    """Close a new directory, an empty one, and a former one whose mode was opened since."""
    data_dir = tmp_path / "new" / "data"
    make_private(data_dir)
    assert mode(data_dir) == 0o700
    data_dir.chmod(0o755)
    make_private(data_dir)
    assert mode(data_dir) == 0o700
    lock_of(data_dir).parent.mkdir(parents=True, exist_ok=True)
    lock_of(data_dir).touch()
    data_dir.chmod(0o777)
    make_private(data_dir)
    assert mode(data_dir) == 0o700


def test_open_directory_with_foreign_files_is_refused(tmp_path: Path) -> None:
    """`--data ~` must not change the mode of a home directory; once its user has closed it, it is accepted."""
    tmp_path.chmod(0o755)
    (tmp_path / "letter").touch()
    with pytest.raises(CannotServe, match="chmod 700"):
        make_private(tmp_path)
    assert mode(tmp_path) == 0o755
    tmp_path.chmod(0o700)
    make_private(tmp_path)
