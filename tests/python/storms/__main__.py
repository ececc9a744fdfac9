"""Run storms, each in a process of its own: python -m storms SECONDS [--seed N] [NAME...].

SECONDS is the time of each. A storm ends with status 1 if something was wrong, and with 3 and the
traces of all threads if it made no progress. A seed repeats what each thread draws, but not how
threads meet.

    python -m storms SECONDS --here NAME...   in this process, one after the other
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from storms.common import MONITORING_MAY_CHANGE, THREAD_SANITIZER, Storm

NAMES = (
    "containers",
    "monitoring",
    "frames",
    "finalizers",
    *(["forks"] if hasattr(os, "fork") else []),
    "subinterpreters",
    "exits",
)
# A greenlet that is killed while it deallocates another one goes on.
EXPECTED_LINES = ("GreenletExit did not kill ",)
MOST_LINES = 60
FOLDER = Path(__file__).parents[1]
# Programs of the folder above that are storms, too.
PROGRAMS = ("stress_storm", "stress_threads")


def run_here(name: str, seconds: float, seed: int, stall: float) -> bool:
    """Run a storm in this process; return whether all was well."""
    faulthandler.enable()
    if sys.platform == "win32":
        faulthandler.dump_traceback_later(seconds + 2 * stall, exit=True)
    else:
        # Not dump_traceback_later(): a child that was forked would wait for its thread at the end.
        faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
        signal.alarm(round(seconds + 2 * stall))
    storm = Storm(seed, seconds, stall)
    sys.unraisablehook = storm.note_unraisable
    importlib.import_module(f"storms.{name}").run(storm)
    if sys.platform == "win32":
        faulthandler.cancel_dump_traceback_later()
    else:
        signal.alarm(0)
    print(f"{name}: {storm.numbers()}", flush=True)
    if storm.faults:
        print(f"{name}, seed {seed}: {len(storm.faults)} faults", file=sys.stderr)
    return not storm.faults


def run_process(name: str, seconds: float, seed: int, stall: float) -> bool:
    """Run a storm in a process of its own; return whether all was well."""
    started = time.monotonic()
    options = ("--seed", str(seed), "--stall", str(stall))
    if name in PROGRAMS:
        command = [f"{FOLDER / name}.py", *options, str(seconds)]
        if name == "stress_storm" and not MONITORING_MAY_CHANGE:
            command += ["--without", "monitoring"]
    else:
        command = ["-m", "storms", *options, "--here", str(seconds), name]
    path = os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # so that its children can be ended with it
    )
    try:
        output, complaints = process.communicate(timeout=seconds + 3 * stall)
    except subprocess.TimeoutExpired:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        output, complaints = process.communicate()
    errors = [line for line in complaints.splitlines() if not line.startswith(EXPECTED_LINES)]
    well = process.returncode == 0 and not errors
    print(f"{name}, seed {seed}, {time.monotonic() - started:.0f} s: {'well' if well else 'WRONG'}")
    print(output, end="", flush=True)
    if not well:
        print(f"ended with {process.returncode}", *errors[:MOST_LINES], sep="\n", flush=True)
    return well


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--stall", type=float, default=300.0 if THREAD_SANITIZER else 120.0)
    parser.add_argument("--here", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES + PROGRAMS))
    options = parser.parse_args()
    names = options.names or (NAMES if options.here else NAMES + PROGRAMS)
    run = run_here if options.here else run_process
    runs = [
        run(name, options.seconds, options.seed + number, options.stall)
        for number, name in enumerate(names)
    ]
    if not options.here:
        print(f"{sum(runs)} storms passed, {len(runs) - sum(runs)} failed")
    sys.exit(not all(runs))


if __name__ == "__main__":
    main()
