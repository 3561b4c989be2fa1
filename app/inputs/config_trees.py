"""Folders of a configuration, in an archive or in a directory; and archives of such folders."""

import io
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

# Bytes of an archive once it is unpacked: two full registries, with their file headers.
MOST_UNPACKED: Final = 64 * 1024 * 1024
# Bytes of one file of a directory.
LARGEST_FILE: Final = 2 * 1024 * 1024
# Characters of a path within an archive: a kind, a name and a file.
LONGEST_PATH: Final = 512
_GZIP: Final = 31


class BadArchive(Exception):
    """Archive that is refused; the text says why."""


class FileTooLarge(Exception):
    """File of a directory above LARGEST_FILE."""


class ConfigTree(Protocol):
    """Folders of entries by registry: ``agents/NAME/agent.json``."""

    def has(self, kind: str) -> bool: ...

    def folders(self, kind: str) -> list[str]: ...

    def files(self, folder: str) -> list[str]: ...

    def read(self, path: str) -> bytes | None: ...


class DirectoryTree:
    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, kind: str) -> bool:
        return (self._root / kind).is_dir()

    def folders(self, kind: str) -> list[str]:
        if not self.has(kind):
            return []
        return sorted(entry.name for entry in (self._root / kind).iterdir() if entry.is_dir())

    def files(self, folder: str) -> list[str]:
        return sorted(entry.name for entry in (self._root / folder).iterdir() if entry.is_file())

    def read(self, path: str) -> bytes | None:
        """Return a file, None if there is none. Raises OSError, and FileTooLarge."""
        file = self._root / path
        if not file.is_file():
            return None
        if file.stat().st_size > LARGEST_FILE:
            raise FileTooLarge
        return file.read_bytes()


class ArchiveTree:
    """Contents of a .tar.gz in memory. Raises BadArchive."""

    def __init__(self, raw: bytes) -> None:
        self._files: dict[str, bytes] = {}
        self._folders: set[str] = set()
        try:
            with tarfile.open(fileobj=io.BytesIO(_unpacked(raw)), mode="r:") as archive:
                for member in archive:
                    self._add(archive, member)
        except (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError, RecursionError) as bad:
            raise BadArchive(f"Invalid tar.gz file: {_line_of(bad)}") from bad

    def _add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        # tarfile goes back by a negative size, and reads the same header for ever.
        if member.size < 0 or len(member.name) > LONGEST_PATH:
            raise BadArchive("Invalid tar.gz file: it has a file of negative size, or a path that is too long")
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or not (member.isreg() or member.isdir()):
            raise BadArchive("Invalid archive: contains unsafe paths")
        self._folders.update(str(parent) for parent in path.parents)
        if member.isdir():
            self._folders.add(str(path))
            return
        if member.issparse() or member.size > MOST_UNPACKED:
            raise BadArchive("Invalid tar.gz file: it has a sparse file, or one that is too large")
        content = archive.extractfile(member)
        self._files[str(path)] = b"" if content is None else content.read()

    def has(self, kind: str) -> bool:
        return kind in self._folders

    def folders(self, kind: str) -> list[str]:
        prefix = f"{kind}/"
        return sorted(
            path.removeprefix(prefix)
            for path in self._folders
            if path.startswith(prefix) and "/" not in path.removeprefix(prefix)
        )

    def files(self, folder: str) -> list[str]:
        prefix = f"{folder}/"
        return sorted(
            path.removeprefix(prefix)
            for path in self._files
            if path.startswith(prefix) and "/" not in path.removeprefix(prefix)
        )

    def read(self, path: str) -> bytes | None:
        return self._files.get(path)


def archive_of(files: Mapping[str, bytes], executable: Iterable[str] = ()) -> bytes:
    """Return a .tar.gz of the files by path. The same files make the same bytes."""
    packed = io.BytesIO()
    marked = frozenset(executable)
    with tarfile.open(fileobj=packed, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o755 if path in marked else 0o644
            archive.addfile(member, io.BytesIO(content))
    packer = zlib.compressobj(wbits=_GZIP)
    return packer.compress(packed.getvalue()) + packer.flush()


def _unpacked(raw: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=_GZIP)
    unpacked = unpacker.decompress(raw, MOST_UNPACKED + 1)
    if len(unpacked) > MOST_UNPACKED:
        raise BadArchive(f"Invalid tar.gz file: more than {MOST_UNPACKED} bytes once unpacked")
    if not unpacker.eof:
        raise EOFError("it ends too early")
    return unpacked


def _line_of(fault: Exception) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0][:200].encode("ascii", "replace").decode()
