"""Run the Python suite under CPython's JIT.

To compile CPython with its JIT takes LLVM; Debian's own python3.14 and python3.15 have it. So this
makes a Debian unstable system in a folder beside the built interpreters, once, from the mirror that
this machine's apt uses, and builds and tests the checkout in there, with PYTHON_JIT=1. mmdebstrap
makes the system; container tools would do, but may not be there, and need a registry. The checkout
is mounted in it at its own path for the time of each command only (in a mount namespace). All that
takes root.
"""

import os
import shutil
import sys
from collections.abc import Sequence

import environments
import suites
from environments import Unavailable, required
from interpreters import CACHE
from suites import CHECKOUT, Report

NAMES = ("3.14", "3.15")
ROOT = CACHE / "debian-sid"
# Nothing but Debian's own packages, so that the system needs nothing else from outside.
PACKAGES = (
    *(f"python{name}-{part}" for name in NAMES for part in ("dev", "venv")),
    *("g++", "cmake", "ninja-build", "python3-scikit-build-core"),
    *("python3-pytest", "python3-pytest-timeout", "python3-hypothesis", "cython3", "gdb"),
)
# The mounts are gone when the command has ended, since the namespace is.
ENTER = f"""
set -e
mount -t proc proc "{ROOT}/proc"
mount --rbind /dev "{ROOT}/dev"
mkdir -p "{ROOT}{CHECKOUT}"
mount --bind "{CHECKOUT}" "{ROOT}{CHECKOUT}"
exec chroot "{ROOT}" env --chdir="{CHECKOUT}" "$@"
"""
SETTINGS = ("PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/root", "PYTHON_JIT=1")
INSIDE = ("unshare", "--mount", "sh", "-c", ENTER, "sh", *SETTINGS)


def provide_root() -> None:
    """Make the system if it is not there, or lacks packages."""
    stamp = ROOT / "packages.stamp"
    wanted = "\n".join(PACKAGES)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    listed = environments.run("apt-get", "indextargets", "--format", "$(LABEL) $(SITE)")
    mirrors = [line.split()[1] for line in listed.splitlines() if line.startswith("Debian http")]
    print(f"making a Debian system in {ROOT} (1 GB)", file=sys.stderr)
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.parent.mkdir(parents=True, exist_ok=True)
    # A mirror may be a copy of some day in the past.
    options = ('Acquire::Check-Valid-Until "false"', 'APT::Install-Recommends "false"')
    old = (f"--aptopt={option}" for option in options)
    what = ("--mode=root", "--variant=apt", f"--include={','.join(PACKAGES)}")
    environments.run("mmdebstrap", *what, *old, "sid", ROOT, *mirrors[:1])
    stamp.write_text(wanted)


def make_environment(name: str) -> list[str]:
    """Build greenlet for an interpreter of that system; return how its python is called."""
    python = f".venvs/{name}-jit/bin/python"
    pip = (
        *(python, "-m", "pip", "--isolated", "--quiet", "install", "--no-index", "--no-deps"),
        *("--no-build-isolation", "--force-reinstall", "--root-user-action=ignore"),
        *(f"--config-settings=build-dir=build/{name}-jit", "."),
    )
    venv = ("-m", "venv", "--clear", "--system-site-packages", f".venvs/{name}-jit")
    enabled = "import sys; assert sys._jit.is_enabled(), 'this interpreter has no JIT'"
    environments.run(*INSIDE, f"python{name}", *venv)
    environments.run(*INSIDE, "CMAKE_BUILD_PARALLEL_LEVEL=2", *pip)
    environments.run(*INSIDE, python, "-c", enabled)
    return [*INSIDE, python]


def run(report: Report, tests: Sequence[str]) -> None:
    """Test on each interpreter of that system."""
    for name in NAMES:
        with required(report, f"{name}-jit"):
            if os.geteuid() or not shutil.which("mmdebstrap"):
                raise Unavailable("this needs root, and the package mmdebstrap")
            provide_root()
            python = make_environment(name)
            suites.pytest(report, f"{name}-jit", python, *(tests or ["tests/python"]))
