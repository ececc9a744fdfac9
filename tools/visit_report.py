"""Run tests/python/exact_visits.py on interpreters, and print the table of what it found.

    visit_report.py [NAME ...] [--seconds S] [--share X] [--sample X]

NAME is an interpreter of interpreters.py; without it, all supported ones, one after the other. The
log of each is build/logs/exact-visits-NAME.log, with the places that hid a reference, and the
result build/exact-visits/NAME.json. The last line is `N passed, N failed`.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import environments
import interpreters
from suites import CHECKOUT

RESULTS = CHECKOUT / "build" / "exact-visits"
LOGS = CHECKOUT / "build" / "logs"
COMPILE = CHECKOUT / "tests" / "extensions" / "compile.py"
MACHINE = CHECKOUT / "tests" / "python" / "exact_visits.py"
COLUMNS = (
    *("CPython", "shapes", "switches looked at", "objects compared"),
    *("too many visits", "too few", "of them hidden by C"),
)


def check(name: str, base: Path, options: argparse.Namespace) -> Any:
    """Run it on one interpreter; what it found, or None if it did not come to its end."""
    python = environments.ours(name, base)
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    extension = subprocess.run(
        [python, COMPILE, "visits.c", CHECKOUT / "include", folder],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    log = LOGS / f"exact-visits-{name}.log"
    command = [python, "-B", "-X", "faulthandler", MACHINE, extension, "--full", "--show-hidden"]
    command += ["--seconds", str(options.seconds), "--share", str(options.share)]
    command += ["--sample", str(options.sample), "--progress", folder / "progress"]
    with open(log, "w", encoding="utf-8") as file:
        done = subprocess.run(
            list(map(str, command)), stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode not in (0, 1):
        print(f"{name}: ended with {done.returncode} in {(folder / 'progress').read_text()}")
        return None
    result = json.loads(log.read_text().splitlines()[-1])
    for fault in result["faults"]:
        print(f"{name}: {fault}")
    RESULTS.joinpath(f"{name}.json").write_text(json.dumps(result, indent=1))
    return result


def row(name: str, result: Any) -> list[str]:
    """The line of the table for one interpreter."""
    totals = result["modes"].values()

    def total(key: str) -> int:
        return sum(mode[key] for mode in totals)

    few, unexplained = total("short"), total("short_unexplained")
    numbers = (
        *(result["shapes"], total("switches"), total("compared")),
        *(total("too_many") + total("not_shown"), few, few - unexplained),
    )
    return [name, *(f"{number:,}" for number in numbers)]


def table(rows: Iterable[list[str]]) -> Iterator[str]:
    """The rows as Markdown."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"| {' | '.join('---' for _ in COLUMNS)} |"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def main() -> int:
    """Run what the command line names and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seconds", type=float, default=60.0, help="of shapes at random")
    parser.add_argument("--share", type=float, default=1.0, help="of the opcodes to leave at")
    parser.add_argument("--sample", type=float, default=1.0, help="of the shapes")
    options = parser.parse_args()
    names = options.names or list(interpreters.STANDARD)
    found = interpreters.provide(names)
    rows = []
    failed = 0
    for name in names:
        result = check(name, found[name], options) if name in found else None
        failed += result is None or bool(result["faults"])
        if result is not None:
            rows.append(row(name, result))
            print("; ".join(rows[-1]), flush=True)
    print("\n".join(table(rows)))
    print(f"{len(names) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
