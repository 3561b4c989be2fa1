"""Makes text storable in Postgres: free text of clients is kept as far as possible, never refused."""

ERROR_BYTES = 64 * 1024
_CUT = "\n… cut …\n"
_UNSTORABLE = {0: "\N{REPLACEMENT CHARACTER}"} | dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")


def storable(text: str) -> str:
    return text.translate(_UNSTORABLE) if "\0" in text or not _encodes(text) else text


def storable_error(text: str | None) -> str | None:
    """Return an error as it is stored: storable, and cut to 64 KiB, of which head and tail are left."""
    if text is None:
        return None
    whole = storable(text)
    encoded = whole.encode()
    if len(encoded) <= ERROR_BYTES:
        return whole
    half = (ERROR_BYTES - len(_CUT.encode())) // 2
    return encoded[:half].decode(errors="ignore") + _CUT + encoded[-half:].decode(errors="ignore")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
