"""Run a session of noxfile.py, after installing what it needs: run.py SESSION [ARGUMENT ...]

Compilers and libraries come from Debian's packages, which are installed if we are root; otherwise
this says what to install. Elsewhere it trusts that they are there. nox and uv come from the package
index, into .venvs/tools. Nothing but Python's standard library is needed to start.
"""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

TOOLS = ["nox==2026.10.20", "uv==0.13.9"]
CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / ".venvs" / "tools"
TESTS = ["gdb", "googletest", "libgtest-dev"]
HEADERS = ["libbz2-dev", "libffi-dev", "liblzma-dev", "libsqlite3-dev", "libssl-dev", "zlib1g-dev"]
PACKAGES = {  # of Debian, beside the compiler
    "build-macos": [],
    "bench": ["libbenchmark-dev", "libboost-context-dev"],
    "demo": [],
    "docs": [],
    "docs-check": ["chromium"],
    "guard": ["valgrind"],
    "interop": ["chromium", "neovim", "wrk"],
    "report": [],
    "test-builds": ["clang-19", "lld-19", "llvm-19", "mmdebstrap", *HEADERS, *TESTS],
    "test-building": ["clang", "pkgconf"],
    "test-engines": ["default-jre-headless", "libgc-dev", "r-base-core"],
    "test-arch": ["mmdebstrap"],
    "test-jit": ["mmdebstrap"],
    "test-windows": ["mmdebstrap"],
    "native": [*TESTS, "valgrind"],
}
EMULATED = ["gdb-multiarch", "qemu-user"]
PRESETS = {  # of CMakePresets.json, which `make native` is given by name; without a name the first
    "aarch64": [*EMULATED, "g++-aarch64-linux-gnu"],
    "riscv64": [*EMULATED, "g++-riscv64-linux-gnu"],
    "ppc64le": [*EMULATED, "g++-powerpc64le-linux-gnu"],
    "s390x": [*EMULATED, "g++-s390x-linux-gnu"],
    "loong64": [*EMULATED, "g++-loongarch64-linux-gnu"],
    "i386": [*EMULATED, "g++-i686-linux-gnu"],
    "armhf": [*EMULATED, "g++-arm-linux-gnueabihf"],
}


def provide_packages(session: str, arguments: Sequence[str]) -> None:
    """Install Debian's packages for a session, as far as they are missing."""
    wanted = ["g++", *PACKAGES.get(session.removeprefix("bench-").removesuffix("-load"), TESTS)]
    if session == "native":
        for preset in arguments or ["aarch64"]:
            wanted += PRESETS.get(preset, [])
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not (header.exists() and importlib.util.find_spec("ensurepip")):
        wanted += ["python3-dev", "python3-venv"]
    if not shutil.which("dpkg-query"):
        return
    show = ["dpkg-query", "--show", "--showformat=${Package}=${db:Status-Status}\n", *wanted]
    listed = subprocess.run(show, capture_output=True, text=True, check=False).stdout.split()
    missing = [package for package in wanted if f"{package}=installed" not in listed]
    if missing and os.geteuid():
        sys.exit(f"please install as root: apt-get install {' '.join(missing)}")
    if missing:
        print(f"installing {' '.join(missing)}", file=sys.stderr, flush=True)
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(["apt-get", "update", "-qq"], stdout=sys.stderr, check=False)
        done = subprocess.run(install, stdout=sys.stderr, check=False)
        # What the tests of engines lack is skipped by each of them.
        if done.returncode and session != "test-engines":
            sys.exit(f"apt-get could not install {' '.join(missing)}")


def provide_tools() -> None:
    """Make the environment of nox and uv, and let uv use the index that pip is set up with."""
    python = FOLDER / "bin" / "python"
    stamp = FOLDER / "tools.stamp"
    wanted = f"{sys.executable} {TOOLS}"
    if not (stamp.exists() and stamp.read_text() == wanted and python.exists()):
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *TOOLS], check=True)
        stamp.write_text(wanted)
    index = subprocess.run(
        [python, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    ).stdout.strip()
    if index := os.environ.get("PIP_INDEX_URL", index):
        os.environ.setdefault("UV_DEFAULT_INDEX", index)
    os.environ.setdefault("UV_SYSTEM_CERTS", "true")
    os.environ.setdefault("UV_HTTP_TIMEOUT", "180")
    os.environ["PATH"] = f"{FOLDER / 'bin'}{os.pathsep}{os.environ['PATH']}"


def print_help() -> None:
    """Print what each command does: the docstring of its session."""
    print("  make clean             remove what was built, environments included")
    print("  make format            let the hooks of lint mend what they can")
    for node in ast.parse((CHECKOUT / "noxfile.py").read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            print(f"  make {node.name.replace('_', '-'):18}{ast.get_docstring(node)}")


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit("this needs Python 3.11 or newer: make PYTHON=python3.13 ...")
    session, *arguments = sys.argv[1:]
    if session == "help":
        print_help()
        sys.exit()
    provide_packages(session, arguments)
    provide_tools()
    os.chdir(CHECKOUT)
    os.execvp("nox", ["nox", "--session", session, "--", *arguments])
