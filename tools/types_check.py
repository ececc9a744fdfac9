"""Type checkers on the typed examples of tests/typing, and the stubs against what is installed.

Each checker sees the installed package, as in anybody's project. A line of an example that ends
with `type: ignore` has a fault, which each checker must find: an ignore that nothing needs is an
error. mypy's stubtest compares the stubs with the modules at run time.

Beside types-greenlet, checkers take that distribution's stubs for `greenlet` instead of ours.
docs/typing.md says what helps; the second half of the checks proves it.
"""

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import environments
import nox
from suites import CHECKOUT

EXAMPLES = CHECKOUT / "tests" / "typing"
#: What the links are called that go before the stubs of types-greenlet: the second one for ty.
LINKS = ("greenlet", "greenlet-stubs")


def environment(name: str, base: Path, wheel: Path) -> Path:
    """Return the python of an environment with greenlet and the dependency group of that name."""
    python = environments.make(environments.FOLDER / name, base, "--group", name)
    environments.install(python, "--no-deps", "--reinstall-package", "greenlet", wheel)
    return python


def link(python: Path) -> Path:
    """Return a folder `typings` as docs/typing.md has it: links to the installed package."""
    (package,) = python.parent.parent.glob("lib/*/site-packages/greenlet")
    folder = CHECKOUT / "build" / "typings"
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKS:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(package)
    return folder


def checks(interpreter: str) -> dict[str, list[str | Path]]:
    """Return the commands, by what they check."""
    base = environments.base(interpreter)
    environments.ours(interpreter, base)  # tests take .venvs/NAME for one that has greenlet
    wheel = environments.wheel(interpreter, base)
    plain = environment("types", base, wheel)
    beside = environment("types-beside", base, wheel)
    tools = plain.parent
    examples = sorted(EXAMPLES.glob("*.py"))
    typings = link(beside)
    configuration = {  # of a project that has the folder `typings`
        "pyright": typings.parent / "pyrightconfig.json",
    }
    configuration["pyright"].write_text(
        '{"include": ["../tests/typing"], "stubPath": "typings", "typeCheckingMode": "strict",'
        ' "pythonVersion": "3.11", "enableTypeIgnoreComments": true,'
        ' "reportUnnecessaryTypeIgnoreComment": "error"}\n'
    )

    def mypy(python: Path, *files: Path) -> list[str | Path]:
        return [tools / "mypy", "--strict", "--config-file=", "--python-executable", python, *files]

    def ty(python: Path, *options: str | Path) -> list[str | Path]:
        environment = python.parent.parent
        return [
            tools / "ty",
            "check",
            "--output-format",
            "concise",
            "--python",
            environment,
            *options,
        ]

    def pyrefly(python: Path, *options: str | Path) -> list[str | Path]:
        given = ("--output-format", "min-text", "--python-interpreter-path", python)
        return [tools / "pyrefly", "check", *given, *options]

    def pyright(python: Path, *options: str | Path) -> list[str | Path]:
        return [tools / "basedpyright", "--pythonpath", python, *options]

    part = EXAMPLES / "beside" / "modules_alone.py"
    return {
        "mypy": mypy(plain, *examples),
        "basedpyright": pyright(plain),
        "ty": ty(plain),
        "pyrefly": pyrefly(plain),
        "stubtest": [
            *(tools / "stubtest", "greenlet"),
            *("--mypy-config-file", EXAMPLES / "stubtest.ini"),
            *("--allowlist", EXAMPLES / "stubtest-allowlist.txt"),
        ],
        "mypy beside types-greenlet": mypy(beside, part),
        "pyrefly beside types-greenlet": pyrefly(beside, part),
        "mypy with typings": ["env", f"MYPYPATH={typings}", *mypy(beside, *examples)],
        "basedpyright with typings": pyright(beside, "--project", configuration["pyright"]),
        "ty with typings": ty(beside, "--extra-search-path", typings),
        "pyrefly with typings": pyrefly(beside, "--search-path", typings),
    }


def run(session: nox.Session, interpreter: str) -> None:
    """Run all checks; print what those say that fail."""

    def one(command: list[str | Path]) -> tuple[int, str, float]:
        begin = time.monotonic()
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env={**os.environ, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout, time.monotonic() - begin

    wanted = checks(interpreter)
    failed = []
    with ThreadPoolExecutor(2) as pool:
        for label, (status, said, seconds) in zip(
            wanted, pool.map(one, wanted.values()), strict=True
        ):
            print(f"{label}: {'failed' if status else 'clean'} ({seconds:.1f} s)", flush=True)
            if status:
                failed.append(label)
                print(said, flush=True)
    if failed:
        session.error(f"not clean: {', '.join(failed)}")
