"""Count the lines and branches of src/ that the tests reach: on all interpreters, merged.

Each interpreter has an environment of its own, with greenlet compiled for gcov. A process writes
its counts when it exits, or calls os._exit() (coverage_sitecustomize.py). The counts of processes
that are killed, or crash, are lost. gcovr merges what the others have written.
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import environments
import interpreters
import nox
import suites
from suites import CHECKOUT

FOLDER = CHECKOUT / "build" / "coverage"
NATIVE = FOLDER / "native"  # as CMakePresets.json says
HOOK = CHECKOUT / "tools" / "coverage_sitecustomize.py"
LEAST_PERCENT_OF_LINES = 95
KINDS = ("line", "branch")
# What gcov itself breaks: it maps its files, cannot open them without privileges, and says so.
DESELECTED = [
    "--deselect=tests/python/test_limits.py::test_reservations_pass_by_whoever_counts_calls_of_mmap",
    "--deselect=tests/python/test_limits.py::test_a_limit_on_locked_memory_does_not_bound_reservations",
    "--deselect=tests/python/test_outside.py::test_no_permission",
]


def forget(folder: Path) -> None:
    """Remove the counts of an earlier run."""
    for counts in folder.rglob("*.gcda"):
        counts.unlink()


def run_python(report: suites.Report, name: str, base: Path) -> None:
    """Run the Python and contract tests on an interpreter."""
    folder = FOLDER / name
    settings = (
        f"build-dir={folder}",
        "cmake.build-type=Debug",
        "cmake.define.GREENLET_COVERAGE=ON",
        "install.strip=false",
    )
    options = [f"--config-setting={setting}" for setting in settings]
    with environments.required(report, f"{name}-coverage"):
        place = environments.FOLDER / f"{name}-coverage"
        python = environments.make(place, base, "--group", "test")
        environments.install(python, "--no-deps", "--no-build-isolation", *options, CHECKOUT)
        (packages,) = place.glob("lib/*/site-packages")
        shutil.copy(HOOK, packages / "sitecustomize.py")
        environments.published(name, base)  # for the contract
        forget(folder)
        for suite in ("python", "contract"):
            label = f"{name}-coverage-{suite}"
            suites.pytest(report, label, [python], f"tests/{suite}", *DESELECTED, echo=False)


def summarize(session: nox.Session) -> float:
    """Print what was reached in each room, and in all; return the percentage of lines."""
    summary = FOLDER / "summary.json"
    session.run(
        *("gcovr", "--root", str(CHECKOUT), "--filter", "src/", "-j", "2"),
        *("--merge-mode-functions", "merge-use-line-min", "--exclude-unreachable-branches"),
        *("--json-summary", str(summary), "--html-details", str(FOLDER / "index.html")),
        *("--txt", str(FOLDER / "lines.txt"), str(FOLDER)),
    )
    found = json.loads(summary.read_text())
    rooms: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for file in found["files"]:
        for room in (str(Path(file["filename"]).parent), "all"):
            for kind in KINDS:
                rooms[room][kind] += file[f"{kind}_covered"]
                rooms[room][f"all {kind}"] += file[f"{kind}_total"]
    for room in sorted(rooms, key=lambda room: (room == "all", room)):
        counts = rooms[room]
        figures = [
            f"{counts[kind]:5} of {counts[f'all {kind}']:5} {kind}es ".replace("linees", "lines")
            + f"({100 * counts[kind] / max(counts[f'all {kind}'], 1):.1f} %)"
            for kind in KINDS
        ]
        print(f"{room:14}", *figures)
    print(f"each line: {(FOLDER / 'index.html').relative_to(CHECKOUT)}")
    return float(found["line_percent"])


def run(
    session: nox.Session, report: suites.Report, run_native: Callable[[str, str | Path], None]
) -> None:
    """Run the native tests, and those of Python, as far as they are asked for; add it all up."""
    names = session.posargs or ["native", *interpreters.STANDARD]
    if "native" in names:
        forget(NATIVE)
        run_native("coverage", session.bin)
    os.environ["GREENLET_COVERAGE"] = "1"  # for time limits
    found = interpreters.provide(name for name in names if name != "native")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: run_python(report, *each), found.items()))
    reached = summarize(session)
    print(f"{reached} % of all lines; {LEAST_PERCENT_OF_LINES} % have to be reached")
    if not session.posargs:
        enough = reached >= LEAST_PERCENT_OF_LINES
        report.add("lines reached", suites.Counts(int(enough), int(not enough)))
