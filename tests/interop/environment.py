"""Environments in which programs of others run on our greenlet, kept in `.venvs/interop-*`.

tools/environments.py makes them. To get newer releases of the others, remove them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools"))
import environments
import interpreters
from suites import CHECKOUT as CHECKOUT

PROGRAMS = Path(__file__).parent / "programs"
# To see that a program's checks hold with the published greenlet: GREENLET_INTEROP_WITH=published.
PUBLISHED = os.environ.get("GREENLET_INTEROP_WITH", "ours") == "published"
# The interpreter that the environments are made from.
BASE = Path(os.environ.get("GREENLET_TEST_PYTHON", sys.executable)).resolve()


class Environment(NamedTuple):
    """A virtual environment, and the version of the greenlet in it."""

    python: Path
    greenlet_version: str

    def run(self, program: str, *arguments: str, timeout: float, under: Sequence[str] = ()) -> str:
        """Run a program of ours in it; return what it printed. It has to succeed, and in time.

        `under` are arguments that come before it: another program that runs it.
        """
        # Debug interpreters are several times slower.
        timeout *= 3 if "debug" in str(BASE) else 1
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

    def call(self, command: str, *arguments: str | Path) -> str:
        """Run a command that is installed in it; return what it printed. It has to succeed."""
        try:
            return environments.run(self.python.with_name(command), *arguments)
        except environments.Unavailable as error:
            pytest.fail(str(error))


@cache
def _greenlet(name: str, *, published: bool) -> str:
    """Return what has to be installed: our wheel, or the published one."""
    if published:
        return environments.PUBLISHED.read_text().split()[-1]
    return str(environments.wheel(name, BASE))


def make_environment(name: str, *requirements: str, published: bool = PUBLISHED) -> Environment:
    """Make an environment with a greenlet and with these requirements, or find it made.

    Skips the test that asks for it if one of them has no wheel for this interpreter.
    """
    interpreter = interpreters.name_of(BASE)
    greenlet = _greenlet(interpreter, published=published)
    side = "published" if published else "ours"
    folder = environments.FOLDER / f"interop-{name}-{side}-{interpreter}"
    # Wheels only: what is to be tested is what everybody installs.
    options = ("--only-binary", ":all:", "--reinstall-package", "greenlet")
    try:
        python = environments.make(folder, BASE, *options, greenlet, *requirements)
    except environments.Unavailable as error:
        if "no usable wheels" in str(error) or "no wheels with a matching" in str(error):
            pytest.skip(f"no matching distribution: {str(error).splitlines()[-1]}")
        raise
    code = "import greenlet; print(greenlet.__version__)"
    return Environment(python, environments.run(python, "-c", code).strip())
