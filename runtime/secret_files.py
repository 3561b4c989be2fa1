from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit


class NoSecret(Exception):
    """A secret cannot be read, or is given twice with different values; the message is for the operator."""


def complete_url(name: str, url: str, url_file: str, password_file: str) -> str:
    """Return the URL of the variable `name`, read from `url_file` if given, with the password of `password_file`.

    Raises NoSecret for a file that is unreadable or empty, and for contradicting values.
    """
    if url_file:
        found = read_secret(url_file, f"{name}_FILE")
        if url and url.partition("://")[2] != found.partition("://")[2]:
            raise NoSecret(f"{name} and {name}_FILE are both set, to different URLs")
        url = found
    return _with_password(url, password_file, name) if password_file else url


def _with_password(url: str, password_file: str, name: str) -> str:
    variable = name.removesuffix("_URL") + "_PASSWORD_FILE"
    password = quote(read_secret(password_file, variable), safe="")
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    user, colon, known = parts.netloc.rpartition("@")[0].partition(":")
    if not parts.netloc:
        raise NoSecret(f"{variable} is set, but {name} names no server that it could be for")
    if colon and known != password:
        raise NoSecret(f"{variable} is set, but {name} has another password")
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}"))


def read_secret(path: str, variable: str) -> str:
    try:
        secret = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NoSecret(f"{variable}: {path} cannot be read ({type(error).__name__})") from None
    if not secret:
        raise NoSecret(f"{variable}: {path} is empty")
    return secret
