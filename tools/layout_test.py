"""Run a wheel on interpreters whose structures are not those that the wheel was built with.

    layout_test.py [NAME ...]      default: 3.11 3.12 3.14 3.14t 3.15t

CPython appends fields to its internal structures in patch releases, and a wheel built with one must
work with the other, or refuse to be imported. What the tests print is in build/logs. The last line
is `N passed, N failed`; an ImportError with a reason counts as passed.

- From 3.14 on, PyThreadState grows. This builds, from the archive beside build.sh, each interpreter
  once with a field more and once with a field less at its end, and runs the Python suite there with
  the wheel for the plain interpreter.
- Free-threaded builds have mimalloc's figures in their thread states. The Python suite runs on the
  plain interpreter, with a wheel that was built with headers where they are larger.
- 3.11 and 3.12 do not tell their layout. Wheels that were built with headers where a field has
  moved must refuse to be imported.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import environments
import interpreters
import run_tests
from interpreters import BUILDER, CHECKOUT
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

# What is inserted in a header, before which line.
MIMALLOC = ("internal/pycore_tstate.h", "struct _Py_freelists freelists;", "char newer[3608];")
ONE_MORE = "void *one_more;"
MOVED_FIELDS: Mapping[str, tuple[str, str, str]] = {
    "recursion": ("cpython/pystate.h", "int {py}recursion_remaining;", ONE_MORE),
    "cframe": ("cpython/pystate.h", "_PyCFrame *cframe;", ONE_MORE),
    "exc_info": ("cpython/pystate.h", "_PyErr_StackItem *exc_info;", ONE_MORE),
    "dict": ("cpython/pystate.h", "PyObject *dict;", ONE_MORE),
    "context": ("cpython/pystate.h", "PyObject *context;", ONE_MORE),
    "id": ("cpython/pystate.h", "uint64_t id;", ONE_MORE),
    "datastack": ("cpython/pystate.h", "_PyStackChunk *datastack_chunk;", ONE_MORE),
    "frame": ("internal/pycore_frame.h", "PyCodeObject *f_code;", ONE_MORE),
    "previous": ("internal/pycore_frame.h", "struct _PyInterpreterFrame *previous;", ONE_MORE),
    "owner": ("internal/pycore_frame.h", "char owner;", ONE_MORE),
}


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


def with_headers(name: str, base: Path, label: str, change: tuple[str, str, str]) -> Path:
    """Return a wheel for NAME that was built with changed headers."""
    question = "import sysconfig; print(sysconfig.get_path('include'))"
    found = subprocess.run([base, "-c", question], capture_output=True, text=True, check=True)
    headers = CHECKOUT / "build" / "headers" / name / label
    shutil.rmtree(headers, ignore_errors=True)
    shutil.copytree(found.stdout.strip(), headers)
    file, line, inserted = change
    line = line.replace("{py}", "py_" if name.startswith("3.12") else "")
    _replace(headers / file, f"    {line}", f"    {inserted}\n    {line}")
    return environments.wheel(name, base, headers)


def run_on(python: Path, log: Log, *, must_refuse: bool = False) -> Counts:
    """Run the Python suite in an environment with a wheel that was built for another layout."""
    imported = subprocess.run(
        [python, "-c", "import greenlet"], capture_output=True, text=True, check=False
    )
    log.write(imported.stderr)
    if imported.returncode == 1 and "ImportError: greenlet was built for" in imported.stderr:
        return Counts(passed=1)
    return Counts(failed=1) if must_refuse else run_tests.run_suite("python", python, log)


def counts_of(name: str, base: Path) -> Iterator[tuple[str, Counts]]:
    """Run all that concerns an interpreter, and tell each result."""
    if name.startswith(("3.11", "3.12")):
        for field, moved in MOVED_FIELDS.items():
            log = Log(f"{name}-{field}-moved", echo=False)
            wheel = with_headers(name, base, f"{field}-moved", moved)
            python = environments.with_wheel(f"{name}-moved", base, wheel)
            yield f"{field} moved", run_on(python, log, must_refuse=True)
        return
    if name.startswith("3.14"):
        for change in PATCHES:
            log = Log(f"{name}-one-field-{change}", echo=False)
            wheel = environments.wheel(name, base)
            python = environments.with_wheel(log.path.stem, patched(name, change), wheel)
            yield f"a field {change}", run_on(python, log)
    if name.endswith("t"):
        log = Log(f"{name}-newer-mimalloc", echo=False)
        wheel = with_headers(name, base, "newer-mimalloc", MIMALLOC)
        yield "newer mimalloc", run_on(environments.with_wheel(log.path.stem, base, wheel), log)


def main() -> int:
    """Test each named interpreter and print the total."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    standard = ["3.11", "3.12", "3.14", "3.14t", "3.15t"]
    parser.add_argument("names", nargs="*", default=standard, metavar="NAME")
    results = []
    for name, base in interpreters.provide(parser.parse_args().names).items():
        for what, counts in counts_of(name, base):
            results.append(counts)
            print(f"{name}, {what}: {counts}", flush=True)
    result = run_tests.total(results)
    print(f"{result.passed} passed, {result.failed} failed")
    return 1 if result.failed or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main())
