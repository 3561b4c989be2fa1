"""Credentials appear in no log line."""

from models.core.callers import Role
from testkit.cluster import Cluster
from tests.support.callers import bearer, make_key
from tests.support.db_verbs import DbVerbs
from tests.support.issuer import forgeries, issuing
from tests.support.web import PROMPT, WebClient


def test_no_credential_is_ever_logged(cluster: Cluster, db: DbVerbs) -> None:
    """Present good and bad ones in every way, on every path, also in requests that fail."""
    with issuing() as issuer:
        web = cluster.start_web(auth=1, allow_query_tokens=1, log_level="debug", **issuer.settings)
        worker = cluster.start_worker(log_level="debug")
        key = make_key(db, Role.ADMIN)
        unknown = f"crd_0123456789ab_{64 * 'f'}"
        shown = [key, unknown, issuer.token(), *forgeries(issuer).values()]
        client = WebClient(web.url)
        for token in shown:
            for path in ("/runs", "/nowhere", "/sessions/none", "/runner/runs?runner_id=x&wait=0"):
                client.http.get(path, headers=bearer(token))
                client.http.get(path, headers={"X-API-Key": token})
            client.http.get("/runs", params={"api_key": token})
            with client.http.stream("GET", "/sse/sessions", params={"api_key": token}):
                pass
            client.http.post("/runs", content=b"\xff", headers=bearer(token))
        ticket = client.post("/sse/ticket", {}, **bearer(key)).json()["ticket"]
        for _ in range(2):
            with client.http.stream("GET", "/sse/sessions", params={"ticket": ticket}):
                pass
        body = {"type": "start_session", "parameters": PROMPT}
        assert client.post("/runs", body, **bearer(key)).status_code == 201
        logs = web.log() + worker.log()
        client.close()
    assert "token rejected" in logs
    for secret in (*(token.rpartition("_")[2] for token in (key, unknown)), *shown[2:], ticket):
        assert secret not in logs
