"""Two environments that differ in the greenlet alone, and the sources of what runs in them.

They are kept in `.venvs/dependents`. The second is made from what pip put into the first, so both
have the same releases. pip, unlike uv, can prefer an older release with a wheel to a newer one
without.
"""

import json
import shutil
import zlib
from pathlib import Path
from typing import NamedTuple

import environments
from environments import Unavailable
from suites import CHECKOUT

FOLDER = CHECKOUT / ".venvs" / "dependents"
SDISTS = CHECKOUT / "build" / "dependents" / "sdists"
SIDES = ("published", "ours")


class Pair(NamedTuple):
    """The two environments, and what is in both."""

    pythons: dict[str, Path]  # by side
    versions: dict[str, str]  # of each distribution but greenlet, by its normalized name
    greenlets: dict[str, str]  # versions by side


def _versions(python: Path) -> dict[str, str]:
    """Return what is installed in an environment."""
    listing = ("pip", "list", "--quiet", "--format=json", "--python", python)
    listed = environments.run(environments.UV, *listing)
    return {each["name"].lower().replace("_", "-"): each["version"] for each in json.loads(listed)}


def _pip(python: Path, *what: str) -> None:
    environments.run(python, "-m", "pip", "install", "--quiet", "--prefer-binary", *what)


def make(name: str, base: Path, requirements: str) -> Pair:
    """Make or find the two environments with these requirements on an interpreter."""
    wanted = [environments.PUBLISHED.read_text().split()[-1], *sorted(requirements.split())]
    folder = FOLDER / f"{name}-{zlib.crc32(repr((base, wanted)).encode()):08x}"
    pythons = {side: folder / side / "bin" / "python" for side in SIDES}
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        for side in SIDES:
            environments.make(folder / side, base, "pip")
        # The published greenlet as a wheel only: its source is not to be looked at.
        _pip(pythons["published"], "--only-binary", "greenlet", *wanted)
        packages = _versions(pythons["published"])
        del packages["greenlet"]
        _pip(pythons["ours"], "--no-deps", *map("==".join, packages.items()))
        complete.touch()
    wheel = environments.wheel(name, base)
    environments.install(pythons["ours"], "--no-deps", "--reinstall-package", "greenlet", wheel)
    versions = {side: _versions(python) for side, python in pythons.items()}
    greenlets = {side: versions[side].pop("greenlet") for side in SIDES}
    if versions["published"] != versions["ours"]:
        raise Unavailable(f"the environments in {folder} differ in more than the greenlet")
    return Pair(pythons, versions["ours"], greenlets)


def source(pair: Pair, package: str, into: Path) -> None:
    """Unpack a package's source distribution into a folder."""
    release = f"{package}=={pair.versions[package]}"
    folder = SDISTS / release
    if not folder.exists():
        # pip looks at the metadata of what it downloads, so this may build some of it.
        download = ("-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}")
        environments.run(pair.pythons["ours"], *download, f"--no-binary={package}", release)
    into.mkdir(parents=True, exist_ok=True)
    environments.run("tar", "-xf", *folder.iterdir(), "-C", into, "--strip-components=1")
