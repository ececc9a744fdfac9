"""Build the sdist, and from it a wheel for each interpreter, into dist/, and check them.

cibuildwheel does so for everybody, but runs in containers, which are not everywhere. This does the
same on the machine at hand, with the same settings, and only what has passed is in dist/:

- check-manifest: the sdist holds what git knows, and nothing else.
- auditwheel finds the oldest manylinux (or musllinux) tag that the wheel's symbols allow.
- check-wheel-contents and twine: the package is complete, the metadata is valid.
- What no tool looks at: the module is stripped, asks for no executable stack, and loads no library
  but the C library, since to load another takes longer than to import greenlet.
- The Python suite passes in an environment with the wheel, in a folder without our sources.
"""

import os
import re
import shutil
import tempfile
import tomllib
import zipfile
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
LIBRARIES = ("libc.", "libdl.", "libpthread.", "ld-")


def check_module(wheel: Path, folder: Path) -> None:
    """Reject an extension module that is not as it should be."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        (module,) = (name for name in names if "/_greenlet.c" in name)
        archive.extract(module, folder)
    package = {f"greenlet/{file.name}" for file in (CHECKOUT / "src" / "greenlet").iterdir()}
    wanted = {module, "greenlet/greenlet.h", *package}
    if more := [name for name in names - wanted if name.startswith("greenlet/")]:
        raise Unavailable(f"{wheel.name} holds {more}, which is not of the package")
    tables = environments.run("readelf", "-SldW", folder / module)
    needed = re.findall(r"\(NEEDED\).*\[([^]]*)\]", tables)
    if strays := [library for library in needed if not library.startswith(LIBRARIES)]:
        raise Unavailable(f"{wheel.name} loads {strays}, at the cost of every import")
    if ".symtab" in tables or ".debug_" in tables:
        raise Unavailable(f"{wheel.name} is not stripped")
    if not re.search(r"^ *GNU_STACK .* RW +0x", tables, re.MULTILINE):
        raise Unavailable(f"{wheel.name} asks for executable stacks, which many systems refuse")


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
                check_module(wheel, work / "unpacked")
                do("check-wheel-contents", wheel)
                do("twine", "check", "--strict", wheel)
                python = environments.make(work / "venv", base, "--no-index", wheel)
                environments.install(python, "--group", "test")
                counts = suites.pytest(report, label, [python], "tests/python", folder=suite)
                if not counts.failed:
                    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes")
                    shutil.move(wheel, DIST)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, interpreters.provide(names or interpreters.STANDARD).items()))
