"""Find the CPython interpreters that greenlet is tested on, and print `NAME PATH` for each.

A name is VERSION[t][-debug|-tsan], such as 3.14t (free-threaded), 3.15-debug, or 3.15t-tsan (with
ThreadSanitizer; it runs only without address space randomization, see tsan_test.py). They are
looked for in this order: the interpreter that runs this script, those built by
../shared/interpreters/build.sh, pyenv's, and those on PATH. With --build, missing ones that
build.sh knows are built, two at a time.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
BUILDER = CHECKOUT.parent / "shared" / "interpreters" / "build.sh"

STANDARD = ("3.11", "3.12", "3.13", "3.14", "3.14t", "3.15", "3.15t")

# What a usable interpreter answers: its name. It needs headers, to build the extension for it, and
# ensurepip, to make environments with it.
_QUESTION = """
import ensurepip, os, sys, sysconfig
assert sys.implementation.name == "cpython"
assert os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
free_threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
kind = "-debug" if hasattr(sys, "gettotalrefcount") else ""
if "--with-thread-sanitizer" in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
    kind = "-tsan"
print("%d.%d%s%s" % (*sys.version_info[:2], free_threaded, kind))
"""


@cache
def name_of(python: Path) -> str | None:
    """Return the interpreter's name, or None if it cannot be used."""
    try:
        answer = subprocess.run(
            [python, "-I", "-c", _QUESTION], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def default() -> tuple[str, Path]:
    """Return the interpreter that runs this script: outside of environments, `python3`."""
    python = Path(getattr(sys, "_base_executable", sys.executable))
    name = name_of(python)
    if name is None:
        sys.exit(f"{python} cannot be used: it lacks Python.h or the ensurepip module")
    return name, python


def _candidates() -> Iterator[Path]:
    yield default()[1]
    if BUILDER.exists():
        built = subprocess.run([BUILDER, "--print"], capture_output=True, text=True, check=False)
        for line in built.stdout.splitlines():
            yield Path(line.split(maxsplit=1)[1])
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    releases = sorted(
        (pyenv / "versions").glob("3.*"),
        key=lambda folder: [int(number) for number in re.findall(r"\d+", folder.name)],
        reverse=True,
    )
    for folder in releases:
        yield from sorted(folder.glob("bin/python3.[0-9][0-9]*"))
    for folder in map(Path, os.get_exec_path()):
        # A shim of pyenv's is there for versions that are not; the real ones were seen above.
        if folder != pyenv / "shims":
            yield from sorted(folder.glob("python3.[0-9][0-9]*"))


def find(names: Iterable[str]) -> dict[str, Path]:
    """Return the path of each named interpreter that is there, in the order of `names`."""
    names = list(names)
    found: dict[str, Path] = {}
    for python in _candidates():
        if len(found) == len(names):
            break
        if re.fullmatch(r"python3(\.\d+t?d?)?", python.name):
            name = name_of(python)
            if name in names:
                found.setdefault(name, python)
    return {name: found[name] for name in names if name in found}


def build(names: Iterable[str]) -> None:
    """Build the named interpreters, two at a time, as far as build.sh knows them."""
    if not BUILDER.exists():
        return
    listed = subprocess.run([BUILDER, "--list"], capture_output=True, text=True, check=True)
    wanted = [name for name in names if name in listed.stdout.split()]

    def run(name: str) -> None:
        subprocess.run([BUILDER, name], check=False, stdout=sys.stderr)

    if wanted:  # the first alone: it installs what all of them need
        run(wanted[0])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, wanted[1:]))


def provide(names: Iterable[str]) -> dict[str, Path]:
    """Find the named interpreters, build what is missing, and say what is missing still."""
    names = list(names)
    found = find(names)
    if len(found) < len(names):
        build(name for name in names if name not in found)
        found = find(names)
    for name in names:
        if name not in found:
            print(f"no interpreter {name} on this machine", file=sys.stderr)
    return found


def main() -> None:
    """Print `NAME PATH` for each named interpreter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", action="store_true", help="build missing ones")
    parser.add_argument("names", nargs="*", default=STANDARD, metavar="NAME")
    options = parser.parse_args()
    for name, python in (provide if options.build else find)(options.names).items():
        print(name, python)


if __name__ == "__main__":
    main()
