"""Environments with a greenlet, and wheels for them, made by uv, which leaves what is up to date.

An environment of nox belongs to one session. These are shared by sessions (.venvs/NAME), and some
sessions need several: with two greenlets, or with wheels built for other interpreters.
"""

import ctypes
import os
import shutil
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import interpreters
import suites
from suites import CHECKOUT, LOGS, Counts, Report

FOLDER = CHECKOUT / ".venvs"
UV = shutil.which("uv") or FOLDER / "tools" / "bin" / "uv"
PUBLISHED = CHECKOUT / "tools" / "requirements-published.txt"
# Warnings are errors, unless the environment has WERROR=OFF: for a compiler newer than this code.
WERROR = os.environ.setdefault("WERROR", "ON")
os.environ.setdefault("CMAKE_GENERATOR", "Ninja")
os.environ.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", "2")


class Unavailable(SystemExit):
    """A command failed: the command with what it printed, which ends the session if not caught."""


@contextmanager
def required(report: Report, label: str, excuse: str = "") -> Iterator[None]:
    """Count it as a failure if what tests need is unavailable; as skipped for an excuse."""
    try:
        yield
    except Unavailable as reason:
        log = LOGS / f"{label}-unavailable.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(str(reason))
        excused = bool(excuse) and excuse in str(reason)
        report.add(label, Counts(0, int(not excused), int(excused)), log)


def base(name: str) -> Path:
    """Return an interpreter."""
    for python in interpreters.provide([name]).values():
        return python
    raise Unavailable(f"there is no {name}")


def run(*command: str | Path, **environment: str) -> str:
    """Run a command that has to succeed; return what it printed."""
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30 * 60,  # gevent, where it has no wheel, takes minutes
    )
    if done.returncode:
        raise Unavailable(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


def install(python: Path, *what: str | Path) -> None:
    """Install into the environment of `python`."""
    run(UV, "pip", "install", "--quiet", "--python", python, *what)


def make(folder: Path, base: Path, *what: str | Path) -> Path:
    """Return the python of an environment for an interpreter, with these things installed."""
    python = folder / "bin" / "python"
    if not (python.exists() and python.resolve() == base.resolve()):
        run(UV, "venv", "--quiet", "--clear", "--python", base, folder)
    if what:
        install(python, *what)
    return python


def published(name: str, base: Path) -> Path:
    """Return the python of the environment with the published greenlet."""
    # A wheel, never a source distribution: its source is not to be looked at.
    wheels = ("--only-binary", ":all:", "-r", PUBLISHED)
    return make(FOLDER / f"{name}-published", base, *wheels)


def ours(name: str, base: Path) -> Path:
    """Return the python of the environment with greenlet as it is in this checkout, and pytest."""
    python = make(FOLDER / name, base, "--group", "test")
    install(python, "--no-deps", *options(name, base), CHECKOUT)
    return python


def options(name: str, base: Path, headers: Path | None = None) -> list[str]:
    """Return how greenlet is built for an interpreter; `headers` replace the interpreter's.

    The folder belongs to this build alone, so that only what has changed is compiled again.
    """
    kind = name.partition("-")[2]
    build_type = {"": "Release", "debug": "Debug"}.get(kind, "RelWithDebInfo")
    sanitizers = {"asan": "address,undefined", "tsan": "thread"}.get(kind, "")
    settings = [
        f"build-dir=build/{name}-{headers.name if headers else zlib.crc32(bytes(base))}",
        f"cmake.build-type={build_type}",
        f"cmake.define.GREENLET_SANITIZE={sanitizers}",
        f"cmake.define.GREENLET_WERROR={WERROR}",
    ]
    if headers:
        settings.append(f"cmake.define.Python_INCLUDE_DIR={headers}")
    return ["--no-build-isolation", *(f"--config-setting={setting}" for setting in settings)]


def wheel(name: str, base: Path, headers: Path | None = None) -> Path:
    """Build and return the wheel for an interpreter, or for one that has those headers."""
    python = make(FOLDER / name, base, "--group", "test")
    folder = CHECKOUT / "build" / "wheels" / (f"{name}-{headers.name}" if headers else name)
    shutil.rmtree(folder, ignore_errors=True)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    build = (UV, "build", "--quiet", "--wheel", "--python", python, "--out-dir", folder)
    run(*build, *options(name, base, headers), PATH=path)
    (built,) = folder.glob("*.whl")
    return built


def keep_addresses() -> None:
    """Turn address space randomization off for what this starts: ThreadSanitizer needs that."""
    ctypes.CDLL(None).personality(0x0040000)


def sanitized(report: Report, name: str, tests: Iterable[str], **variables: str) -> list[str]:
    """Run tests on an interpreter with sanitizers; return what these had to report.

    Variables of the environment whose names end with OPTIONS are options of a sanitizer. The
    reports are in build/logs, too.
    """
    os.environ.setdefault("SUITE_MINUTES", "60")
    folder = LOGS / f"{name}-reports"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with required(report, name):
        for key in variables:
            if key.endswith("OPTIONS"):
                variables[key] += f":log_path={folder / 'report'}"
        suites.pytest(report, name, [ours(name, base(name))], *tests, **variables)
    return [file.read_text(errors="replace") for file in sorted(folder.iterdir())]
