"""What is run with either greenlet: the entries of catalog.toml."""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Dependent:
    """A project that depends on greenlet."""

    name: str  # as in the tables
    requirements: str  # of both environments; entries with the same ones share them

    @property
    def package(self) -> str:
        """The first of the requirements: its version is the table's, its source has the suite."""
        return re.split(r"[^\w-]", self.requirements)[0]


@dataclass(frozen=True)
class Suite(Dependent):
    """A suite of tests."""

    # pytest's arguments: files of the source distribution, or of our tests/interop. Without them,
    # gevent's own runner runs the tests in its package.
    pytest: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    minutes: float = 20  # the time limit of a run

    @property
    def slug(self) -> str:
        """The name as a part of file names."""
        return "-".join(re.findall(r"\w+", self.name.lower()))


@dataclass(frozen=True)
class Load(Dependent):
    """Programs that do as much as they can for a while."""

    programs: tuple[str, ...] = ()  # ours, with their arguments
    benchmarks: tuple[str, ...] = ()  # those in gevent's source distribution


_ENTRIES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SUITES = tuple(Suite(name, **keys) for name, keys in _ENTRIES["suite"].items())
LOADS = tuple(Load(name, **keys) for name, keys in _ENTRIES["load"].items())
