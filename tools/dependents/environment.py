"""Two environments that differ in the greenlet alone, and the sources of what runs in them.

They are kept in `.venvs/dependents`. The second is made from what pip put into the first, so both
have the same releases; what had to be built from source comes from pip's cache of wheels.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import environments
from environments import Unavailable
from interpreters import CHECKOUT

FOLDER = CHECKOUT / ".venvs" / "dependents"
SDISTS = CHECKOUT / "build" / "dependents" / "sdists"
SIDES = ("published", "ours")
# For one command of pip's: what has no wheel is built, gevent for example takes minutes.
TIME_LIMIT = 30 * 60.0


class Pair(NamedTuple):
    """The pythons of the two environments, and what is in both."""

    published: Path
    ours: Path
    versions: dict[str, str]  # of each distribution but greenlet, by its normalized name
    greenlets: dict[str, str]  # side to version


def _run(command: list[str | Path]) -> str:
    """Run a command that has to succeed; what it printed."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(map(str, command))} did not end in time") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


def _versions(python: Path) -> dict[str, str]:
    """Return what is installed in an environment."""
    listed = _run(
        [
            *(python, "-I", "-c"),
            "import re\nfrom importlib.metadata import distributions\n"
            "for d in distributions():"
            " print(re.sub('[-_.]+', '-', d.metadata['Name']).lower(), d.version)",
        ]
    )
    return dict(line.split() for line in listed.splitlines())


def _published_requirement() -> str:
    lines = (environments.TOOLS / "requirements-published.txt").read_text().splitlines()
    (requirement,) = (line for line in lines if line and not line.startswith("#"))
    return requirement


def make(name: str, base: Path, requirements: Iterable[str], *, renew: bool = False) -> Pair:
    """Make or find the two environments with these requirements on an interpreter."""
    requirements = sorted(requirements)
    wanted = [_published_requirement(), *requirements]
    label = environments.content_hash([], str(base), *wanted)[:10]
    folder = FOLDER / f"{name}-{label}"
    published, ours = (folder / side / "bin" / "python" for side in ("published", "ours"))
    complete = folder / "complete"
    if renew or not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([base, "-m", "venv", folder / "published"])
        install: list[str | Path] = ["-m", "pip", "install", "--quiet"]
        # The published greenlet as a wheel only: its source is not to be looked at.
        prefer = ["--prefer-binary", "--only-binary", "greenlet"]
        _run([published, *install, "--upgrade", "pip"])
        _run([published, *install, *prefer, *wanted])
        same = [
            f"{package}=={version}"
            for package, version in _versions(published).items()
            if package != "greenlet"
        ]
        _run([base, "-m", "venv", folder / "ours"])
        _run([ours, *install, "--upgrade", "pip"])
        _run([ours, *install, "--no-deps", "--prefer-binary", *same])
        complete.touch()
    _install_ours(name, base, ours)
    versions = {
        side: _versions(python) for side, python in zip(SIDES, (published, ours), strict=True)
    }
    greenlets = {side: versions[side].pop("greenlet") for side in SIDES}
    if versions["published"] != versions["ours"]:
        raise Unavailable(f"the environments in {folder} differ in more than the greenlet")
    return Pair(published, ours, versions["ours"], greenlets)


def _install_ours(name: str, base: Path, python: Path) -> None:
    """Bring our greenlet up to date in an environment."""
    wheel = environments.wheel(name, base)
    stamp = python.parent.parent / "greenlet.stamp"
    wanted = environments.content_hash([wheel])
    if not (stamp.exists() and stamp.read_text() == wanted):
        stamp.unlink(missing_ok=True)
        pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall"]
        _run([python, *pip, wheel])
        stamp.write_text(wanted)


def source(python: Path, package: str, version: str, into: Path) -> None:
    """Unpack a package's source distribution into a folder, anew."""
    folder = SDISTS / f"{package}-{version}"
    if not folder.exists():
        # pip looks at the metadata of what it downloads, so this may build some of it.
        pip = ["-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}"]
        _run([python, *pip, f"--no-binary={package}", f"{package}=={version}"])
    (archive,) = folder.iterdir()
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    with tarfile.open(archive) as file:
        file.extractall(into, filter="data")
    (top,) = into.iterdir()
    for entry in top.iterdir():
        entry.rename(into / entry.name)
    top.rmdir()
