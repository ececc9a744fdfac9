"""Build the sdist, and from it a wheel for each interpreter, into dist/, and check them.

    wheels.py [NAME ...]      default: each supported interpreter (see interpreters.py)

Only what has passed these checks is in dist/ at the end:

- The sdist holds nothing that git does not know, and all that a wheel is built from.
- auditwheel finds a manylinux (or musllinux) tag for the wheel: the oldest that its symbols allow.
- The wheel holds the package, its header and its metadata, nothing else, and no symbols to strip.
- An environment with nothing else in it takes the wheel, and imports it.
- The Python suite passes there, from a folder with the sdist's tests and without its sources.

Sizes are printed beside those of the published wheels, and written to docs/wheels.md if no
interpreter was left out. What the tools and tests print is in build/logs. The last line is
`N passed, N failed`; a wheel that fails a check counts as one failure.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import environments
import interpreters
import run_tests
from interpreters import CHECKOUT
from run_tests import Counts, Log

DIST = CHECKOUT / "dist"
DOCUMENT = CHECKOUT / "docs" / "wheels.md"
TABLE_BEGIN = "<!-- `make wheels` writes what follows. -->\n"
TABLE_END = "<!-- `make wheels` wrote what precedes. -->\n"

# Runs isolated and in another folder, so it is the wheel's greenlet or none.
IMPORT = """
import pathlib, sys, greenlet
assert pathlib.Path(greenlet.__file__).is_relative_to(sys.prefix), greenlet.__file__
assert greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch(42)).switch() == 42
"""


class Rejected(Exception):
    """A check failed; the text says which."""


class Sizes(NamedTuple):
    """What a wheel takes, in bytes: as a file, its extension module, all of it installed."""

    wheel: int
    extension: int
    installed: int

    @classmethod
    def of(cls, wheel: Path) -> "Sizes":
        """Read them from the archive's directory."""
        with zipfile.ZipFile(wheel) as archive:
            files = archive.infolist()
        (extension,) = (f.file_size for f in files if f.filename.startswith("greenlet/_greenlet.c"))
        return cls(wheel.stat().st_size, extension, sum(file.file_size for file in files))


class Row(NamedTuple):
    """What the table says of an interpreter; no published wheel, no sizes of it."""

    name: str
    tag: str
    ours: Sizes
    published: Sizes | None


def git(*arguments: str) -> str:
    """Ask git about the checkout."""
    return subprocess.run(
        ["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout


def configuration() -> dict[str, Any]:
    """Return cibuildwheel's settings, which are for the interpreters we have here."""
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        settings: dict[str, Any] = tomllib.load(file)["tool"]["cibuildwheel"]
    wanted = [f"cp{name.replace('.', '')}-*" for name in interpreters.STANDARD]
    if settings["build"] != wanted:
        raise Rejected(f"cibuildwheel is told to build {settings['build']}, not {wanted}")
    return settings


class Build:
    """One run of this tool: its tools, the folder it works in, and the sdist unpacked there."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._python = environments.tools("wheels")
        # Those who run the tests elsewhere need the same files.
        self._tests: list[str] = configuration()["test-sources"]
        tools = [self._python.parent, environments.tools("build").parent]
        self._environment = {
            "PATH": os.pathsep.join([*map(str, tools), os.environ["PATH"]]),
            "CMAKE_BUILD_PARALLEL_LEVEL": "2",
            # What is built twice from one commit is the same twice.
            "SOURCE_DATE_EPOCH": git("log", "-1", "--format=%ct").strip(),
        }
        self._log = Log("sdist", echo=False)
        self.sdist = self._make_sdist()
        self.sources = work / self.sdist.name.removesuffix(".tar.gz")

    def _do(self, log: Log, *command: str | Path) -> None:
        """Run a command that has to succeed."""
        if log.run(command, folder=self._work, **self._environment):
            where = log.path.relative_to(CHECKOUT)
            raise Rejected(f"{' '.join(map(str, command))} failed ({where})")

    def _make_sdist(self) -> Path:
        folder = self._work / "sdist"
        self._do(self._log, self._python, "-m", "build", "--sdist", "--outdir", folder, CHECKOUT)
        (sdist,) = folder.iterdir()
        with tarfile.open(sdist) as archive:
            names = {member.name.partition("/")[2] for member in archive if member.isfile()}
        strays = names - {"PKG-INFO"} - set(git("ls-files").splitlines())
        if strays:
            raise Rejected(f"the sdist holds files that git does not know: {sorted(strays)}")
        self._do(self._log, "tar", "-xzf", sdist, "-C", self._work)
        return sdist

    def finish(self, results: Sequence[Path]) -> None:
        """Put what has passed into dist/."""
        self._do(self._log, self._python, "-m", "twine", "check", "--strict", *results)
        DIST.mkdir(exist_ok=True)
        for file in results:
            shutil.move(file, DIST)

    def wheel(self, name: str, base: Path, log: Log) -> tuple[Path, Counts, Row]:
        """Build, repair and check the wheel for an interpreter."""
        folder = self._work / name
        python = folder / "venv" / "bin" / "python"
        self._do(log, base, "-m", "venv", folder / "venv")
        pip: list[str | Path] = [python, "-m", "pip", "--quiet"]
        # From the folder, not the archive: of an archive, pip would keep the wheel for next time.
        self._do(log, *pip, "wheel", "--no-deps", "--wheel-dir", folder / "raw", self.sources)
        (raw,) = (folder / "raw").iterdir()

        auditwheel: list[str | Path] = [self._python, "-m", "auditwheel"]
        self._do(log, *auditwheel, "repair", "--wheel-dir", folder / "repaired", raw)
        (wheel,) = (folder / "repaired").iterdir()
        check_contents(wheel, self.sources / "src" / "greenlet", folder, log)

        published = published_sizes(python, folder / "published", log)
        self._do(log, *pip, "install", "--no-index", wheel)
        self._do(log, python, "-I", "-c", IMPORT)

        self._do(log, *pip, "install", "-r", environments.TOOLS / "requirements-test.txt")
        suite = folder / "suite"
        for source in self._tests:
            copy(self.sources / source, suite / source)
        counts = run_tests.run_suite("python", python, log, folder=suite)
        # The last of its tags is the one that names a version of the C library.
        tag = wheel.stem.rpartition("-")[2].split(".")[-1]
        return wheel, counts, Row(name, tag, Sizes.of(wheel), published)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, with the folders that lead to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def check_contents(wheel: Path, package: Path, folder: Path, log: Log) -> None:
    """Reject a wheel that holds more or less than it should."""
    distribution = "-".join(wheel.name.split("-")[:2])
    wanted = {
        *(f"greenlet/{file.name}" for file in package.iterdir()),
        "greenlet/greenlet.h",
        f"{distribution}.data/headers/greenlet.h",
        *(
            f"{distribution}.dist-info/{name}"
            for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")
        ),
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        extensions = {name for name in names if name.startswith("greenlet/_greenlet.cpython-")}
        if len(extensions) != 1:
            raise Rejected(f"{wheel.name} has not one extension module, but {sorted(extensions)}")
        if names - extensions != wanted:
            difference = sorted((names - extensions) ^ wanted)
            raise Rejected(f"{wheel.name} holds what it should not, or lacks: {difference}")
        module = archive.extract(extensions.pop(), folder / "unpacked")
    # Where there are no binutils there was no compiler.
    headers = subprocess.run(
        ["readelf", "--sections", "--segments", "--dynamic", "--wide", module],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    log.write(headers)
    libraries = set(re.findall(r"\(NEEDED\)\s+Shared library: \[([^]]*)\]", headers))
    if strays := {
        name for name in libraries if not name.startswith(("libc.", "libdl.", "libpthread.", "ld-"))
    }:
        raise Rejected(f"{wheel.name} loads {sorted(strays)}, at the cost of every import")
    if ".symtab" in headers or ".debug_" in headers:
        raise Rejected(f"{wheel.name} is not stripped")
    if not re.search(r"^ *GNU_STACK .* RW +0x", headers, re.MULTILINE):
        raise Rejected(f"{wheel.name} asks for executable stacks, which many systems refuse")


def published_sizes(python: Path, folder: Path, log: Log) -> Sizes | None:
    """Return the sizes of the published wheel, if there is one for this interpreter."""
    requirements = environments.TOOLS / "requirements-published.txt"
    # A wheel, never a source distribution; and only its directory is looked at.
    download = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    if log.run([python, *download, "--dest", folder, "-r", requirements]):
        return None
    (wheel,) = folder.iterdir()
    return Sizes.of(wheel)


def table(rows: Sequence[Row]) -> str:
    """Return the sizes as Markdown."""
    cells = [
        ["", "wheel", "published", "", "`.so`", "published", "", "installed", "published", ""],
    ]
    for row in rows:
        line = [row.name]
        for kind in range(len(Sizes._fields)):
            ours = row.ours[kind]
            line.append(f"{ours:,}")
            if row.published:
                line += [f"{row.published[kind]:,}", f"{ours / row.published[kind]:.1%}"]
            else:
                line += ["none", ""]
        cells.append(line)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        f"| {' | '.join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in cells
    ]
    rule = " | ".join("-" * (width - 1) + ":" for width in widths)
    return "\n".join([lines[0], f"| {rule} |", *lines[1:]])


def report(rows: Sequence[Row]) -> str:
    """Return the table, and what the wheels were built with."""
    compiler = subprocess.run(
        [os.environ.get("CXX", "c++"), "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    against = (environments.TOOLS / "requirements-published.txt").read_text().split()[-1]
    tags = ", ".join(sorted({f"`{row.tag}`" for row in rows}))
    return (
        f"Bytes, ours beside those of {against}, and what part of those it is; {tags}; built on\n"
        f"{platform.machine()} by {compiler}.\n\n{table(rows)}\n"
    )


def document(text: str) -> None:
    """Put the report where docs/wheels.md has it."""
    before, _, rest = DOCUMENT.read_text().partition(TABLE_BEGIN)
    after = rest.partition(TABLE_END)[2]
    DOCUMENT.write_text(f"{before}{TABLE_BEGIN}\n{text}\n{TABLE_END}{after}")


def make(names: Sequence[str]) -> Iterator[Counts]:
    """Build and check everything; yield what came of each interpreter."""
    found = interpreters.provide(names)
    shutil.rmtree(DIST, ignore_errors=True)
    # Not in the checkout, whose sources no test is to find.
    with tempfile.TemporaryDirectory(prefix="greenlet-wheels-") as folder:
        build = Build(Path(folder))
        results = [build.sdist]
        rows: list[Row] = []

        def run(name: str) -> Counts:
            if name not in found:
                print(f"{name:12} no such interpreter on this machine", flush=True)
                return Counts(failed=1)
            log = Log(f"wheel-{name}", echo=False)
            try:
                wheel, counts, row = build.wheel(name, found[name], log)
            except Rejected as reason:
                log.write(f"{reason}\n")
                counts = Counts(failed=1)
            else:
                rows.append(row)
                if not counts.failed:
                    results.append(wheel)
            where = log.path.relative_to(CHECKOUT)
            print(f"{name:12} {counts} ({where})", flush=True)
            if counts.failed:
                print(log.end("wheel"), flush=True)
            return counts

        with ThreadPoolExecutor(2) as pool:
            yield from pool.map(run, names)
        build.finish(results)

    if rows:
        rows.sort(key=lambda row: names.index(row.name))
        text = report(rows)
        print(f"\n{text}")
        if [row.name for row in rows] == list(interpreters.STANDARD):
            document(text)
    for file in sorted(DIST.iterdir()):
        print(file.relative_to(CHECKOUT))


def main() -> int:
    """Make wheels for the interpreters that the command line names, and print the total."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=interpreters.STANDARD, metavar="NAME")
    results: list[Counts] = []
    try:
        results.extend(make(list(dict.fromkeys(parser.parse_args().names))))
    except (Rejected, environments.Unavailable) as reason:
        print(reason)
        results.append(Counts(failed=1))
    result = run_tests.total(results)
    print(f"{result.passed} passed, {result.failed} failed")
    return 1 if result.failed or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main())
