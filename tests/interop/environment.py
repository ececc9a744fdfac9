"""Environments in which programs of others run on our greenlet, built once and kept in `.venvs`.

An environment is made anew when its requirements or the interpreter have changed; when our sources
have, a new wheel is built and put into it. To get newer releases of the others, remove
`.venvs/interop-*`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
CACHE = CHECKOUT / ".venvs"

# Wheels only: what is to be tested is what everybody installs.
PIP_INSTALL = ("-m", "pip", "install", "--only-binary", ":all:")

# To see that a program's checks hold with the published greenlet: GREENLET_INTEROP_WITH=published.
PUBLISHED = os.environ.get("GREENLET_INTEROP_WITH", "ours") == "published"


class Environment(NamedTuple):
    """A virtual environment, and the version of the greenlet in it."""

    python: Path
    greenlet_version: str

    def run(self, program: str, *arguments: str, timeout: float, under: Sequence[str] = ()) -> str:
        """Run a program of ours in it; return what it printed. It has to succeed, and in time.

        `under` are arguments that come before it: another program that runs it.
        """
        # Debug interpreters are several times slower.
        timeout *= 3 if "debug" in str(_base()) else 1
        process = subprocess.Popen(
            [self.python, "-X", "faulthandler", *under, PROGRAMS / program, *arguments],
            env={**os.environ, "EXPECTED_GREENLET": self.greenlet_version},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # so that its children can be ended with it
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            # SIGABRT makes faulthandler say where it was.
            os.killpg(process.pid, signal.SIGABRT)
            output, _ = process.communicate()
            pytest.fail(f"{program} did not end within {timeout:.0f} s\n{output}")
        if process.returncode:
            pytest.fail(f"{program} ended with {process.returncode}\n{output}")
        return output


def _base() -> Path:
    """The interpreter that the environments are made from."""
    return Path(os.environ.get("GREENLET_TEST_PYTHON", sys.executable))


def _output(*command: str | Path) -> str:
    """Run a command that has to succeed, and return all that it printed."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise CommandError(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


class CommandError(Exception):
    """A command failed; the text is the command with what it printed."""


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:%b" % (len(data), data))
    return digest.hexdigest()[:12]


@contextmanager
def _kept(folder: Path, others: str) -> Iterator[bool]:
    """Enter with True if the folder has yet to be made; it is kept if no exception leaves.

    `others` matches older ones of its kind, which are removed. Several processes may want it.
    """
    CACHE.mkdir(exist_ok=True)
    complete = folder / "complete"
    with open(CACHE / ".interop.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = not complete.exists()
        if missing:
            for old in CACHE.glob(others):
                shutil.rmtree(old)
        yield missing
        if missing:
            complete.touch()


@cache
def _interpreter() -> str:
    """Like 3.14t, and a hash of what else tells one build of an interpreter from another."""
    code = (
        "import sys, sysconfig; from platform import machine;"
        "print('%d.%d' % sys.version_info[:2] + sys.abiflags);"
        "print(sys.version, sys.base_prefix, sysconfig.get_config_var('EXT_SUFFIX'), machine())"
    )
    name, facts = _output(_base(), "-c", code).splitlines()[:2]
    return f"{name}-{_digest(facts)[:6]}"


def _source_files() -> Iterator[Path]:
    """What a wheel of ours is built from."""
    yield from (CHECKOUT / name for name in ("CMakeLists.txt", "pyproject.toml"))
    for folder in ("cmake", "include", "src"):
        for file in sorted((CHECKOUT / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file


@cache
def _our_wheel() -> Path:
    """Our wheel, built from the checkout as pip builds it for anybody: with build isolation."""
    contents = [
        part
        for file in _source_files()
        for part in (str(file.relative_to(CHECKOUT)), file.read_bytes())
    ]
    folder = CACHE / f"interop-wheel-{_interpreter()}-{_digest(*contents)}"
    with _kept(folder, f"interop-wheel-{_interpreter()}-*") as missing:
        if missing:
            _output(
                *(_base(), "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder),
                *(f"--config-settings=build-dir={folder / 'build'}", CHECKOUT),
            )
            shutil.rmtree(folder / "build")
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(name: str, *requirements: str, published: bool = PUBLISHED) -> Environment:
    """Make an environment with a greenlet and with these requirements, or find it made.

    Skips the test that asks for it if one of them has no wheel for this interpreter.
    """
    wheel = None if published else _our_wheel()
    kind = f"interop-{name}-{'ours' if wheel else 'published'}-{_interpreter()}-"
    folder = CACHE / f"{kind}{_digest(*requirements)}"
    python = folder / "bin" / "python"
    with _kept(folder, f"{kind}*") as missing:
        if missing:
            _output(_base(), "-m", "venv", folder)
            _install(python, wheel or "greenlet", *requirements)
        elif wheel and _installed(python).origin != wheel.as_uri():
            _output(python, *PIP_INSTALL, "--no-deps", "--force-reinstall", wheel)
    installed = _installed(python)
    assert installed.origin == (wheel.as_uri() if wheel else None)
    return Environment(python, installed.version)


def _install(python: Path, greenlet: Path | str, *requirements: str) -> None:
    """Install wheels, or skip the test if the index has none for this interpreter."""
    try:
        # One command, so that this greenlet is the one that the others require.
        _output(python, *PIP_INSTALL, greenlet, *requirements)
    except CommandError as error:
        missing = re.search(r"No matching distribution found for (\S+)", str(error))
        # pip says the same, after some more attempts, if it does not reach the index.
        if missing is None or "Retrying" in str(error):
            raise
        pytest.skip(f"no matching distribution: {missing[1]} has no wheel for this interpreter")


class Installed(NamedTuple):
    """The greenlet of an environment."""

    version: str
    origin: str | None  # the wheel that it was installed from, or None if the index had it


def _installed(python: Path) -> Installed:
    code = (
        "import json; from importlib.metadata import distribution; g = distribution('greenlet');"
        "print(json.dumps([g.version, g.read_text('direct_url.json')]))"
    )
    version, origin = json.loads(_output(python, "-c", code))
    return Installed(version, json.loads(origin)["url"] if origin else None)
