"""Run the suites of programs that depend on greenlet, with the published one and with ours.

    interop.py                                    every suite on every interpreter, once
    interop.py --suites gevent-libev --interpreters 3.14 3.14t --runs 3
    interop.py --table                            only generate the table again
    interop.py --load --interpreters 3.14         fixed loads, on a quiet machine
    interop.py --load bench_hub load_eventlet     some of them

Two environments differ in the greenlet alone. How each test went is compared and kept in
tests/interop/results, and docs/compatibility.md gets a table of it. Ends with 1 if a test passes
with the published greenlet and fails with ours in every run so far. No known tool compares two
environments test by test, over suites of others that crash and hang. Earlier runs are remembered in
build/dependents, environments are kept in .venvs/dependents: remove them to begin afresh.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import interpreters
from dependents import environment, load, results, running, table
from dependents.catalog import SUITES, Suite
from dependents.environment import SIDES
from dependents.results import Results, Run
from environments import Unavailable

# Where the suites are run; 3.12 lies between two others.
INTERPRETERS = ("3.11", "3.13", "3.14", "3.14t", "3.15", "3.15t")


def _full_version(python: Path) -> str:
    code = "import platform, sys; print(platform.python_version() + sys.abiflags)"
    command: list[str | Path] = [python, "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def _reason(error: Unavailable) -> str:
    """Return what the table says of a suite that could not be installed: pip's last error."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line.startswith(("ERROR:", "error:"))]
    return (told or lines)[-1].removeprefix("ERROR:").strip().replace("|", "/")[:160]


def run(suite: Suite, name: str, base: Path) -> None:
    """Run a suite on both sides once, and keep how it went."""
    where = results.path(suite.slug, name)
    try:
        pair = environment.make(name, base, suite.requirements)
    except Unavailable as error:
        _say(f"{suite.slug} on {name}: not installable\n{error}")
        results.write(where, Results(suite.slug, name, unavailable=_reason(error)))
        return
    version = pair.versions[suite.package]
    outcomes = {}
    for side in SIDES:
        started = time.monotonic()
        outcomes[side] = running.run(suite, pair, side, name)
        counts = dict(Counter(outcomes[side].values()))
        seconds = time.monotonic() - started
        _say(f"{suite.slug} {version} on {name}, {side}: {counts} in {seconds:.0f} s")
    kept = results.keep(
        Run(suite.slug, name, _full_version(base), version, pair.greenlets, outcomes)
    )
    found = results.digest(kept)
    results.write(where, found)
    for kind in ("failing with ours", "failing with the published", "flaky"):
        for test, how in sorted(found.of_kind(kind).items()):
            print(f"  {kind}: {test} ({how.published} {how.ours})", flush=True)


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    slugs = [suite.slug for suite in SUITES]
    parser.add_argument("--suites", nargs="+", choices=slugs, default=slugs, metavar="NAME")
    parser.add_argument("--interpreters", nargs="+", default=INTERPRETERS, metavar="NAME")
    parser.add_argument("--runs", type=int, default=1)
    loads = [each.slug for each in load.LOADS]
    parser.add_argument(
        "--load", nargs="*", choices=loads, metavar="NAME", help="compare speed, not tests"
    )
    parser.add_argument("--table", action="store_true", help="only generate the table again")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # ends the suite that runs, too
    if options.load is not None:
        for name, base in interpreters.provide(options.interpreters).items():
            for line in load.measure(name, base, options.runs, options.load or loads):
                _say(f"{name}: {line}")
    elif not options.table:
        suites = [suite for suite in SUITES if suite.slug in options.suites]
        found = interpreters.provide(options.interpreters)
        for _ in range(options.runs):
            for suite in suites:
                for name, base in found.items():
                    run(suite, name, base)
    table.update()
    failed = table.failures()
    for line in failed:
        print(f"passes with the published greenlet alone: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
