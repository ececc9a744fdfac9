"""Run a wheel on interpreters whose PyThreadState is not the one that the wheel was built with.

    layout_test.py [NAME ...]      default: 3.14 3.14t

CPython appends fields to its internal structures in patch releases, and a wheel built with one must
work with the other, or refuse to be imported. So this builds, from the archive beside build.sh,
each interpreter once with a field more and once with a field less at the end of PyThreadState, and
runs the Python suite there with the wheel for the plain interpreter. What the tests print is in
build/logs. The last line is `N passed, N failed`; an ImportError with a reason counts as passed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import environments
import interpreters
import run_tests
from interpreters import BUILDER
from run_tests import Counts, Log

INTERPRETERS = Path(
    os.environ.get("INTERPRETERS", Path.home() / ".cache" / "greenlet-interpreters")
)
LAST_FIELD = "    _PyStackChunk *datastack_cached_chunk;\n"
END = "};\n"


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    if old not in text:
        sys.exit(f"{file.name} has no {old!r}: this version needs another patch")
    file.write_text(text.replace(old, new))


def _one_more(source: Path) -> None:
    header = source / "Include" / "cpython" / "pystate.h"
    _replace(header, LAST_FIELD + END, LAST_FIELD + "    void *one_more;\n" + END)


def _one_less(source: Path) -> None:
    """Keep the last field, which a thread has for itself alone, in a variable of the thread."""
    _replace(source / "Include" / "cpython" / "pystate.h", LAST_FIELD + END, END)
    file = source / "Python" / "pystate.c"
    _replace(file, "tstate->datastack_cached_chunk", "datastack_cached_chunk")
    include = '#include "pycore_stackref.h"'
    variable = "static _Thread_local _PyStackChunk *datastack_cached_chunk;"
    text = file.read_text()
    line_end = text.index("\n", text.index(include)) + 1
    file.write_text(f"{text[:line_end]}{variable}\n{text[line_end:]}")


PATCHES: Mapping[str, Callable[[Path], None]] = {"more": _one_more, "less": _one_less}


def patched(name: str, change: str) -> Path:
    """Return the python of interpreter NAME with a field more or less, building it if need be."""
    prefix = INTERPRETERS / f"{name}-one-field-{change}"
    python = prefix / "bin" / "python3"
    if python.exists():
        return python
    version = name.removesuffix("t")
    archive = max(BUILDER.parent.glob(f"python{version}_*.orig.tar.xz"))
    print(f"building {prefix.name}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="cpython-") as folder:
        source = Path(folder)
        subprocess.run(["tar", "-xJf", archive, "-C", source, "--strip-components=1"], check=True)
        PATCHES[change](source)
        options = ["--disable-gil"] if name.endswith("t") else []
        log = INTERPRETERS / f"{prefix.name}.log"
        with log.open("w") as output:
            for command in (
                ["./configure", "-q", f"--prefix={prefix}", *options],
                ["make", "-s", "-j2"],
                ["make", "-s", "install"],
            ):
                done = subprocess.run(
                    command, cwd=source, stdout=output, stderr=subprocess.STDOUT, check=False
                )
                if done.returncode:
                    shutil.rmtree(prefix, ignore_errors=True)
                    raise environments.Unavailable(f"{prefix.name} failed to build; see {log}")
    return python


def run_on(name: str, change: str, wheel: Path) -> Counts:
    """Run the Python suite with a wheel for NAME on the changed interpreter."""
    log = Log(f"{name}-one-field-{change}", echo=False)
    python = environments.with_wheel(log.path.stem, patched(name, change), wheel)
    imported = subprocess.run(
        [python, "-c", "import greenlet"], capture_output=True, text=True, check=False
    )
    log.write(imported.stderr)
    if imported.returncode == 1 and "ImportError: greenlet was built for" in imported.stderr:
        return Counts(passed=1)
    return run_tests.run_suite("python", python, log)


def main() -> int:
    """Test each named interpreter both ways and print the total."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=["3.14", "3.14t"], metavar="NAME")
    results = []
    for name, base in interpreters.provide(parser.parse_args().names).items():
        wheel = environments.wheel(name, base)
        for change in PATCHES:
            results.append(run_on(name, change, wheel))
            print(f"{name}, a field {change}: {results[-1]}", flush=True)
    result = run_tests.total(results)
    print(f"{result.passed} passed, {result.failed} failed")
    return 1 if result.failed or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main())
