"""Compile and link greenlet for macOS, for both architectures, with zig from the package index.

Nothing of it can run here. The headers are those of an interpreter of this machine, with a
pyconfig.h for macOS (tools/toolchains/macos). Warnings are errors.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import environments
import interpreters
from environments import Unavailable, required
from suites import CHECKOUT, Counts, Report

ARCHITECTURES = ("arm64", "x86_64")
TOOLCHAINS = CHECKOUT / "tools" / "toolchains"
MAGIC = bytes.fromhex("cffaedfe")  # with which a 64-bit Mach-O file begins


def headers_for_macos(python: Path, folder: Path) -> Path:
    """Copy an interpreter's headers, with a pyconfig.h for macOS."""
    ask = "import sysconfig; print(sysconfig.get_path('include'))"
    include = folder / "include"
    shutil.rmtree(include, ignore_errors=True)
    shutil.copytree(environments.run(python, "-c", ask).strip(), include)
    shutil.copy(TOOLCHAINS / "macos" / "pyconfig.h", include)
    return include


def build(name: str, architecture: str, tools: Path) -> None:
    """Build for an interpreter's version and an architecture."""
    python = environments.base(name)
    folder = CHECKOUT / "build" / f"macos-{name}-{architecture}"
    folder.mkdir(parents=True, exist_ok=True)
    ask = "import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).parent)"
    zig = environments.run(tools, "-c", ask).strip()
    path = os.pathsep.join([zig, str(tools.parent), os.environ["PATH"]])
    settings = {
        "CMAKE_TOOLCHAIN_FILE": TOOLCHAINS / "macos.cmake",
        "CMAKE_SYSTEM_PROCESSOR": architecture,
        "CMAKE_BUILD_TYPE": "Release",
        "GREENLET_WERROR": environments.WERROR,
        "Python_EXECUTABLE": python,
        "Python_INCLUDE_DIR": headers_for_macos(python, folder),
    }
    options = [f"-D{key}={value}" for key, value in settings.items()]
    environments.run("cmake", "-S", CHECKOUT, "-B", folder, "-G", "Ninja", *options, PATH=path)
    environments.run("cmake", "--build", folder, PATH=path)
    (module,) = folder.glob("_greenlet*.so")
    if not module.read_bytes().startswith(MAGIC):
        raise Unavailable(f"{module} is no module for macOS")


def run(report: Report, names: Sequence[str]) -> None:
    """Build for both architectures."""
    default, python = interpreters.default()
    tools = environments.make(environments.FOLDER / "macos", python, "--group", "macos")
    for name in names or [default]:
        for architecture in ARCHITECTURES:
            label = f"{name}-macos-{architecture}"
            with required(report, label):
                build(name, architecture, tools)
                report.add(label, Counts(passed=1))
