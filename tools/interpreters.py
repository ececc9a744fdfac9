"""Find the CPython interpreters of this machine.

A name is VERSION[t][-debug|-asan|-tsan], such as 3.14t (free-threaded), 3.15-debug, or 3.15t-tsan
(with ThreadSanitizer; -asan: AddressSanitizer). Well-known finders do not suffice: uv and nox
cannot tell a build with a sanitizer from one without, nor see whether the headers are there.
CONTRIBUTING.md says where interpreters are looked for.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

STANDARD = ("3.11", "3.12", "3.13", "3.14", "3.14t", "3.15", "3.15t")
CACHE = Path(os.environ.get("INTERPRETERS", Path.home() / ".cache" / "greenlet-interpreters"))
BUILDER = shlex.split(os.environ.get("GREENLET_INTERPRETER_BUILDER", ""))

# A usable interpreter prints its name. It needs headers, to build the extension.
_QUESTION = """
import os, sys, sysconfig
assert sys.implementation.name == "cpython"
assert os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
free_threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
kind = "-debug" if hasattr(sys, "gettotalrefcount") else ""
options = sysconfig.get_config_var("CONFIG_ARGS") or ""
for sanitizer in "thread", "address":
    if f"--with-{sanitizer}-sanitizer" in options:
        kind = f"-{sanitizer[0]}san"
print("%d.%d%s%s" % (*sys.version_info[:2], free_threaded, kind))
"""


def _output(*command: str | Path) -> str:
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


@cache
def name_of(python: Path) -> str:
    """Return the interpreter's name, or nothing if it cannot be used."""
    return _output(python, "-I", "-c", _QUESTION)


def default() -> tuple[str, Path]:
    """Return the interpreter that runs this: outside of environments, `python3`."""
    python = Path(getattr(sys, "_base_executable", sys.executable))
    return name_of(python) or sys.exit(f"{python} lacks Python.h, or is not CPython"), python


def _folders() -> Iterator[Path]:
    """Return the folders with interpreters in them, the first choice first."""
    given = os.environ.get("GREENLET_INTERPRETERS", "").split(os.pathsep)
    for folder in (*map(Path, filter(None, given)), CACHE):
        yield from sorted(folder.glob("*/bin"))
    managed = _output("uv", "python", "list", "--only-installed", "--managed-python")
    for line in managed.splitlines():
        yield Path(line.split()[-1]).parent
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(
        pyenv.glob("versions/3.*/bin"),
        key=lambda folder: [int(number) for number in re.findall(r"\d+", folder.parent.name)],
        reverse=True,
    )
    # A shim of pyenv's may be there for a version that is not; the real ones were seen above.
    yield from (folder for folder in map(Path, os.get_exec_path()) if folder != pyenv / "shims")


def _candidates(version: str) -> Iterator[Path]:
    yield default()[1]
    if BUILDER:
        for line in _output(*BUILDER, "--print").splitlines():
            yield Path(line.split(maxsplit=1)[1])
    for folder in _folders():
        yield from sorted(folder.glob(f"python{version}*"))


@cache
def find(name: str) -> Path | None:
    """Return the first interpreter of this name."""
    version = re.split("[t-]", name)[0]
    named = re.compile(rf"python({re.escape(version)}t?d?|3)")
    candidates = (each for each in _candidates(version) if named.fullmatch(each.name))
    return next((python for python in candidates if name_of(python) == name), None)


def provide(names: Iterable[str]) -> dict[str, Path]:
    """Find the named interpreters; build those the builder knows; name those that are missing."""
    names = list(names)
    missing = [name for name in names if not find(name)]
    if BUILDER and missing:
        known = _output(*BUILDER, "--list").split()
        for name in missing:
            if name in known:
                subprocess.run([*BUILDER, name], check=False, stdout=sys.stderr)
        find.cache_clear()
    found = {name: python for name in names if (python := find(name))}
    if missing := [name for name in names if name not in found]:
        print(f"not on this machine: {', '.join(missing)}", flush=True)
    return found
