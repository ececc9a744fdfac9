"""Run the Python suite on CPython as people have it: built with other compilers and options.

- Interpreters that this builds from the archives beside the script that builds interpreters: with
  clang and tail calls (as uv's and the macOS installers' are), shared, with LTO, without pymalloc.
  No known tool builds these from sources that are at hand.
- Debian's own, in the Debian system of jit_test.py.
- Wheels built with one patch release, on another one: Debian's and ours.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import environments
import jit_test
import suites
from environments import Unavailable, required
from interpreters import BUILDER, CACHE
from suites import CHECKOUT, LOGS, Report

FOLDER = CACHE / "builds"  # below CACHE, where no other command looks for interpreters


class Build(NamedTuple):
    """How an interpreter is configured."""

    version: str
    options: tuple[str, ...]
    clang: bool = False


BUILDS = {
    "3.14-tail-call": Build("3.14", ("--with-tail-call-interp",), clang=True),
    "3.15-tail-call-lto": Build("3.15", ("--with-tail-call-interp", "--with-lto=thin"), clang=True),
    "3.14-shared": Build("3.14", ("--enable-shared", "LDFLAGS=-Wl,-rpath={prefix}/lib")),
    "3.13-lto": Build("3.13", ("--with-lto=full",)),
    "3.15-without-pymalloc": Build("3.15", ("--without-pymalloc",)),
}


def newest_clang() -> str:
    """Return the number of the newest clang that knows the tail calls of CPython."""
    names = (file.name for folder in os.get_exec_path() for file in Path(folder).glob("clang-*"))
    found = [int(match[1]) for name in names if (match := re.fullmatch(r"clang-(\d+)", name))]
    if max(found, default=0) < 19:
        raise Unavailable("no clang-19 or newer")
    return str(max(found))


def build(name: str) -> Path:
    """Return the python of an interpreter; build it if need be."""
    version, options, clang = BUILDS[name]
    prefix = FOLDER / name
    python = prefix / "bin" / f"python{version}"
    if python.exists():
        return python
    pattern = f"python{version}_*.orig.tar.xz"
    archives = list(Path(BUILDER[0]).parent.glob(pattern)) if BUILDER else []
    if not archives:
        raise Unavailable(f"no {pattern} beside GREENLET_INTERPRETER_BUILDER")
    settings = [f"--prefix={prefix}", *(option.format(prefix=prefix) for option in options)]
    if clang:
        number = newest_clang()
        archiver = shutil.which(f"llvm-ar-{number}")  # configure takes an absolute path alone
        settings += [f"CC=clang-{number}", f"CXX=clang++-{number}", f"LLVM_AR={archiver}"]
        settings += [f"LDFLAGS=-fuse-ld=lld-{number}", f"LLVM_PROFDATA=llvm-profdata-{number}"]
    print(f"building {name}", file=sys.stderr)
    log = LOGS / f"{name}-build.log"
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="cpython-") as folder:
        environments.run("tar", "-xJf", max(archives), "-C", folder, "--strip-components=1")
        steps = './configure -q "$@" && make -s -j2 && make -s install'
        command = ("sh", "-c", steps, "sh", *settings)
        # Beside other work this takes more than an hour.
        if suites.run(command, log, echo=False, limit=2 * 3600, folder=Path(folder)):
            shutil.rmtree(prefix, ignore_errors=True)
            raise Unavailable(suites.end_of(log))
    return python


def on_build(report: Report, name: str) -> None:
    """Build greenlet for a built interpreter, and test."""
    suites.pytest(report, name, [environments.ours(name, build(name))], "tests/python")


def on_debian(report: Report, name: str) -> None:
    """Build greenlet for an interpreter of Debian, and test."""
    jit_test.provide_system()
    label = f"{name}-debian"
    suites.pytest(report, label, jit_test.make_environment(name, label), "tests/python")


def across_releases(report: Report, name: str) -> None:
    """Test wheels that were built with another patch release: Debian's, and ours."""
    jit_test.provide_system()
    base = environments.base(name)
    label = f"{name}-on-debian"
    python = jit_test.make_environment(name, label, environments.wheel(name, base))
    suites.pytest(report, label, python, "tests/python")

    label = f"{name}-from-debian"
    builder = jit_test.make_environment(name, label)
    folder = CHECKOUT / "build" / "wheels" / label
    shutil.rmtree(folder, ignore_errors=True)
    options = ("--no-index", "--no-deps", *jit_test.build_options(label))
    environments.run(*builder, *jit_test.PIP, "wheel", "--wheel-dir", folder, *options, ".")
    here = environments.make(environments.FOLDER / f"{label}-here", base, "--group", "test")
    environments.install(here, "--reinstall", "--no-deps", *folder.glob("*.whl"))
    suites.pytest(report, label, [here], "tests/python")


DEBIAN = ("3.13", "3.14", "3.15")
WAYS: dict[str, tuple[Callable[[Report, str], None], str]] = {
    **{name: (on_build, name) for name in BUILDS},
    **{f"{name}-debian": (on_debian, name) for name in DEBIAN},
    **{f"{name}-across-releases": (across_releases, name) for name in DEBIAN},
}


def run(report: Report, names: Sequence[str]) -> None:
    """Test in each named way."""
    for name in names or WAYS:
        way, argument = WAYS[name]
        with required(report, name):
            way(report, argument)
