import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

from coordinator_client.transport import encode
from coordinator_client.types import Result
from runner.lines import LONGEST_OBJECT, read_object

# The coordinator stores an event up to 16 MiB, its envelope included.
MOST_BYTES: Final = LONGEST_OBJECT
MOST_EVENT_BYTES: Final = 15 * 1024 * 1024


class ResultRefused(Exception):
    """Raised for a result that cannot be sent; the message becomes the run's error."""


class ResultFile:
    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="coordinator-run-")
        self.path = str(Path(self._directory, "result"))

    def read(self) -> Result | None:
        try:
            data = _read(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ResultRefused(f"Result file cannot be read: {error.strerror or error}") from None
        text = data.decode("utf-8-sig", errors="replace").removesuffix("\n").removesuffix("\r")
        if not text.strip():
            return None
        found = result_of_line(text)
        return {"result_text": text, "result_data": None} if found is None else found

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


def result_of_line(line: str) -> Result | None:
    refuse_larger(len(line.encode(errors="replace")))
    value = read_object(line)
    if value is None:
        return None
    text = value.get("result_text")
    return {"result_text": text if isinstance(text, str) else None, "result_data": value}


def checked(fields: Result) -> Result:
    try:
        size = len(encode(fields))
    except Exception as error:  # noqa: BLE001 - such as a RecursionError of what could just be read
        raise ResultRefused(f"Result cannot be sent: {error}") from None
    refuse_larger(size, MOST_EVENT_BYTES)
    return fields


def refuse_larger(size: int, most: int = MOST_BYTES) -> None:
    if size > most:
        raise ResultRefused(f"Result too large: {size} bytes, at most {most}")


def _read(path: str) -> bytes:
    # O_NONBLOCK opens the reading end of a pipe without a writer at once.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ResultRefused("Result file cannot be read: not a regular file")
        refuse_larger(found.st_size)
        data = file.read(MOST_BYTES + 1)
        refuse_larger(len(data))
        return data
