"""Run the Python suite under CPython's JIT.

    jit_test.py [--only TEST ...] [NAME ...]        default: 3.14 3.15

To compile CPython with its JIT takes LLVM; Debian's own python3.14 and python3.15 have it. So this
makes a Debian unstable system in a folder beside the built interpreters, once, from the mirror that
this machine's apt uses, and builds and tests the checkout in there, with PYTHON_JIT=1 and the
headers of those interpreters. The checkout is mounted in it at its own path, for the time of each
command only (in a mount namespace). All that takes root. What the tests print is in
build/logs/NAME-jit.log. The last line is `N passed, N failed`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import run_tests
from interpreters import CHECKOUT
from layout_test import INTERPRETERS
from run_tests import Counts, Log

NAMES = ("3.14", "3.15")
ROOT = INTERPRETERS / "debian-sid"
# Nothing but Debian's own packages, so that the system needs nothing else from outside.
PACKAGES = (
    *(f"python{name}-{part}" for name in NAMES for part in ("dev", "venv")),
    *("g++", "cmake", "ninja-build", "python3-scikit-build-core"),
    *("python3-pytest", "python3-pytest-timeout", "python3-hypothesis", "cython3", "gdb"),
)
# What apt says of the sources that it is set up with.
SOURCE = "$(LABEL) $(SITE)"
# The mounts are gone when the command has ended, since the namespace is.
ENTER = """
set -e
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mkdir -p "$ROOT$CHECKOUT"
mount --bind "$CHECKOUT" "$ROOT$CHECKOUT"
exec chroot "$ROOT" env --chdir="$CHECKOUT" "$@"
"""


def mirror() -> str:
    """Return the address of the Debian mirror that this machine's apt uses."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", SOURCE], capture_output=True, text=True, check=False
    )
    for label, _, site in (line.partition(" ") for line in listed.stdout.splitlines()):
        if label == "Debian" and site:
            return site
    sys.exit("the apt of this machine knows no Debian mirror to take Debian unstable from")


def provide_root() -> None:
    """Make the system if it is not there, or lacks packages."""
    stamp = ROOT / "packages.stamp"
    wanted = "\n".join(PACKAGES)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"making a Debian system in {ROOT} (1 GB)", file=sys.stderr)
    INTERPRETERS.mkdir(parents=True, exist_ok=True)
    log = INTERPRETERS / f"{ROOT.name}.log"
    with tempfile.TemporaryDirectory(prefix=f"{ROOT.name}-", dir=INTERPRETERS) as folder:
        made = Path(folder) / "root"
        command: list[str | Path] = [
            *("mmdebstrap", "--mode=root", "--variant=apt", f"--include={','.join(PACKAGES)}"),
            # a mirror may be a copy of some day in the past
            '--aptopt=Acquire::Check-Valid-Until "false"',
            *('--aptopt=APT::Install-Recommends "false"', "sid", made, mirror()),
        ]
        with log.open("w") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            sys.exit(f"mmdebstrap failed; see {log}")
        (made / stamp.name).write_text(wanted)
        shutil.rmtree(ROOT, ignore_errors=True)
        made.rename(ROOT)


def inside(**environment: str) -> list[str | Path]:
    """Return how a command begins that runs in that system, in the checkout."""
    settings = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **environment}
    return [
        *("env", f"ROOT={ROOT}", f"CHECKOUT={CHECKOUT}"),
        *("unshare", "--mount", "sh", "-c", ENTER, "sh"),
        *(f"{name}={value}" for name, value in settings.items()),
    ]


def run_on(name: str, tests: Sequence[str]) -> Counts:
    """Build greenlet for an interpreter of that system, and run the suite there."""
    log = Log(f"{name}-jit", echo=False)
    environment = CHECKOUT / ".venvs" / f"{name}-jit"
    python = environment / "bin" / "python"
    pip: list[str | Path] = [
        *(python, "-m", "pip", "--isolated", "--quiet", "install", "--no-index", "--no-deps"),
        *("--no-build-isolation", "--force-reinstall", "--root-user-action=ignore"),
        f"--config-settings=build-dir=build/{name}-jit",
        CHECKOUT,
    ]
    enabled = "import sys; assert sys._jit.is_enabled(), 'this interpreter has no JIT'"
    steps: list[Sequence[str | Path]] = [
        [f"python{name}", "-m", "venv", "--clear", "--system-site-packages", environment],
        ["CMAKE_BUILD_PARALLEL_LEVEL=2", *pip],
        ["PYTHON_JIT=1", python, "-c", enabled],
    ]
    for step in steps:
        if log.run([*inside(), *step]):
            print(log.end("environment"))
            return Counts(failed=1)
    log.begin_suite()
    # PYTEST_ADDOPTS and the like come from ours
    counts = run_tests.run_suite(
        "python", python, log, tests, prefix=inside(PYTHON_JIT="1", HOME="/root")
    )
    if counts.failed:
        print(log.end("python"))
    return counts


def main() -> int:
    """Test on each named interpreter and print the total."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="TEST", help="of tests/python")
    parser.add_argument("names", nargs="*", metavar="NAME", help=" or ".join(NAMES))
    options = parser.parse_args()
    names = options.names or NAMES
    unknown = set(names) - set(NAMES)
    if unknown:
        parser.error(f"no interpreter with the JIT is known as {', '.join(sorted(unknown))}")
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        print(
            "this needs root (to make a Debian system, and to chroot into it) and the package "
            f"mmdebstrap; the system is made in {ROOT}, which INTERPRETERS in the environment moves"
        )
        return 1
    provide_root()
    results = []
    for name in names:
        results.append(run_on(name, options.only))
        print(f"{name} with the JIT: {results[-1]}", flush=True)
    result = run_tests.total(results)
    print(f"{result.passed} passed, {result.failed} failed")
    return 1 if result.failed or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main())
