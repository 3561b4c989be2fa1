"""Check the comparison with peers (table, pins, roster, sums of a load) without installing or measuring anything."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.peers import command
from benchmarks.peers.driver import closed_loop, measured_alone
from benchmarks.peers.environments import REQUIREMENTS, pinned, reason, versions
from benchmarks.peers.roster import OUR_GUARANTEES, PEERS, Peer
from benchmarks.peers.table import HEADINGS, Compared, Figures, table

VISITS: list[Figures] = [
    {"submissions": 100.0, "lives": 10.0, "start_p50_ms": 7.0, "cpu_ms_a_life": 1.5},
    {"submissions": 300.0, "lives": 30.0, "start_p50_ms": 9.0, "cpu_ms_a_life": 2.5},
    {"submissions": 200.0, "lives": 20.0, "start_p50_ms": 8.0, "cpu_ms_a_life": 2.0},
]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_shows_medians_with_least_and_most() -> None:
    shown = table({"ours": Compared("1.0", "as deployed", OUR_GUARANTEES, VISITS)}).splitlines()
    assert cells(shown[0]) == list(HEADINGS)
    assert cells(shown[2])[:6] == [
        "ours",
        "1.0",
        "200 (100 to 300)",
        "20.0 (10.0 to 30.0)",
        "8.00 (7.00 to 9.00)",
        "2.00 (1.50 to 2.50)",
    ]
    assert shown[-1] == "- ours: as deployed"


def test_peer_without_figures_is_in_the_table_with_its_reason() -> None:
    compared = {"slow": Compared("2.0", "alone", OUR_GUARANTEES, failures=["not installed: npm not found"])}
    shown = table(compared).splitlines()
    assert cells(shown[2])[:4] == ["slow", "2.0", "FAILED: not installed: npm not found", ""]
    assert "- slow: FAILED: not installed: npm not found" in shown


def test_long_reason_is_cut_in_the_table_only() -> None:
    shown = table({"slow": Compared("2.0", "alone", OUR_GUARANTEES, failures=["x" * 200])}).splitlines()
    assert len(cells(shown[2])[2]) == 60
    assert f"- slow: FAILED: {'x' * 200}" in shown


def test_failure_of_one_round_is_told_beside_the_figures_of_others() -> None:
    compared = {"flaky": Compared("2.0", "alone", OUR_GUARANTEES, VISITS[:1], ["lives ended with 1"])}
    shown = table(compared).splitlines()
    assert cells(shown[2])[2] == "100"
    assert "- flaky: FAILED: lives ended with 1" in shown


def test_pins_are_read_by_name() -> None:
    assert pinned("celery==5.7.0\nPyYAML==6.0.4\n# comment\nhttp-tools\n") == {"celery": "5.7.0", "pyyaml": "6.0.4"}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_is_pinned_and_has_a_driver(peer: Peer) -> None:
    """Requirements pin each package and name no host."""
    lines = (REQUIREMENTS / f"{peer.name}.txt").read_text().splitlines()
    assert len(pinned("\n".join(lines))) == len(lines)
    assert all(package.rpartition("/")[2] in versions(peer) for package in peer.packages)
    assert (Path(command.__file__).parent / "drivers" / f"{peer.name}.py").exists()


def test_drivers_need_no_package_of_ours() -> None:
    """A peer's environment has the standard library, uvloop, orjson and httptools."""
    own = {"uvloop", "orjson", "httptools"}
    for peer in PEERS:
        assert own <= set(pinned((REQUIREMENTS / f"{peer.name}.txt").read_text()))


def test_reason_is_last_line_that_names_an_error() -> None:
    said = "Collecting x\nERROR: No matching distribution found for x\n\nnotice: update pip\n"
    assert reason(said, "nothing") == "ERROR: No matching distribution found for x"
    said = "npm error notarget No matching version\nnpm error A complete log of this run can be found in: x\n"
    assert reason(said, "nothing") == "npm error notarget No matching version"
    assert reason("one\ntwo\n", "nothing") == "two"
    assert reason(" \n", "nothing") == "nothing"


def test_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["no-such-peer"])
    assert "no such peer: no-such-peer" in capsys.readouterr().err


def test_list_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list", "celery"]) == 0
    assert capsys.readouterr().out.startswith("celery         celery ")


async def test_closed_loop_counts_answers_of_its_window() -> None:
    calls = 0

    async def verb() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)

    figures = await closed_loop(verb, seconds=0.1, clients=2)
    assert 0 < figures["count"] < calls


async def test_single_starts_leave_out_uncounted_ones() -> None:
    took = iter([9.0, 0.001, 0.002, 0.003])

    async def verb() -> float:
        return next(took)

    assert await measured_alone(verb, samples=3, uncounted=1) == {"p50": 2.0, "p99": 3.0}
