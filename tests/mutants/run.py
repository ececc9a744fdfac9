"""Break the sources on purpose, one fault at a time, and see that a test notices each.

    run.py [3.14 native NAME-OF-A-MUTANT ...] [--sample N] [--seed N] [--named-only]

mutants.toml lists the faults and the tests that have to fail. A mutant is caught if one of them
fails, hangs or crashes. The same tests must pass on the sources as they are. If a mutant survives
its tests, the whole suite runs, to say which other test catches it (not with --named-only or
--sample). --sample takes N mutants of one interpreter that the machine has, at random. A copy of
the sources and a build without much optimization for each interpreter are in build/mutants, so that
only what a fault changes is compiled.
"""

import argparse
import os
import random
import re
import shutil
import sys
import time
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tools"))

import environments  # noqa: E402
import interpreters  # noqa: E402
import suites  # noqa: E402
from suites import CHECKOUT, LOGS, Counts  # noqa: E402

BUILT_FROM = (
    *("CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml"),
    "tools/long_description.py",
    *("cmake", "include", "src", "tests/native"),
)
MINUTES = 5  # for the tests of a mutant
MINUTES_OF_ALL = 20  # for the whole suite, or the tests of all mutants


class Mutant(NamedTuple):
    """One deliberate fault."""

    name: str
    why: str  # it is a fault
    file: str
    old: str  # occurs once in the file
    new: str
    on: str  # an interpreter that shows it, or "native"
    tests: list[str]  # that find it: for pytest, or expressions for ctest

    def applied(self, text: str) -> str:
        """Return the text of the file with the fault in it."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.file} has its old text {count} times")
        return text.replace(self.old, self.new)


def read() -> list[Mutant]:
    """Return all mutants."""
    with (HERE / "mutants.toml").open("rb") as file:
        return [Mutant(**entry) for entry in tomllib.load(file)["mutant"]]


class Bench:
    """Sources of which one file at a time is changed, and what is built from them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sources = CHECKOUT / "build" / "mutants" / name / "sources"
        self.built = self.sources.parent / "build"
        self.log = LOGS / f"mutants-{name}.log"
        self.log.unlink(missing_ok=True)
        self.restore()
        self.prepare()
        self.build()

    def restore(self) -> None:
        """Make the sources those of the checkout; leave the files alone that are."""
        wanted = set()
        for part in BUILT_FROM:
            path = CHECKOUT / part
            for source in [path] if path.is_file() else path.rglob("*"):
                if source.is_file() and source.suffix != ".pyc":
                    copy = self.sources / source.relative_to(CHECKOUT)
                    wanted.add(copy)
                    if not copy.exists() or copy.read_bytes() != source.read_bytes():
                        copy.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(source, copy)
        for copy in self.sources.rglob("*"):
            if copy.is_file() and copy not in wanted:
                copy.unlink()

    def apply(self, mutant: Mutant) -> None:
        """Put a fault into the sources."""
        file = self.sources / mutant.file
        file.write_text(mutant.applied(file.read_text()))

    def prepare(self) -> None:
        """Make what build() needs."""
        raise NotImplementedError

    def build(self) -> None:
        """Compile what has changed, for failing()."""
        raise NotImplementedError

    def failing(self, tests: Iterable[str] = (), minutes: float = MINUTES_OF_ALL) -> str | None:
        """Return a test that fails, of these or (if none is named) of all there are."""
        raise NotImplementedError

    def run(self, *command: str | Path, minutes: float) -> tuple[int, str]:
        """Run a command; return its return code and what it printed."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        environment = {"PYTHONDONTWRITEBYTECODE": "1"}
        limit = 60 * minutes
        code = suites.run(command, self.log, echo=False, limit=limit, environment=environment)
        with self.log.open(encoding="utf-8", errors="replace") as file:
            file.seek(begin)
            return code, file.read()


class PythonBench(Bench):
    """An environment with a greenlet for one interpreter."""

    def prepare(self) -> None:
        base = interpreters.provide([self.name]).get(self.name)
        if base is None:
            raise environments.Unavailable(f"{self.name} is not on this machine")
        folder = environments.FOLDER / f"{self.name}-mutants"
        self.python = environments.make(folder, base, "--group", "test")
        settings = (
            f"build-dir={self.built}",
            "cmake.build-type=MinSizeRel",
            "cmake.define.CMAKE_CXX_FLAGS_MINSIZEREL=-O1 -DNDEBUG",
            f"cmake.define.CMAKE_PROJECT_TOP_LEVEL_INCLUDES={HERE / 'precompiled.cmake'}",
            "install.strip=false",
        )
        options = [f"--config-setting={setting}" for setting in settings]
        environments.install(
            self.python, "--no-deps", "--no-build-isolation", *options, self.sources
        )
        (self.installed,) = folder.glob("lib/*/site-packages/greenlet/_greenlet.*.so")

    def build(self) -> None:
        environments.run(self.python.parent / "cmake", "--build", self.built)
        # Not into the file that is there, which uv's cache may share.
        fresh = self.installed.with_suffix(".new")
        shutil.copy(self.built / self.installed.name, fresh)
        fresh.replace(self.installed)

    def failing(self, tests: Iterable[str] = (), minutes: float = MINUTES_OF_ALL) -> str | None:
        named = [f"tests/python/{test}" for test in tests]
        code, output = self.run(
            *(self.python, "-m", "pytest", "-v", "-x", "-p", "no:cacheprovider", "--tb=short"),
            *("--timeout", "120", "-o", "faulthandler_timeout=130"),
            *(named or ["tests/python"]),
            minutes=minutes,
        )
        if code == 0:
            return None
        begun = re.findall(r"^tests/python/(\S+::\w+)", output, re.MULTILINE)
        how = f"ended by signal {-code}" if code < 0 else ""
        return " ".join([begun[-1] if begun else "no test began", how]).strip()


class NativeBench(Bench):
    """The native tests."""

    def prepare(self) -> None:
        python = environments.make(
            environments.FOLDER / "native-mutants", interpreters.default()[1], "--group", "build"
        )
        self.tools = python.parent
        os.environ["PATH"] = f"{self.tools}{os.pathsep}{os.environ['PATH']}"  # for ninja
        environments.run(
            *("cmake", "-S", self.sources / "tests" / "native", "-B", self.built),
            "-DGREENLET_TEST_SECONDS=30",  # many mutants hang
        )

    def build(self) -> None:
        environments.run("cmake", "--build", self.built)

    def failing(self, tests: Iterable[str] = (), minutes: float = MINUTES_OF_ALL) -> str | None:
        code, output = self.run(
            *("ctest", "--test-dir", self.built, "--output-on-failure", "--stop-on-failure"),
            *("--no-tests=error", "-j", "2", "-R", "|".join(tests) or "."),
            minutes=minutes,
        )
        failed = re.findall(r"^\s+\d+ - (\S+) \(", output, re.MULTILINE)
        return None if code == 0 else failed[0] if failed else "no test began"


def try_all(report: suites.Report, name: str, mutants: Sequence[Mutant], named_only: bool) -> None:
    """Try the mutants that one interpreter shows."""
    started = time.monotonic()
    try:
        bench = NativeBench(name) if name == "native" else PythonBench(name)
    except environments.Unavailable as reason:
        print(reason)
        return report.add(f"{name} as it is", Counts(failed=1))
    failing = bench.failing(sorted({test for mutant in mutants for test in mutant.tests}))
    print(
        f"{name} as it is: {failing or 'passes'} in {time.monotonic() - started:.0f} s", flush=True
    )
    if failing:
        return report.add(f"{name} as it is", Counts(failed=1), bench.log)
    for mutant in mutants:
        started = time.monotonic()
        bench.restore()
        try:
            bench.apply(mutant)
            bench.build()
        except (ValueError, environments.Unavailable) as reason:
            print(reason)
            report.add(f"{name} {mutant.name} cannot be built", Counts(failed=1))
            continue
        found = bench.failing(mutant.tests, MINUTES)
        seconds = f"in {time.monotonic() - started:.0f} s"
        if found:
            report.add(f"{name} {mutant.name}, caught by {found} {seconds}", Counts(passed=1))
        else:
            elsewhere = "was not run" if named_only else f"finds: {bench.failing() or 'nothing'}"
            print(f"{mutant.why}\nNot found by {mutant.tests}. The whole suite {elsewhere}")
            report.add(f"{name} {mutant.name}, survived {seconds}", Counts(failed=1))
    bench.restore()
    bench.build()


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("chosen", nargs="*", help="interpreters, native, or names of mutants")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--named-only", action="store_true")
    options = parser.parse_args()
    mutants = read()
    if options.chosen:
        mutants = [each for each in mutants if {each.on, each.name} & set(options.chosen)]
    if options.sample:
        print(f"SEED={options.seed}")
        choice = random.Random(options.seed)
        there = [each for each in mutants if each.on == "native" or interpreters.find(each.on)]
        on = choice.choice(there).on
        mutants = [each for each in mutants if each.on == on]
        mutants = choice.sample(mutants, min(options.sample, len(mutants)))
    report = suites.Report()
    for name in dict.fromkeys(mutant.on for mutant in mutants):
        same = [mutant for mutant in mutants if mutant.on == name]
        try_all(report, name, same, options.named_only or options.sample > 0)
    report.finish()
    sys.exit(bool(report.total.failed or not report.total.passed))


if __name__ == "__main__":
    main()
