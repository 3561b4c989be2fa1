"""Archives and directories of a configuration: export, import that replaces, and import of the replaced coordinator's."""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.inputs import config_trees
from app.inputs.config_files import entries_of
from app.inputs.config_trees import DirectoryTree, archive_of
from cli.config_import import import_directory
from models.registries import imports
from models.registries.records import Kind
from models.transfer.report import Report, report_json
from tests.support.answer_models import check_fields
from tests.support.db_verbs import DbVerbs
from tests.support.web import WebClient

RECORD = json.dumps({"name": "a", "description": "d"}).encode()


def upload(client: WebClient, content: bytes, name: str = "config.tar.gz") -> httpx.Response:
    return client.http.post("/config/import", files={"file": (name, content)})


def raw_agents(client: WebClient) -> Any:
    return client.get("/agents", raw="true").json()


def test_export_and_import_replace_agents_and_capabilities(client: WebClient) -> None:
    """Remove what is not in the archive, keep kinds that it lacks, and the times of entries that are the same."""
    client.post("/scripts", {"name": "s", "description": "", "script_file": "f", "script_content": "x"})
    client.post("/capabilities", {"name": "c", "description": "d", "type": "script", "script": "s", "text": "t"})
    servers = {"m": {"ref": "r", "config": {"k": None}}}
    agent = {"name": "a", "description": "ä", "system_prompt": "p", "mcp_servers": servers, "tags": ["x"]}
    client.post("/agents", agent)
    client.http.patch("/agents/a/status", json={"status": "inactive"})
    client.post("/agents", {"name": "b", "description": ""})
    before = raw_agents(client), client.get("/capabilities/c").json()
    exported = client.get("/config/export")
    assert exported.headers["content-type"] == "application/gzip"
    assert re.fullmatch(r'attachment; filename="config-\d{8}-\d{6}\.tar\.gz"', exported.headers["content-disposition"])
    with tarfile.open(fileobj=io.BytesIO(exported.content)) as archive:
        assert archive.getnames() == [
            "agents/a/agent.json",
            "agents/a/agent.system-prompt.md",
            "agents/a/agent.mcp.json",
            "agents/a/.disabled",
            "agents/b/agent.json",
            "capabilities/c/capability.json",
            "capabilities/c/capability.text.md",
        ]
    client.http.delete("/agents/b")
    client.post("/agents", {"name": "new", "description": ""})
    client.http.patch("/capabilities/c", json={"text": "changed"})
    answer = upload(client, exported.content)
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "message": "Configuration imported successfully",
            "agents_imported": 2,
            "capabilities_imported": 1,
            "agents_replaced": 2,
            "capabilities_replaced": 1,
        },
    )
    check_fields("POST /config/import", 200, answer.json())
    agents = raw_agents(client)
    assert agents[0] == before[0][0]
    assert [found["name"] for found in agents] == ["a", "b"]
    assert client.get("/capabilities/c").json()["text"] == "t"
    answer = upload(client, archive_of({"capabilities/z/capability.json": RECORD}), "x.tgz")
    assert (answer.json()["capabilities_imported"], answer.json()["agents_replaced"]) == (1, 0)
    assert [found["name"] for found in client.get("/capabilities").json()] == ["z"]
    assert raw_agents(client) == agents


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def linked() -> bytes:
    link = tarfile.TarInfo("agents/a/agent.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return packed((link, b""))


def negative() -> bytes:
    header = tarfile.TarInfo("agents/a/agent.json")
    header.size = -512
    return gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def nested_headers() -> bytes:
    """Return a header of headers, 1,000 deep."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 11
    record = header.tobuf(tarfile.USTAR_FORMAT) + b"11 path=ab\n".ljust(512, b"\0")
    return gzip.compress(record * 1000 + bytes(1024))


UNSAFE = "Invalid archive: contains unsafe paths"
NO_KIND = "Invalid archive: must contain 'agents/' and/or 'capabilities/' directory"
GOOD = {"agents/ok/agent.json": RECORD}


UNUSABLE = [
    (b"nothing", "Invalid tar.gz file: "),
    (b"", "Invalid tar.gz file: "),
    (archive_of(GOOD)[:-20], "Invalid tar.gz file: "),
    (negative(), "Invalid tar.gz file: "),
    (nested_headers(), "Invalid tar.gz file: "),
    (
        archive_of({f"agents/{'a/' * 4000}agent.json": RECORD}),
        "Invalid tar.gz file: it has a file of negative size, or",
    ),
    (gzip.compress(b"x" * 5000), "Invalid tar.gz file: "),
    (archive_of({"/agents/a/agent.json": RECORD}), UNSAFE),
    (archive_of({"agents/../../x": RECORD}), UNSAFE),
    (linked(), UNSAFE),
    (archive_of({"readme": b""}), NO_KIND),
    (archive_of({"scripts/s/script.json": b"{}"}), NO_KIND),
    (archive_of({"agents/a/README.md": b""}), "Invalid archive: no valid agents or capabilities found"),
    (archive_of(GOOD | {"agents/a/agent.json": b"{"}), "Invalid archive: agents/a: agent.json: JSON decode error"),
    (archive_of(GOOD | {"agents/a/agent.json": b'{"name": "a"}'}), "Invalid archive: agents/a: description: "),
    (archive_of(GOOD | {"agents/a b/agent.json": RECORD}), "Invalid archive: agents/a b: Agent name must start"),
    (
        archive_of(GOOD | {"agents/a/agent.json": RECORD, "agents/a/agent.system-prompt.md": b"\xff"}),
        "Invalid archive: agents/a: agent.system-prompt.md: Should be UTF-8",
    ),
    (
        archive_of(GOOD | {"agents/a/agent.json": RECORD, "agents/a/agent.mcp.json": b"{}"}),
        "Invalid archive: agents/a: agent.mcp.json: mcpServers: Field required",
    ),
]


def test_unusable_archive_is_refused(client: WebClient) -> None:
    """All or nothing: one entry that cannot be used refuses the archive."""
    for content, begin in UNUSABLE:
        answer = upload(client, content)
        assert answer.status_code == 400, (begin, answer.text)
        assert answer.json()["detail"].startswith(begin), answer.text
        assert raw_agents(client) == []


def test_unusable_upload_is_refused(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.post("/agents", {"name": "kept", "description": ""})
    answer = upload(client, archive_of(GOOD), "config.zip")
    detail = "Invalid file type. Please upload a .tar.gz or .tgz file."
    assert (answer.status_code, answer.json()) == (400, {"detail": detail})
    assert client.http.post("/config/import", files={"other": ("a.tgz", b"")}).status_code == 422
    assert client.http.post("/config/import", data={"file": "a.tgz"}).status_code == 422
    assert client.post("/config/import", {}).status_code == 422
    for disposition in ("form-data; filename*=a; filename*0=b", "form-data; name=file; filename*0=a; filename*=b"):
        body = f"--b\r\nContent-Disposition: {disposition}\r\n\r\nx\r\n--b--".encode()
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        assert client.http.post("/config/import", content=body, headers=headers).status_code == 422
    with monkeypatch.context() as patch:
        patch.setattr(config_trees, "MOST_UNPACKED", 1000)
        detail = upload(client, archive_of(GOOD)).json()["detail"]
        assert detail == "Invalid tar.gz file: more than 1000 bytes once unpacked"
    monkeypatch.setattr(imports, "MOST_BYTES", 10)
    assert upload(client, archive_of(GOOD)).status_code == 422
    assert [agent["name"] for agent in raw_agents(client)] == ["kept"]


# The directory of the replaced coordinator


def write(root: Path, files: Mapping[str, Any]) -> None:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=2).encode())


FILES: dict[str, Any] = {
    "agents/worker/agent.json": {"name": "Worker", "description": "d", "type": "procedural", "script": "s"},
    "agents/worker/README.md": b"ignored",
    "agents/talker/agent.json": {"name": "talker", "description": "d", "capabilities": ["c"], "tags": ["t"]},
    "agents/talker/agent.system-prompt.md": b"You talk.",
    "agents/talker/agent.mcp.json": {"mcpServers": {"m": {"ref": "srv"}}},
    "agents/talker/.disabled": b"",
    "agents/broken/agent.json": b"{",
    "agents/empty/README.md": b"",
    "capabilities/c/capability.json": {"name": "c", "description": "d", "script": "s"},
    "capabilities/c/capability.text.md": b"Text",
    "scripts/s/script.json": {"name": "s", "description": "d", "script_file": "s.py", "demands": {"tags": ["x"]}},
    "scripts/s/s.py": b"print()",
    "scripts/s/helper.py": b"",
    "scripts/gone/script.json": {"name": "gone", "description": "d", "script_file": "gone.py"},
    "mcp-servers/srv/mcp-server.json": {"id": "srv", "name": "Server", "url": "u", "more": 1},
}


def taken(db: DbVerbs, root: Path, *, dry_run: bool = False) -> dict[str, Any]:
    report = Report()
    import_directory(db.engine, root, report, dry_run=dry_run)
    return report_json(report, dry_run=dry_run)


def test_directory_is_imported_with_a_report_and_again_without_a_change(
    db: DbVerbs, client: WebClient, tmp_path: Path
) -> None:
    """A dry run reports the same and writes nothing; a repeat replaces what has changed and keeps what is here alone."""
    write(tmp_path, FILES)
    client.post("/agents", {"name": "own", "description": ""})
    dry = taken(db, tmp_path, dry_run=True)
    assert [agent["name"] for agent in raw_agents(client)] == ["own"]
    shown = taken(db, tmp_path)
    assert {**shown, "dry_run": True} == dry
    one = {"created": 1, "replaced": 0, "unchanged": 0}
    assert shown["registries"] == {
        "agents": {**one, "created": 2},
        "capabilities": one,
        "scripts": one,
        "mcp-servers": one,
    }
    assert shown["notes"] == [
        'agents/worker: name is that of the folder, not "Worker"',
        "scripts/s: further files stay behind: helper.py",
    ]
    refused = {(each["what"], one["id"]): one["detail"] for each in shown["refused"] for one in each["examples"]}
    assert refused == {
        ("agents", "broken"): "agent.json: JSON decode error",
        ("scripts", "gone"): "script_file: gone.py does not exist",
    }
    assert shown["not_imported"] == []
    talker = client.get("/agents/talker").json()
    assert talker["system_prompt"].startswith("You talk.\n\n---\n\nText\n\n---\n\n## Local Script: s")
    assert (talker["status"], talker["mcp_servers"]) == ("inactive", {"m": {"ref": "srv"}})
    assert client.get("/capabilities/c").json()["type"] == "script"
    assert client.get("/scripts/s").json()["script_content"] == "print()"
    write(tmp_path, {"agents/talker/agent.system-prompt.md": b"You sing."})
    again = taken(db, tmp_path)
    assert again["registries"]["agents"] == {"created": 0, "replaced": 1, "unchanged": 1}
    assert again["registries"]["scripts"] == {"created": 0, "replaced": 0, "unchanged": 1}
    assert [agent["name"] for agent in raw_agents(client)] == ["own", "talker", "worker"]
    targets = {row.target for row in db.rows("SELECT target FROM audit_log WHERE actor LIKE 'local:%'")}
    assert targets == {"agents/worker", "agents/talker", "capabilities/c", "scripts/s", "mcp-servers/srv"}


def test_full_registry_takes_nothing_of_a_directory(
    db: DbVerbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, FILES)
    monkeypatch.setattr(imports, "MOST_ENTRIES", 1)
    shown = taken(db, tmp_path)
    assert "registry_full" in {refused["reason"] for refused in shown["refused"]}
    assert db.count("registry_entries") == 0


def test_files_that_are_too_large_refuse_their_entry(tmp_path: Path) -> None:
    write(tmp_path, {"scripts/s/script.json": FILES["scripts/s/script.json"], "scripts/s/s.py": b"x" * (2**21 + 1)})
    (refused,) = entries_of(DirectoryTree(tmp_path), [Kind.SCRIPT]).refused
    assert (refused.name, refused.reason) == ("s", "A file of it is too large")
