from email.message import Message
from typing import NamedTuple

from app.http.bodies import Fault, Invalid


class FilePart(NamedTuple):
    file_name: str
    content: bytes


def file_part(content_type: str, raw: bytes, name: str) -> FilePart:
    """Return the file of a field of a multipart/form-data body. Raises Invalid for another body, or without it."""
    boundary = _parameter("content-type", content_type, "boundary")
    if not content_type.lower().startswith("multipart/form-data") or not boundary:
        raise Invalid([Fault("multipart", ("body",), "Should be multipart/form-data with a boundary")])
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    for part in (b"\r\n" + raw).split(delimiter)[1:]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        for line in head.decode("utf-8", "replace").split("\r\n"):
            header, _, value = line.partition(":")
            if header.strip().lower() != "content-disposition":
                continue
            file_name = _parameter(header, value.strip(), "filename")
            if file_name is not None and _parameter(header, value.strip(), "name") == name:
                return FilePart(file_name, content)
    raise Invalid([Fault("missing", ("body", name), "Field required, as a file")])


def _parameter(header: str, value: str, name: str) -> str | None:
    message = Message()
    message[header.strip()] = value
    try:
        found = message.get_param(name, header=header.strip())
    except (TypeError, ValueError) as bad:
        # email sorts the numbers of a continued parameter, which may be missing.
        raise Invalid([Fault("multipart", ("body",), f"The parameters of {header.strip()} cannot be read")]) from bad
    # A value in an encoding of its own comes as a tuple.
    return found[2] if isinstance(found, tuple) else found
