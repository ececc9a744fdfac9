"""memray and pytest-memray, which follow greenlets by a trace callback.

They count the same with our greenlet as with the published one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from environment import CHECKOUT, PROGRAMS, PUBLISHED, Environment, make_environment

REQUIREMENTS = (
    "memray",
    "pytest-memray",
    "pytest-timeout",
    "gevent",
    "sqlalchemy[asyncio]>=2",
    "aiosqlite",
)
MEGABYTE = 1_000_000

pytestmark = pytest.mark.timeout(900)  # the first run builds a wheel and an environment


def tracked(
    environment: Environment, to: Path, program: str, *arguments: str, options: Sequence[str] = ()
) -> str:
    """Run a program under memray, which writes into a file; return what the program printed."""
    memray = ("-m", "memray", "run", "--quiet", "--output", str(to), *options)
    return environment.run(program, *arguments, under=memray, timeout=180)


def test_an_echo_server_runs_under_memray(tmp_path: Path) -> None:
    environment = make_environment("memray", *REQUIREMENTS)
    server = str(CHECKOUT / "examples" / "echo_server.py")
    output = tracked(environment, tmp_path / "result", server, "--connections", "200")
    assert "nothing" in output.splitlines()[-1], output  # is lost


def test_gevent_runs_under_memray(tmp_path: Path) -> None:
    environment = make_environment("memray", *REQUIREMENTS)
    output = tracked(environment, tmp_path / "result", "gevent_services.py")
    assert "inspection: " in output, output


def test_hubs_of_gevent_in_threads_run_under_memray(tmp_path: Path) -> None:
    environment = make_environment("memray", *REQUIREMENTS)
    output = tracked(environment, tmp_path / "result", "hubs_that_stay.py", "gevent")
    assert "the program ends\n" in output


def test_sqlalchemy_runs_under_memray(tmp_path: Path) -> None:
    environment = make_environment("memray", *REQUIREMENTS)
    output = tracked(environment, tmp_path / "result", "sqlalchemy_bank.py")
    assert "every row is as expected\n" in output, output


def test_the_contract_runs_under_pytest_memray() -> None:
    """Some of its scripts; `make interop` runs all."""
    environment = make_environment("memray", *REQUIREMENTS)
    scripts = "tracing or switching or throwing or threads or collection"
    pytest_memray = ("-m", "pytest", "--memray", "-k", scripts, "-q", "-p", "no:cacheprovider")
    output = environment.run("contract_scripts.py", under=pytest_memray, timeout=300)
    assert "Allocation results for " in output, output


class Report(NamedTuple):
    """What memray counts of the program allocations.py."""

    peak: int
    functions: dict[str, int]  # the bytes that each function of it has allocated
    joined: bool  # native traces have frames of both Python and greenlet
    allocating: list[str]  # the functions that do by themselves


def report(environment: Environment, to: Path, *options: str) -> Report:
    program = PROGRAMS / "allocations.py"
    names, total = tracked(environment, to, program.name, options=options).splitlines()[-2:]
    assert int(total) == 53 * MEGABYTE
    read = environment.run("memray_report.py", str(to), str(program), timeout=60)
    return Report(**json.loads(read), allocating=names.split())


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Report]:
    """Ours and the published one's."""
    if PUBLISHED:
        pytest.skip("GREENLET_INTEROP_WITH=published leaves nothing to compare with")
    folder = tmp_path_factory.mktemp("memray")
    environment = make_environment("memray", *REQUIREMENTS)
    other = make_environment("memray", *REQUIREMENTS, published=True)
    return report(environment, folder / "ours"), report(other, folder / "published")


def test_memray_counts_bytes_to_the_functions_that_allocate(
    reports: tuple[Report, Report],
) -> None:
    ours, published = reports
    assert ours.allocating == published.allocating
    for name in ours.allocating:
        assert ours.functions[name] == pytest.approx(published.functions[name], rel=0.01), name


def test_memray_does_not_count_reserved_stacks_as_allocations(
    reports: tuple[Report, Report],
) -> None:
    ours, published = reports
    assert abs(ours.peak - published.peak) < MEGABYTE, (ours, published)
    others = ours.functions.keys() | published.functions.keys()
    for name in others - set(ours.allocating):
        difference = ours.functions.get(name, 0) - published.functions.get(name, 0)
        assert abs(difference) < MEGABYTE, (name, ours, published)
