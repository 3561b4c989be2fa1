"""Failed runs grouped by the fingerprint of their error."""

from models.core.callers import ADMIN, Caller, Role
from models.runs.failures import Failures, group_failures
from models.runs.search import RunSearch
from runtime.settings import Settings
from tests.support.answer_models import check_fields
from tests.support.db_verbs import DbVerbs
from tests.support.reports import accepted, running
from tests.support.web import served, until_ready

ANN = Caller(Role.USER, "ann")


def groups(db: DbVerbs, caller: Caller = ADMIN, which: RunSearch | None = None, *, most: int = 2000) -> Failures:
    return db.do(group_failures, caller, which or RunSearch(), most=most)


def test_failed_runs_are_grouped_by_what_failed(db: DbVerbs) -> None:
    """Show the largest group first, each with its newest run; see one's own runs alone; say where the look ended."""
    runner = db.runner()
    runs = [running(db, runner, agent_name="a" if n else None) for n in range(4)]
    for number, run in enumerate(runs):
        error = "no space left" if number == 1 else f"cannot reach 10.0.0.{number} after {number} s"
        accepted(db, run, "failed", error=error)
    accepted(db, running(db, runner), "completed")
    own = running(db, runner, caller=ANN)
    accepted(db, own, "failed", error=None)

    found = groups(db)
    assert found.runs == 5
    assert [group.count for group in found.groups] == [3, 1, 1]
    largest = found.groups[0]
    assert (largest.newest_run_id, largest.run_ids) == (runs[3].run_id, [runs[n].run_id for n in (3, 2, 0)])
    assert (largest.text, largest.example) == ("cannot reach <n> after <n> s", "cannot reach 10.0.0.3 after 3 s")
    assert (largest.agents, found.searched_until) == ({"a": 2}, None)
    assert [group.text for group in groups(db, ANN).groups] == ["no error given"]
    assert [group.count for group in groups(db, which=RunSearch(error_contains="SPACE")).groups] == [1]
    bounded = groups(db, most=2)
    assert (bounded.runs, bounded.searched_until) == (2, db.run(runs[3].run_id).created_at)


def test_failures_over_http(settings: Settings, db: DbVerbs) -> None:
    with served(settings) as web:
        until_ready(web)
        client = web.client
        runner_id = client.register()
        for number in range(2):
            run = client.started(runner_id)
            client.report(run, runner_id, "failed", error=f"row {number}: NUL \0 and \ud800")
        found = client.get("/runs/failures").json()
        check_fields("GET /runs/failures", 200, found)
        (group,) = found["groups"]
        assert (group["count"], len(group["run_ids"])) == (2, 2)
        for query in ({"status": "failed"}, {"ended_after": "now"}, {"error_contains": "x" * 300}):
            assert client.get("/runs/failures", **query).status_code == 422
        body = {"action": "replay", "run_ids": group["run_ids"], "dry_run": True}
        assert client.post("/bulk", body).json()["matches"] == 2
