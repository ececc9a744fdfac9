"""Run a wheel on interpreters whose structures are not those that the wheel was built with.

CPython appends fields to its internal structures in patch releases, and a wheel built with one must
work with the other, or refuse to be imported. No known tool makes such interpreters and headers;
abi3audit and the like know the public interface alone. An ImportError with a reason counts as
passed.

- From 3.14 on, PyThreadState grows. This builds, from the archive beside the script that builds
  interpreters, each interpreter once with a field more and once with a field less at its end, and
  runs the Python suite there with the wheel for the plain interpreter.
- Free-threaded builds have mimalloc's figures in their thread states. The Python suite runs on the
  plain interpreter, with a wheel that was built with headers where they are larger.
- 3.11 and 3.12 do not tell their layout. Wheels that were built with headers where a field has
  moved must refuse to be imported.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import environments
import interpreters
import suites
from environments import Unavailable
from interpreters import BUILDER, CACHE
from suites import CHECKOUT, LOGS, Counts, Report

STANDARD = ("3.11", "3.12", "3.14", "3.14t", "3.15t")
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
    """Keep the last field, which only its own thread uses, in a variable of the thread."""
    _replace(source / "Include" / "cpython" / "pystate.h", LAST_FIELD + END, END)
    file = source / "Python" / "pystate.c"
    variable = "static _Thread_local _PyStackChunk *datastack_cached_chunk;"
    text = file.read_text().replace("tstate->datastack_cached_chunk", "datastack_cached_chunk")
    before, include, after = text.partition('#include "pycore_stackref.h"')
    rest_of_line, _, after = after.partition("\n")
    file.write_text(f"{before}{include}{rest_of_line}\n{variable}\n{after}")


PATCHES: Mapping[str, Callable[[Path], None]] = {"more": _one_more, "less": _one_less}

# What is inserted in a header, before which line.
MIMALLOC = ("internal/pycore_tstate.h", "struct _Py_freelists freelists;", "char newer[3608];")
ONE_MORE = "void *one_more;"
STATE, FRAME = "cpython/pystate.h", "internal/pycore_frame.h"
MOVED_FIELDS: Mapping[str, tuple[str, str, str]] = {
    "recursion": (STATE, "int {py}recursion_remaining;", ONE_MORE),
    "cframe": (STATE, "_PyCFrame *cframe;", ONE_MORE),
    "exc_info": (STATE, "_PyErr_StackItem *exc_info;", ONE_MORE),
    "dict": (STATE, "PyObject *dict;", ONE_MORE),
    "context": (STATE, "PyObject *context;", ONE_MORE),
    "id": (STATE, "uint64_t id;", ONE_MORE),
    "datastack": (STATE, "_PyStackChunk *datastack_chunk;", ONE_MORE),
    "frame": (FRAME, "PyCodeObject *f_code;", ONE_MORE),
    "previous": (FRAME, "struct _PyInterpreterFrame *previous;", ONE_MORE),
    "owner": (FRAME, "char owner;", ONE_MORE),
}


def patched(name: str, change: str) -> Path:
    """Return the python of interpreter NAME with a field more or less; build it if need be."""
    prefix = CACHE / f"{name}-one-field-{change}"
    python = prefix / "bin" / "python3"
    if python.exists():
        return python
    pattern = f"python{name.removesuffix('t')}_*.orig.tar.xz"
    archives = list(Path(BUILDER[0]).parent.glob(pattern)) if BUILDER else []
    if not archives:
        raise Unavailable(f"no {pattern} beside GREENLET_INTERPRETER_BUILDER")
    print(f"building {prefix.name}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="cpython-") as folder:
        source = Path(folder)
        environments.run("tar", "-xJf", max(archives), "-C", source, "--strip-components=1")
        PATCHES[change](source)
        configure = f"./configure -q --prefix={prefix} {'--disable-gil' * name.endswith('t')}"
        build = f"cd {source} && {configure} && make -s -j2 && make -s install"
        try:
            environments.run("sh", "-c", build)
        except Unavailable:
            shutil.rmtree(prefix, ignore_errors=True)
            raise
    return python


def with_headers(name: str, base: Path, label: str, change: tuple[str, str, str]) -> Path:
    """Return a wheel for NAME that was built with changed headers."""
    question = "import sysconfig; print(sysconfig.get_path('include'))"
    headers = CHECKOUT / "build" / "headers" / name / label
    shutil.rmtree(headers, ignore_errors=True)
    shutil.copytree(environments.run(base, "-c", question).strip(), headers)
    file, line, inserted = change
    line = line.replace("{py}", "py_" if name.startswith("3.12") else "")
    _replace(headers / file, f"    {line}", f"    {inserted}\n    {line}")
    return environments.wheel(name, base, headers)


def run_on(
    report: Report, label: str, base: Path, wheel: Path, *, must_refuse: bool = False
) -> None:
    """Run the Python suite in an environment with a wheel that was built for another layout."""
    folder = environments.FOLDER / f"{label.split('-')[0]}-layout"
    python = environments.make(folder, base, "--group", "test")
    environments.install(python, "--reinstall", "--no-deps", wheel)
    command = (python, "-c", "import greenlet")
    imported = subprocess.run(command, capture_output=True, text=True, check=False)
    refused = imported.returncode == 1 and "ImportError: greenlet was built" in imported.stderr
    if refused or must_refuse:
        print(imported.stderr)
        report.add(label, Counts(int(refused), int(not refused)))
    else:
        suites.pytest(report, label, [python], "tests/python")


def run(report: Report, names: Iterable[str]) -> None:
    """Test on each named interpreter."""
    for name, base in interpreters.provide(names or STANDARD).items():
        try:
            if name.startswith(("3.11", "3.12")):
                for field, moved in MOVED_FIELDS.items():
                    label = f"{name}-{field}-moved"
                    wheel = with_headers(name, base, label, moved)
                    run_on(report, label, base, wheel, must_refuse=True)
            if name.startswith("3.14"):
                for change in PATCHES:
                    label = f"{name}-one-field-{change}"
                    run_on(report, label, patched(name, change), environments.wheel(name, base))
            if name.endswith("t"):
                label = f"{name}-newer-mimalloc"
                run_on(report, label, base, with_headers(name, base, label, MIMALLOC))
        except Unavailable as reason:
            log = LOGS / f"{name}-layout.log"
            log.write_text(str(reason))
            report.add(f"{name}, layout", Counts(failed=1), log)
