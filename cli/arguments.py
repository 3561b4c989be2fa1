import json
from pathlib import Path
from typing import Any, cast

import typer

from coordinator_client.retry_types import Retry, RetryBackoff
from coordinator_client.types import AdditionalDemands
from runtime.terminal import stdin_text


def parameters(prompt: str, params: list[str]) -> dict[str, Any]:
    """Return the run's parameters: the prompt (`-`: read from stdin), and each KEY=TEXT or KEY:=JSON."""
    found: dict[str, Any] = {}
    if prompt:
        found["prompt"] = _from_stdin() if prompt == "-" else prompt
    for param in params:
        key, equals, value = param.partition("=")
        if not equals or not key.removesuffix(":"):
            raise typer.BadParameter(f"{param!r} is not KEY=VALUE or KEY:=JSON", param_hint="--param")
        found[key.removesuffix(":")] = _json(key, value, "--param") if key.endswith(":") else value
    if not found:
        raise typer.BadParameter("say what is to be done: a prompt, or --param KEY=VALUE", param_hint="PROMPT")
    return found


def pairs(labels: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for label in labels:
        key, equals, value = label.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{label!r} is not KEY=VALUE", param_hint="--label")
        found[key] = value
    return found


def filters(given: list[str]) -> dict[str, list[str]]:
    """Return the values of each NAME=VALUE by name; a value may hold further equals signs."""
    found: dict[str, list[str]] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals or not value:
            raise typer.BadParameter(f"{each!r} is not NAME=VALUE", param_hint="--filter")
        found.setdefault(name, []).append(value)
    return found


def changes(given: list[str]) -> dict[str, Any]:
    """Return the value of each FIELD=TEXT or FIELD:=JSON by field."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.removesuffix(":"):
            raise typer.BadParameter(f"{each!r} is not FIELD=VALUE or FIELD:=JSON", param_hint="--set")
        found[name.removesuffix(":")] = _json(name, value, "--set") if name.endswith(":") else value
    return found


def retry(given: str) -> Retry | None:
    """Return the policy of `--retry`: attempts alone, or attempts and KEY=VALUE pairs, separated by commas."""
    if not given:
        return None
    attempts, *pairs_given = [part.strip() for part in given.split(",")]
    found: Retry = {"max_attempts": _attempts(attempts.removeprefix("max_attempts="))}
    backoff: dict[str, float] = {}
    for pair in pairs_given:
        name, equals, value = pair.partition("=")
        match name:
            case "initial" | "factor" | "max" | "jitter" if equals:
                backoff[name] = _number(pair, value)
            case "on" if equals:
                found["on"] = _names(value)
            case "not_on" if equals:
                found["not_on"] = _names(value)
            case _:
                known = "initial, factor, max, jitter (numbers), on or not_on (NAME|NAME)"
                raise typer.BadParameter(f"{pair!r} is none of {known}", param_hint="--retry")
    if backoff:
        found["backoff"] = cast("RetryBackoff", backoff)
    return found


def _attempts(given: str) -> int:
    if not given.isdecimal():
        raise typer.BadParameter(f"{given!r} is no number of attempts", param_hint="--retry")
    return int(given)


def _number(pair: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise typer.BadParameter(f"the value of {pair} is no number", param_hint="--retry") from None


def _names(value: str) -> list[int | str]:
    """Return the exit codes, as numbers, and error classes that a bar separates."""
    names = [name.strip() for name in value.split("|") if name.strip()]
    return [int(name) if name.removeprefix("-").isdecimal() else name for name in names]


def json_file(path: str) -> dict[str, Any]:
    """Return the object in a file; `-` reads stdin."""
    try:
        text = stdin_text() if path == "-" else Path(path).read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="FILE") from None
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{path} holds no JSON: {error}", param_hint="FILE") from None
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{path} should hold an object", param_hint="FILE")
    return found


def demands(hostname: str, project_dir: str, profile: str, tags: list[str]) -> AdditionalDemands | None:
    found: AdditionalDemands = {}
    if hostname:
        found["hostname"] = hostname
    if project_dir:
        found["project_dir"] = project_dir
    if profile:
        found["executor_profile"] = profile
    if tags:
        found["tags"] = [tag.strip() for item in tags for tag in item.split(",") if tag.strip()]
    return found or None


def _from_stdin() -> str:
    try:
        return stdin_text().removesuffix("\n")
    except ValueError:
        raise typer.BadParameter("stdin is not UTF-8", param_hint="PROMPT") from None


def _json(key: str, value: str, option: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise typer.BadParameter(f"the value of {key}= is not JSON: {error}", param_hint=option) from None
