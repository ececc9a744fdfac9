#!/usr/bin/env python3
"""Count instructions, and fail if a switch, a birth or a throw takes more of them than it did.

    python benchmarks/guard.py --python PYTHON [--update] [NAME ...]

Times vary with the machine and with what else it does; the number of instructions does not, so 2 %
more are seen at once. They are counted by valgrind's callgrind. Each workload runs in two
processes, one of which repeats it LOOPS times more than the other: the difference is what the
repetitions took, and everything that happens once drops out. So does the C library, which has other
code for other processors. Under valgrind a program takes some fifty times longer. So its clocks go
slower (slow_clock.c): what is done by the clock would count fifty times otherwise.

Two counts are kept in `instructions.json` for each workload: instructions in the extension module,
and in the interpreter on its behalf. Which they are depends on the compiler. With another release
of the one that the numbers are of, or another compiler, a workload may take more; see TOLERANCES.
Numbers of the interpreter hold for one release of it, built in one way, and are not looked at with
any other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from workloads import WORKLOADS

FOLDER = Path(__file__).parent
NUMBERS = FOLDER / "instructions.json"

GUARDED = ("switch", "switch_value", "switch_c_api", "throw", "create", "kill")
LOOPS = 1024  # a multiple of what our pool does only once in a while

# How much more instructions in the extension module are taken for the same code, ...
TOLERANCES = {
    "release": 0.02,  # compiled by the same release of the same compiler
    "series": 0.05,  # by another release of it
    "other": 0.20,
}
# ... and in the interpreter, where hash tables and counters of the specializing interpreter differ
# from run to run.
INTERPRETER_TOLERANCE = 0.10


class Counts(NamedTuple):
    """Instructions that one unit of a workload takes: one switch, one greenlet, one throw."""

    module: float
    interpreter: float


class Build(NamedTuple):
    """What the counts depend on."""

    machine: str
    interpreter: str  # as tools/interpreters.py names it
    compiler: str
    built: str  # the interpreter's release, and how it was built

    @property
    def key(self) -> str:
        return f"{self.machine} {self.interpreter}"


def describe_build() -> None:
    """Print the Build that runs this, as JSON."""
    import sysconfig

    import greenlet._greenlet

    text = Path(greenlet._greenlet.__file__).read_bytes()  # what compiled it says so in .comment
    compilers = re.findall(rb"(clang) version ([\d.]+)|(GCC): \([^)]*\) ([\d.]+)", text)
    named = sorted(b" ".join(filter(None, each)).decode().lower() for each in set(compilers))
    free_threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    options = re.sub(r"'--prefix=[^']*'", "", sysconfig.get_config_var("CONFIG_ARGS") or "")
    build = Build(
        platform.machine(),
        "{}.{}{}".format(*sys.version_info[:2], free_threaded),
        named[0] if named else "unknown",
        " ".join([platform.python_version(), platform.python_compiler(), *options.split()]),
    )
    print(json.dumps(build._asdict()))


def read_profile(file: Path) -> Counter[str]:
    """Instructions by object file, calls not included, as callgrind has written them."""
    names: dict[str, str] = {}
    instructions: Counter[str] = Counter()
    current = ""
    of_call = False
    for line in file.read_text().splitlines():
        if match := re.match(r"c?ob=(\(\d+\))(?: (.*))?$", line):
            if match[2] is not None:  # numbered where it is first named
                names[match[1]] = match[2]
            if not line.startswith("c"):
                current = names[match[1]]
        elif line.startswith("calls="):
            of_call = True
        elif match := re.match(r"[+*\d-]\S* (\d+)$", line):
            if not of_call:
                instructions[current] += int(match[1])
            of_call = False
    return instructions


def profile(python: str, clock: Path, name: str, loops: int) -> Counter[str]:
    """Run a workload under callgrind."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "callgrind.out")
        command: list[str | Path] = [
            *("valgrind", "--tool=callgrind", "-q", f"--callgrind-out-file={output}"),
            *(python, "-s", "-B", FOLDER / "repeat.py", name, f"{loops:06}"),
        ]
        if fixed := shutil.which("setarch"):
            # Addresses are hashed, too. Where this is not allowed, some containers, do without.
            allowed = subprocess.run([fixed, "-R", "true"], capture_output=True, check=False)
            command = [fixed, "-R", *command] if allowed.returncode == 0 else command
        environment = {"PATH": os.defpath, "PYTHONHASHSEED": "0", "HOME": folder, "LC_ALL": "C"}
        environment["LD_PRELOAD"] = str(clock)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode or not output.exists():
            raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
        return read_profile(output)


def make_clock(folder: Path) -> Path:
    """Compile slow_clock.c."""
    library = folder / "slow_clock.so"
    command = ("cc", "-O1", "-shared", "-fPIC", "-o", library, FOLDER / "slow_clock.c")
    subprocess.run(command, check=True)
    return library


def count(python: str, clock: Path, name: str, per_loop: int) -> Counts:
    """The instructions of one unit of a workload."""
    few, many = (profile(python, clock, name, loops) for loops in (LOOPS, 2 * LOOPS))
    module = interpreter = 0
    for object_file in many:
        instructions = many[object_file] - few[object_file]
        base = Path(object_file).name
        if base.startswith("_greenlet."):
            module += instructions
        elif re.match(r"(lib)?python", base):
            interpreter += instructions
    units = LOOPS * per_loop
    return Counts(round(module / units, 1), round(interpreter / units, 1))


def tolerance(known: str, compiler: str) -> float:
    """How much more the extension module may take than numbers of that compiler's say."""
    if known == compiler:
        return TOLERANCES["release"]
    same_series = known.partition(".")[0] == compiler.partition(".")[0]
    return TOLERANCES["series" if same_series else "other"]


def judge(name: str, now: Counts, then: Counts | None, known: Build | None, build: Build) -> bool:
    """Print a line of the table; return whether the workload takes no more than it may."""
    line = f"{name:<14}{now.module:>10,.1f}{now.interpreter:>13,.1f}"
    if then is None or known is None:
        print(f"{line}   no numbers to compare with")
        return True
    change = now.module / then.module - 1
    allowed = tolerance(known.compiler, build.compiler)
    passed = change <= allowed
    line += f"{then.module:>10,.1f} {change:>+7.1%} (<= {allowed:.0%})"
    if known.built == build.built:
        change = now.interpreter / then.interpreter - 1
        passed &= change <= INTERPRETER_TOLERANCE
        line += f"{then.interpreter:>10,.1f} {change:>+7.1%} (<= {INTERPRETER_TOLERANCE:.0%})"
    print(f"{line}  {'pass' if passed else 'FAIL'}")
    return passed


def guard(python: str, names: Sequence[str], *, update: bool) -> bool:
    """Count, compare and print; return whether all is well."""
    command = [python, "-E", "-s", __file__, "--describe"]
    described = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    build = Build(**json.loads(described.stdout))
    numbers = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    known = numbers.get(build.key)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        clock = make_clock(Path(folder))
        each = pool.map(lambda name: count(python, clock, name, WORKLOADS[name].per_loop), names)
        counted = dict(zip(names, each, strict=True))
    print(f"instructions of one, on {build.key}, compiled by {build.compiler}")
    print(f"{'':<14}{'module':>10}{'interpreter':>13}")
    passed = 0
    for name, now in counted.items():
        then = Counts(**known["counts"][name]) if known and name in known["counts"] else None
        passed += judge(name, now, then, Build(**known["build"]) if known else None, build)
    if update:
        kept = dict(known["counts"]) if known else {}
        kept |= {name: each._asdict() for name, each in counted.items()}
        numbers[build.key] = {"build": build._asdict(), "counts": kept}
        NUMBERS.write_text(json.dumps(numbers, indent=2, sort_keys=True) + "\n")
        print(f"kept in {NUMBERS.name}")
        return True
    print(f"{passed} passed, {len(counted) - passed} failed")
    return passed == len(counted)


def main() -> int:
    parser = argparse.ArgumentParser(description="Instructions against instructions.json.")
    parser.add_argument("--python", help="an interpreter that imports our greenlet")
    parser.add_argument("--update", action="store_true", help="keep what is counted now")
    parser.add_argument("--describe", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(GUARDED))
    options = parser.parse_args()
    if options.describe:
        describe_build()
    elif not options.python:
        parser.error("--python is needed")
    else:
        return 0 if guard(options.python, options.names or GUARDED, update=options.update) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
