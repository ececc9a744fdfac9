"""Run wheels that were built for other structures than those of the interpreter.

CPython appends fields to its internal structures in patch releases, and a wheel built with one must
work with the other, or refuse to be imported. No known tool makes such wheels; abi3audit and the
like know the public interface alone. Here a wheel is built with changed headers, and the Python
suite runs with it on the plain interpreter. An ImportError with a reason counts as passed.

- From 3.14 on, PyThreadState grows: headers with a field more and with a field less at its end.
- Free-threaded builds have mimalloc's figures in their thread states: headers where they are
  larger.
- 3.11 and 3.12 do not tell their layout. Wheels that were built with headers where a field has
  moved must refuse to be imported.
"""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import environments
import interpreters
import suites
from environments import Unavailable, required
from suites import CHECKOUT, Counts, Report

STANDARD = ("3.11", "3.12", "3.14", "3.14t", "3.15t")
# What is changed: the header, a line of it, and what stands there instead.
Change = tuple[str, str, str]
STATE, FRAME = "cpython/pystate.h", "internal/pycore_frame.h"
LAST_FIELD = "_PyStackChunk *datastack_cached_chunk;\n};"
MORE: Change = (STATE, LAST_FIELD, LAST_FIELD.replace("\n", " void *one_more;\n"))
LESS: Change = (STATE, LAST_FIELD, "};")
FREE_LISTS = "struct _Py_freelists freelists;"
MIMALLOC: Change = ("internal/pycore_tstate.h", FREE_LISTS, f"char newer[3608]; {FREE_LISTS}")
MOVED_FIELDS = {
    "recursion": (STATE, "int {py}recursion_remaining;"),
    "cframe": (STATE, "_PyCFrame *cframe;"),
    "exc_info": (STATE, "_PyErr_StackItem *exc_info;"),
    "dict": (STATE, "PyObject *dict;"),
    "context": (STATE, "PyObject *context;"),
    "id": (STATE, "uint64_t id;"),
    "datastack": (STATE, "_PyStackChunk *datastack_chunk;"),
    "frame": (FRAME, "PyCodeObject *f_code;"),
    "previous": (FRAME, "struct _PyInterpreterFrame *previous;"),
    "owner": (FRAME, "char owner;"),
}


def changes(name: str) -> dict[str, Change]:
    """Return the changes that are tried on an interpreter."""
    found = {}
    if name.startswith(("3.11", "3.12")):
        for field, (header, line) in MOVED_FIELDS.items():
            line = line.replace("{py}", "py_" if name.startswith("3.12") else "")
            found[f"{field}-moved"] = (header, f"    {line}", f"    void *one_more; {line}")
    if name.startswith("3.14"):
        found |= {"one-field-more": MORE, "one-field-less": LESS}
    if name.endswith("t"):
        found["newer-mimalloc"] = MIMALLOC
    return found


def wheel_for(name: str, base: Path, label: str, change: Change) -> Path:
    """Return a wheel that was built with changed headers."""
    question = "import sysconfig; print(sysconfig.get_path('include'))"
    headers = CHECKOUT / "build" / "headers" / name / label
    shutil.rmtree(headers, ignore_errors=True)
    shutil.copytree(environments.run(base, "-c", question).strip(), headers)
    file, line, instead = change
    text = (headers / file).read_text()
    if line not in text:
        raise Unavailable(f"{file} has no {line!r}: this version needs another change")
    (headers / file).write_text(text.replace(line, instead))
    return environments.wheel(name, base, headers)


def run(report: Report, names: Iterable[str]) -> None:
    """Test on each named interpreter."""
    for name, base in interpreters.provide(names or STANDARD).items():
        for what, change in changes(name).items():
            label = f"{name}-{what}"
            with required(report, label):
                wheel = wheel_for(name, base, label, change)
                folder = environments.FOLDER / f"{name}-layout"
                python = environments.make(folder, base, "--group", "test")
                environments.install(python, "--reinstall", "--no-deps", wheel)
                command = (python, "-c", "import greenlet")
                imported = subprocess.run(command, capture_output=True, text=True, check=False)
                refused = "ImportError: greenlet was built" in imported.stderr
                if refused or what.endswith("-moved"):
                    print(imported.stderr)
                    report.add(label, Counts(int(refused), int(not refused)))
                else:
                    suites.pytest(report, label, [python], "tests/python")
