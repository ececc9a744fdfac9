"""Check formatting, style and types of everything in the checkout; print what is wrong.

Runs clang-format, clang-tidy, ruff and mypy, at the versions of requirements-lint.txt. With --fix
it formats the files, and mends what ruff can mend.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import environments
import interpreters
from interpreters import CHECKOUT

# What mypy checks, each for itself, with the folders that Python finds its modules in.
IMPORT_PATHS = {
    "src": "src",
    "tools": "tools:tests/fuzz",
    "benchmarks": "benchmarks",
    "examples": "examples",
    "tests/contract": "tests/contract",
    "tests/dependents": "tests/dependents:tests/dependents/programs",
    "tests/extensions": "tests/extensions",
    "tests/fuzz": "tests/fuzz",
    "tests/interop": "tests/interop:tests/interop/programs",
    "tests/python": "tests/python",
}


def tracked(*suffixes: str) -> list[str]:
    """Return the files git knows, or would add, that end so."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [name for name in listed.stdout.splitlines() if name.endswith(suffixes)]
    return [name for name in files if (CHECKOUT / name).exists()]


def passes(what: str, command: Sequence[str | Path], **environment: str) -> bool:
    """Run one check; print its output if it finds something."""
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"{what}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
    if done.returncode:
        print(done.stdout, flush=True)
    return done.returncode == 0


def compile_commands(build_tools: Path) -> Path:
    """Configure build/dev, whose compile database clangd and clang-tidy read."""
    build = CHECKOUT / "build" / "dev"
    python = interpreters.default()[1]
    subprocess.run(
        [
            *(build_tools / "cmake", "-S", CHECKOUT, "-B", build, "-G", "Ninja"),
            *("-DCMAKE_BUILD_TYPE=Debug", "-DGREENLET_NATIVE_TESTS=ON"),
            *(f"-DCMAKE_MAKE_PROGRAM={build_tools / 'ninja'}", f"-DPython_EXECUTABLE={python}"),
        ],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    link = CHECKOUT / "compile_commands.json"
    link.unlink(missing_ok=True)
    link.symlink_to("build/dev/compile_commands.json")
    return build


def main() -> int:
    """Run the checks; 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fix", action="store_true", help="format, and mend what can be")
    parser.add_argument("--compile-commands", action="store_true", help="make only these")
    options = parser.parse_args()
    build = compile_commands(environments.tools("build").parent)
    if options.compile_commands:
        return 0
    tools = environments.tools("lint").parent

    sources: list[str] = tracked(".cpp", ".h")
    if options.fix:
        passes("clang-format", [tools / "clang-format", "-i", *sources])
        passes("ruff format", [tools / "ruff", "format", "."])
        return 0 if passes("ruff check", [tools / "ruff", "check", "--fix", "."]) else 1

    results = [
        passes("clang-format", [tools / "clang-format", "--dry-run", "-Werror", *sources]),
        passes("ruff format", [tools / "ruff", "format", "--check", "."]),
        passes("ruff check", [tools / "ruff", "check", "--output-format=concise", "."]),
    ]

    def types(folder: str) -> bool:
        # Two at a time may not share a cache: mypy crashes now and then.
        cache = build / "mypy" / folder
        command: list[str | Path] = [tools / "mypy", f"--cache-dir={cache}", folder]
        return passes(f"mypy {folder}", command, MYPYPATH=IMPORT_PATHS[folder])

    # clang-tidy takes its time, so a file is looked at again only if something has changed that
    # may matter to it.
    headers = tracked(".h", ".clang-tidy", "CMakeLists.txt", ".cmake", "requirements-lint.txt")
    base = environments.content_hash([CHECKOUT / name for name in headers])

    def tidy(source: str) -> bool:
        stamp = build / "tidy" / f"{source}.stamp"
        wanted = environments.content_hash([CHECKOUT / source], base)
        if stamp.exists() and stamp.read_text() == wanted:
            return True
        command: list[str | Path] = [tools / "clang-tidy", "--quiet", "-p", build, source]
        if not passes(f"clang-tidy {source}", command):
            return False
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(wanted)
        return True

    with ThreadPoolExecutor(2) as pool:
        results += pool.map(types, IMPORT_PATHS)
        compiled = json.loads((build / "compile_commands.json").read_text())
        files = {entry["file"] for entry in compiled}
        results += pool.map(tidy, [name for name in sources if str(CHECKOUT / name) in files])
    print("lint: ok" if all(results) else f"lint: {results.count(False)} checks failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
