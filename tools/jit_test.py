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
from collections.abc import Iterable, Sequence
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
system=$1
shift
mount -t proc proc "$system/proc"
mount --rbind /dev "$system/dev"
mkdir -p "$system{CHECKOUT}"
mount --bind "{CHECKOUT}" "$system{CHECKOUT}"
exec chroot "$system" env --chdir="{CHECKOUT}" "$@"
"""
SETTINGS = ("PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/root", "CMAKE_BUILD_PARALLEL_LEVEL=2")


def inside(system: Path) -> tuple[str, ...]:
    """Return how a command is run in a system."""
    return ("unshare", "--mount", "sh", "-c", ENTER, "sh", str(system), *SETTINGS)


INSIDE = inside(SYSTEM)
PIP = ("-m", "pip", "--isolated", "--quiet")
INSTALL = ("install", "--no-index", "--no-deps", "--force-reinstall", "--root-user-action=ignore")
# A mirror may be a copy of some day in the past.
APT = ("Acquire::Check-Valid-Until", "APT::Install-Recommends")  # both false


def mirrors() -> list[str]:
    """Return where this machine's apt has Debian from."""
    listed = environments.run("apt-get", "indextargets", "--format", "$(LABEL) $(SITE)")
    return [line.split()[1] for line in listed.splitlines() if line.startswith("Debian http")]


def provide_system(system: Path = SYSTEM, packages: Iterable[str] = PACKAGES) -> None:
    """Make a system if it is not there, and install what it lacks of these packages."""
    if os.geteuid() or not shutil.which("mmdebstrap"):
        raise Unavailable("this needs root, and the package mmdebstrap")
    stamp = system / "packages.stamp"
    if not stamp.exists():
        print(f"making a Debian system in {system} (1 GB)", file=sys.stderr)
        shutil.rmtree(system, ignore_errors=True)
        system.parent.mkdir(parents=True, exist_ok=True)
        options = [f'--aptopt={option} "false"' for option in APT]
        what = ("--mode=root", "--variant=apt", f"--include={','.join(packages)}")
        environments.run("mmdebstrap", *what, *options, "sid", system, *mirrors()[:1])
        stamp.write_text("\n".join(packages))
    show = (*inside(system), "dpkg-query", "--show", "--showformat=${Package}\n")
    if missing := set(packages) - set(environments.run(*show).split()):
        update_lists(system)
        environments.run(*apt_get(system), "install", "-y", *sorted(missing))


def apt_get(system: Path) -> tuple[str, ...]:
    """Return how apt-get is called in a system."""
    options = [f"-o{option}=false" for option in APT]
    return (*inside(system), "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", *options)


def update_lists(system: Path = SYSTEM) -> None:
    """Let a system's apt know what the mirror has."""
    environments.run(*apt_get(system), "update")


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
