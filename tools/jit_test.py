"""Run the Python suite under CPython's JIT, and let builds_test.py use the same Debian system.

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
from pathlib import Path

import environments
import suites
from environments import Unavailable, required
from interpreters import CACHE
from suites import CHECKOUT, Report

NAMES = ("3.14", "3.15")
SYSTEM = CACHE / "debian-sid"
# Nothing but Debian's own packages, so that the system needs nothing else from outside.
PACKAGES = (
    *(f"python{name}-{part}" for name in ("3.13", *NAMES) for part in ("dev", "venv")),
    *("g++", "cmake", "ninja-build", "python3-scikit-build-core"),
    *("python3-pytest", "python3-pytest-timeout", "python3-hypothesis", "python3-pyelftools"),
    *("cython3", "gdb"),
)
# The mounts are gone when the command has ended, since the namespace is.
ENTER = f"""
set -e
mount -t proc proc "{SYSTEM}/proc"
mount --rbind /dev "{SYSTEM}/dev"
mkdir -p "{SYSTEM}{CHECKOUT}"
mount --bind "{CHECKOUT}" "{SYSTEM}{CHECKOUT}"
exec chroot "{SYSTEM}" env --chdir="{CHECKOUT}" "$@"
"""
SETTINGS = ("PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/root", "CMAKE_BUILD_PARALLEL_LEVEL=2")
INSIDE = ("unshare", "--mount", "sh", "-c", ENTER, "sh", *SETTINGS)
PIP = ("-m", "pip", "--isolated", "--quiet")
INSTALL = ("install", "--no-index", "--no-deps", "--force-reinstall", "--root-user-action=ignore")
# A mirror may be a copy of some day in the past.
APT = ("Acquire::Check-Valid-Until", "APT::Install-Recommends")  # both false


def provide_system(packages: Sequence[str] = PACKAGES) -> None:
    """Make the system if it is not there, and install what it lacks of the packages."""
    if os.geteuid() or not shutil.which("mmdebstrap"):
        raise Unavailable("this needs root, and the package mmdebstrap")
    stamp = SYSTEM / "packages.stamp"
    if not stamp.exists():
        listed = environments.run("apt-get", "indextargets", "--format", "$(LABEL) $(SITE)")
        lines = [line for line in listed.splitlines() if line.startswith("Debian http")]
        print(f"making a Debian system in {SYSTEM} (1 GB)", file=sys.stderr)
        shutil.rmtree(SYSTEM, ignore_errors=True)
        SYSTEM.parent.mkdir(parents=True, exist_ok=True)
        options = [f'--aptopt={option} "false"' for option in APT]
        what = ("--mode=root", "--variant=apt", f"--include={','.join(packages)}")
        mirrors = [line.split()[1] for line in lines]
        environments.run("mmdebstrap", *what, *options, "sid", SYSTEM, *mirrors[:1])
        stamp.write_text("\n".join(packages))
    show = (*INSIDE, "dpkg-query", "--show", "--showformat=${Package}\n")
    if missing := set(packages) - set(environments.run(*show).split()):
        options = [f"-o{option}=false" for option in APT]
        apt = (*INSIDE, "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", *options)
        environments.run(*apt, "update")
        environments.run(*apt, "install", "-y", *sorted(missing))


def make_environment(name: str, label: str, what: Path | None = None) -> list[str]:
    """Install greenlet for an interpreter of that system; return how its python is called.

    `what` is a wheel; without one greenlet is built there.
    """
    python = f".venvs/{label}/bin/python"
    venv = ("-m", "venv", "--clear", "--system-site-packages", f".venvs/{label}")
    environments.run(*INSIDE, f"python{name}", *venv)
    from_what = (what,) if what else (".", *build_options(label))
    environments.run(*INSIDE, python, *PIP, *INSTALL, *from_what)
    return [*INSIDE, python]


def build_options(label: str) -> tuple[str, str]:
    """Return how pip builds greenlet in that system, where it can load nothing."""
    return "--no-build-isolation", f"--config-settings=build-dir=build/{label}"


def run(report: Report, tests: Sequence[str]) -> None:
    """Test on each interpreter of that system that has a JIT."""
    for name in NAMES:
        with required(report, f"{name}-jit"):
            provide_system()
            python = make_environment(name, f"{name}-jit")
            python.insert(-1, "PYTHON_JIT=1")
            enabled = "import sys; assert sys._jit.is_enabled(), 'this interpreter has no JIT'"
            environments.run(*python, "-c", enabled)
            suites.pytest(report, f"{name}-jit", python, *(tests or ["tests/python"]))
