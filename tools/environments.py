"""Make the virtual environments that tests run in, and print the path of their python.

    environments.py ours [NAME]        greenlet from this checkout, and pytest
    environments.py published [NAME]   the published greenlet, to compare with
    environments.py build              cmake and ninja
    environments.py lint               clang-format, clang-tidy, mypy, ruff
    environments.py report             matplotlib

NAME is an interpreter of interpreters.py; without it, the one that runs this script. Ours are in
`.venvs/NAME` (`.venv` for the default interpreter, with `.venvs/NAME` as a link to it), the others
in `.venvs/NAME-published` and `.venvs/build`, `.venvs/lint` and `.venvs/report`. Each is brought up
to date only if what it was made from has changed.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import interpreters
from interpreters import CHECKOUT

TOOLS = CHECKOUT / "tools"
TOOL_KINDS = ("build", "lint", "report")
# Warnings are errors here, save with WERROR=OFF in the environment: for a compiler newer than us.
WERROR = os.environ.get("WERROR", "ON")


class Unavailable(Exception):
    """The environment cannot be had; the text says why."""


def _sources() -> Iterator[Path]:
    yield from (CHECKOUT / name for name in ("CMakeLists.txt", "pyproject.toml"))
    for folder in ("cmake", "include", "src"):
        yield from sorted(
            file
            for file in (CHECKOUT / folder).rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        )


def content_hash(files: Iterable[Path], *more: str) -> str:
    """Hash the contents of files, and whatever else the result depends on."""
    digest = hashlib.sha256("\0".join(more).encode())
    for file in files:
        digest.update(f"{file.relative_to(CHECKOUT)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process at a time brings an environment up to date."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name.lstrip('.')}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str | Path], **environment: str) -> None:
    """Run a command; its output is shown only if it fails."""
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"{' '.join(map(str, command))} failed:\n{done.stdout}")


def _pip(python: Path, *arguments: str | Path, **environment: str) -> None:
    _run([python, "-m", "pip", "install", "--quiet", *arguments], **environment)


def _environment(folder: Path, base: Path, requirements: str, **pip_settings: str) -> Path:
    """An environment with what a requirements file of ours names; called with its lock held."""
    python = folder / "bin" / "python"
    wanted = content_hash([TOOLS / requirements], str(base))
    stamp = folder / "requirements.stamp"
    if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        _run([base, "-m", "venv", folder])
        _pip(python, "-r", TOOLS / requirements, **pip_settings)
        stamp.write_text(wanted)
    return python


def tools(kind: str) -> Path:
    """Return the python of the environment for `kind`: build, lint or report."""
    folder = CHECKOUT / ".venvs" / kind
    with _locked(folder):
        return _environment(folder, interpreters.default()[1], f"requirements-{kind}.txt")


def ours(name: str, base: Path) -> Path:
    """Return the python of the environment with greenlet as it is in this checkout."""
    folder = CHECKOUT / ".venvs" / name
    with _locked(folder):
        if name == interpreters.default()[0]:
            if not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
                folder.symlink_to("../.venv")
            folder = CHECKOUT / ".venv"
        python = _environment(folder, base, "requirements-test.txt")
        wanted = content_hash(_sources(), *_settings(name))
        stamp = folder / "greenlet.stamp"
        if not (stamp.exists() and stamp.read_text() == wanted):
            stamp.unlink(missing_ok=True)
            command: list[str | Path] = [python, "-m", "pip", "install", "--quiet"]
            _build([*command, "--force-reinstall"], name)
            stamp.write_text(wanted)
    return python


def _settings(name: str) -> list[str]:
    """Return the build's settings for an interpreter."""
    settings = [f"cmake.define.GREENLET_WERROR={WERROR}"]
    if name.endswith("-tsan"):
        settings += ["cmake.build-type=RelWithDebInfo", "cmake.define.GREENLET_SANITIZE=thread"]
    else:
        settings.append(f"cmake.build-type={'Debug' if name.endswith('-debug') else 'Release'}")
    # asserts and reports with their line numbers are what those builds are for
    settings.append(f"install.strip={'false' if '-' in name else 'true'}")
    return settings


def _build(pip: list[str | Path], name: str, headers: Path | None = None) -> None:
    """Run a command of pip's on the checkout; `headers` are used instead of the interpreter's."""
    build_tools = tools("build").parent
    folder, settings = name, _settings(name)
    if headers is not None:
        folder = f"{name}-{headers.name}"
        settings.append(f"cmake.define.Python_INCLUDE_DIR={headers}")
    _run(
        [
            *pip,
            "--no-build-isolation",
            "--no-deps",
            f"--config-settings=build-dir=build/{folder}",
            *(f"--config-settings={setting}" for setting in settings),
            CHECKOUT,
        ],
        PATH=f"{build_tools}{os.pathsep}{os.environ['PATH']}",
        CMAKE_BUILD_PARALLEL_LEVEL="2",
    )


def wheel(name: str, base: Path, headers: Path | None = None) -> Path:
    """Build and return the wheel for an interpreter, or find it built.

    With `headers`, it is made for an interpreter that has those.
    """
    python = ours(name, base)
    folder = CHECKOUT / "build" / "wheels" / (f"{name}-{headers.name}" if headers else name)
    own = [] if headers is None else [file.read_text() for file in sorted(headers.rglob("*.h"))]
    wanted = content_hash(_sources(), str(base), *_settings(name), *own)
    stamp = folder / "wheel.stamp"
    with _locked(folder):
        if not (stamp.exists() and stamp.read_text() == wanted):
            shutil.rmtree(folder, ignore_errors=True)
            pip: list[str | Path] = [python, "-m", "pip", "wheel", "--quiet"]
            _build([*pip, f"--wheel-dir={folder}"], name, headers)
            stamp.write_text(wanted)
    (built,) = folder.glob("*.whl")
    return built


def with_wheel(name: str, base: Path, built: Path) -> Path:
    """Return the python of an environment with that wheel and what the tests need."""
    folder = CHECKOUT / ".venvs" / name
    with _locked(folder):
        python = _environment(folder, base, "requirements-test.txt")
        _pip(python, "--force-reinstall", "--no-deps", built)
    return python


def published(name: str, base: Path) -> Path:
    """Return the python of the environment with the published greenlet."""
    folder = CHECKOUT / ".venvs" / f"{name}-published"
    with _locked(folder):
        # A wheel, never a source distribution: its source is not to be looked at.
        return _environment(folder, base, "requirements-published.txt", PIP_ONLY_BINARY=":all:")


def add(python: Path, extra: str) -> None:
    """Install what tools/requirements-EXTRA.txt names, too."""
    folder = python.parent.parent
    requirements = TOOLS / f"requirements-{extra}.txt"
    wanted = content_hash([requirements])
    stamp = folder / f"{extra}.stamp"
    with _locked(folder):
        if not (stamp.exists() and stamp.read_text() == wanted):
            _pip(python, "-r", requirements)
            stamp.write_text(wanted)


def main() -> int:
    """Print the python of the environment that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["ours", "published", *TOOL_KINDS])
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--extra", help="install tools/requirements-EXTRA.txt, too")
    parser.add_argument("--if-possible", metavar="EXTRA", help="the same, unless that fails")
    options = parser.parse_args()
    try:
        if options.kind in TOOL_KINDS:
            print(tools(options.kind))
            return 0
        if options.name is None:
            name, base = interpreters.default()
        else:
            found = interpreters.provide([options.name])
            if not found:
                return 1
            ((name, base),) = found.items()
        python = (ours if options.kind == "ours" else published)(name, base)
        if options.extra:
            add(python, options.extra)
        if options.if_possible:
            with suppress(Unavailable):
                add(python, options.if_possible)
        print(python)
    except Unavailable as reason:
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
