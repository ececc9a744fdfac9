"""Make sure that the compilers and libraries which come with the system are there.

On Debian and its kin the missing packages are installed if we are root; else this says what to
install. Elsewhere it trusts that they are there, and the compiler will say what is not.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# For each purpose, the packages it needs.
PACKAGES = {
    "build": ["g++"],
    "test": ["g++", "gdb", "googletest", "libbenchmark-dev", "libgtest-dev"],
    "interop": ["chromium", "g++", "neovim", "wrk"],
    "bench": ["g++", "libbenchmark-dev", "libboost-context-dev"],
    "guard": ["g++", "valgrind"],
    "jit": ["mmdebstrap"],
    "engines": ["default-jre-headless", "g++", "libgc-dev", "r-base-core"],
    "aarch64": ["g++-aarch64-linux-gnu", "googletest", "qemu-user"],
}


def python_packages() -> list[str]:
    """Return what Debian's python3 lacks until asked for; other interpreters come complete."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    complete = header.exists() and importlib.util.find_spec("ensurepip")
    return [] if complete else ["python3-dev", "python3-venv"]


def missing(packages: list[str]) -> list[str]:
    """Return those of `packages` that dpkg does not know as installed."""
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    installed = {
        name for name, status in map(str.split, answer.splitlines()) if status == "installed"
    }
    return [package for package in packages if package not in installed]


def install(packages: list[str]) -> bool:
    """Install with apt-get; whether that worked."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False, stdout=sys.stderr)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    return subprocess.run(command, env=environment, check=False, stdout=sys.stderr).returncode == 0


def main() -> int:
    """Install what is missing for the named purpose."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("purpose", choices=PACKAGES)
    wanted = PACKAGES[parser.parse_args().purpose] + python_packages()
    if not shutil.which("dpkg-query"):
        return 0
    absent = missing(wanted)
    if not absent:
        return 0
    if os.geteuid() != 0:
        print(f"please install as root: apt-get install {' '.join(absent)}", file=sys.stderr)
        return 1
    print(f"installing {' '.join(absent)}", file=sys.stderr)
    return 0 if install(absent) else 1


if __name__ == "__main__":
    sys.exit(main())
