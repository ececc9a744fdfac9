"""Build the sdist, and from it a wheel for each interpreter, into dist/, and check them.

cibuildwheel does so for everybody, but runs in containers, which are not everywhere. This does the
same on the machine at hand, with the same settings, and only what has passed is in dist/:

- check-manifest: the sdist holds what git knows, and nothing else.
- auditwheel finds the oldest manylinux (or musllinux) tag that the wheel's symbols allow.
- check-wheel-contents and twine: the package is complete, the metadata is valid.
- The Python suite passes in an environment with the wheel, in a folder without our sources. It also
  looks at what the package holds, at the libraries that it loads, and at its hardening.
- What none of these looks at: the module has no debug information.
"""

import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import environments
import interpreters
import nox
import suites
from environments import Unavailable, required
from suites import CHECKOUT, Report

DIST = CHECKOUT / "dist"


def make(session: nox.Session, report: Report, names: Sequence[str]) -> None:
    """Build, check and test everything."""
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    wanted = [f"cp{name.replace('.', '')}-*" for name in interpreters.STANDARD]
    if settings["build"] != wanted:
        session.error(f"cibuildwheel is told to build {settings['build']}, not {wanted}")
    # What is built twice from one commit is the same twice.
    date = environments.run("git", "log", "-1", "--format=%ct").strip()
    path = f"{session.bin}{os.pathsep}{os.environ['PATH']}"
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("check-manifest", "--no-build-isolation", silent=True)

    def do(*command: str | Path) -> None:
        environments.run(*command, SOURCE_DATE_EPOCH=date, PATH=path)

    with tempfile.TemporaryDirectory(prefix="greenlet-wheels-") as folder:
        do("uv", "build", "--sdist", "--no-create-gitignore", "--out-dir", DIST)
        (sdist,) = DIST.glob("*.tar.gz")
        do("twine", "check", "--strict", sdist)
        # Not in the checkout, whose sources no test is to find.
        suite = Path(folder, "suite")
        suite.mkdir()
        top = sdist.name.removesuffix(".tar.gz")
        tests = [f"{top}/{source}" for source in settings["test-sources"]]
        do("tar", "-xf", sdist, "-C", suite, "--strip-components=1", *tests)

        def one(item: tuple[str, Path]) -> None:
            name, base = item
            work, label = Path(folder, name), f"wheel-{name}"
            with required(report, label):
                do("uv", "build", "--wheel", "--python", base, "--out-dir", work / "raw", sdist)
                do("auditwheel", "repair", "--wheel-dir", work / "all", *work.glob("raw/*.whl"))
                (wheel,) = work.glob("all/*.whl")
                do("check-wheel-contents", wheel)
                do("twine", "check", "--strict", wheel)
                python = environments.make(work / "venv", base, "--no-index", wheel)
                environments.install(python, "--group", "test")
                installed = work.glob("venv/lib/*/site-packages/greenlet/*.so")
                if re.search(r"\.debug_", environments.run("readelf", "-SW", *installed)):
                    raise Unavailable(f"{wheel.name} has debug information")
                counts = suites.pytest(report, label, [python], "tests/python", folder=suite)
                if not counts.failed:
                    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes")
                    shutil.move(wheel, DIST)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, interpreters.provide(names or interpreters.STANDARD).items()))
