"""Build greenlet with each gcc and clang of this machine, and run a part of the Python suite.

Of compilers that CMakeLists.txt refuses it tests that they are refused, with the reason. Debian and
Ubuntu have several side by side: apt-get install g++-11 clang-13.
"""

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import environments
import suites
from environments import Unavailable, required
from suites import Counts, Report

#: What depends on how a compiler treats thread-local variables, sections, attributes and LTO.
TESTS = ("package", "outside", "switch", "exceptions", "throw", "threads", "overflow")
OLDEST = {"g++": 11, "clang++": 13}


def found() -> list[str]:
    """Return the names of compilers on PATH that have a version in their name, the oldest first."""
    files = {file.name for folder in os.get_exec_path() for file in Path(folder).glob("*++-*")}
    return sorted(filter(re.compile(r"(g|clang)\+\+-\d+").fullmatch, files), key=order)


def order(name: str) -> tuple[str, int]:
    """Split the name of a compiler."""
    kind, _, number = name.rpartition("-")
    return kind, int(number)


def run(report: Report, interpreter: str, chosen: Sequence[str]) -> None:
    """Test the compilers of these names, or all."""
    base = environments.base(interpreter)
    for name in chosen or found():
        kind, version = order(name)
        compilers = {"CXX": name, "CC": name.replace("clang++", "clang").replace("g++", "gcc")}
        label = f"compiler-{name}"
        with required(report, label), tempfile.TemporaryDirectory(prefix="greenlet-") as folder:
            python = environments.make(Path(folder, "venv"), base, "--group", "test")
            settings = ["cmake.define.GREENLET_WERROR=ON", f"build-dir={folder}/build"]
            options = [f"--config-setting={setting}" for setting in settings]
            path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
            build = (
                environments.UV,
                "pip",
                "install",
                "--no-build-isolation",
                "--no-deps",
                "--no-cache",
            )
            command = (*build, "--python", python, *options, suites.CHECKOUT)
            try:
                environments.run(*command, **compilers, PATH=path)
            except Unavailable as reason:
                if version >= OLDEST[kind] or "greenlet needs gcc 11" not in str(reason):
                    raise
                print(f"{name} is refused")
                report.add(label, Counts(1, 0, 0), suites.LOGS / f"{label}.log")
                continue
            if version < OLDEST[kind]:
                raise Unavailable(f"{name} is not refused")
            tests = [f"tests/python/test_{test}.py" for test in TESTS]
            suites.pytest(report, label, [python], *tests)
