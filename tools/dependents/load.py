"""How much of a fixed load dependents do per second, and the memory it takes, with the published
greenlet and with ours.

gevent has benchmarks of its own, in its source distribution; for the others there are programs in
tests/interop/dependents/programs. What they call "..., MB" is memory; the rest is done per second.
Both sides take turns, and the better one of each side's rounds counts: what else the machine does
can only take away.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from environments import Unavailable
from suites import CHECKOUT

from . import environment
from .environment import SIDES, Pair
from .results import FOLDER
from .running import WORK

PROGRAMS = CHECKOUT / "tests" / "interop" / "dependents" / "programs"
KEPT = FOLDER / "load"
TIME_LIMIT = 15 * 60.0
RULE = "| --- | --- | --- | --- | --- | --- |"


@dataclass(frozen=True)
class Load:
    """A program that does as much as it can for a while."""

    name: str
    package: str
    requirements: tuple[str, ...]
    program: str  # one of ours, or `benchmarks/...` in the package's source distribution
    arguments: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """What it is called on the command line."""
        return "-".join((Path(self.program).stem, *self.arguments))


_GEVENT = ("gevent[recommended,test]", "pyperf")

LOADS = (
    *(
        Load("gevent", "gevent", _GEVENT, f"benchmarks/bench_{name}.py")
        for name in ("hub", "spawn", "queue", "pool", "local", "socket", "sendall")
    ),
    Load("eventlet", "eventlet", ("eventlet",), "load_eventlet.py"),
    Load(
        "SQLAlchemy, asyncio",
        "sqlalchemy",
        ("sqlalchemy[asyncio]", "aiosqlite"),
        "load_sqlalchemy.py",
    ),
    Load("greenback", "greenback", ("greenback",), "load_greenback.py"),
    Load(
        "gunicorn, gevent worker",
        "gunicorn",
        ("gunicorn[gevent]",),
        "load_gunicorn.py",
        ("gevent",),
    ),
    Load(
        "gunicorn, eventlet worker",
        "gunicorn",
        ("gunicorn<26", "eventlet", "packaging"),
        "load_gunicorn.py",
        ("eventlet",),
    ),
    Load(
        "gunicorn, gevent worker",
        "gunicorn",
        ("gunicorn[gevent]", "flask"),
        "memory_gunicorn.py",
    ),
    Load(
        "SQLAlchemy, asyncio",
        "sqlalchemy",
        ("sqlalchemy[asyncio]", "aiosqlite"),
        "memory_sqlalchemy.py",
    ),
)


def _output(command: list[str | Path], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONNOUSERSITE": "1", **environment},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    if done.returncode:
        text = done.stdout + done.stderr
        raise Unavailable(f"{' '.join(map(str, command))} failed:\n{text}")
    return done.stdout


def _pyperf(python: Path, program: Path) -> dict[str, float]:
    """Run a benchmark of pyperf's; operations per second by name."""
    with tempfile.TemporaryDirectory() as results:
        file = Path(results) / "results.json"
        settings = ("--processes=2", "--values=3", "--warmups=1")
        command: list[str | Path] = [
            python,
            program,
            *settings,
            "--inherit-environ=PATH,PYTHONPATH",
            f"--output={file}",
        ]
        _output(command, program.parent, PYTHONPATH=str(PROGRAMS))  # for its perf.py
        suite = json.loads(file.read_text())
    found = {}
    for benchmark in suite["benchmarks"]:
        metadata = {**suite.get("metadata", {}), **benchmark.get("metadata", {})}
        values = [value for run in benchmark["runs"] for value in run.get("values", [])]
        found[metadata["name"]] = 1 / min(values)
    return found


def _once(load: Load, pair: Pair, side: str) -> dict[str, float]:
    python = pair.published if side == "published" else pair.ours
    if load.program.startswith("benchmarks/"):
        folder = WORK / f"load-{load.package}"
        if not folder.exists():
            environment.source(python, load.package, pair.versions[load.package], folder)
        return _pyperf(python, folder / load.program)
    output = _output([python, PROGRAMS / load.program, *load.arguments], PROGRAMS)
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def _is_memory(operation: str) -> bool:
    return operation.endswith(", MB")


def _better(operation: str, one: float, other: float) -> float:
    return min(one, other) if _is_memory(operation) else max(one, other)


def measure(name: str, base: Path, rounds: int, slugs: Collection[str]) -> Iterator[str]:
    """Measure loads on an interpreter and keep that with what is kept; says how it goes."""
    file = KEPT / f"{name}.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    for load in (load for load in LOADS if load.slug in slugs):
        try:
            pair = environment.make(name, base, load.requirements)
            best: dict[str, dict[str, float]] = {side: {} for side in SIDES}
            for number in range(rounds):
                for side in SIDES if number % 2 else SIDES[::-1]:
                    for operation, rate in _once(load, pair, side).items():
                        so_far = best[side].get(operation, rate)
                        best[side][operation] = _better(operation, rate, so_far)
        except Unavailable as error:
            yield f"{load.name}, {load.program}: {error}"
            continue
        for operation, published in best["published"].items():
            ours = best["ours"][operation]
            version = pair.versions[load.package]
            rows = [row for row in rows if (row[0], row[2]) != (load.name, operation)]
            rows.append([load.name, version, operation, published, ours])
            ratio = ours / published
            unit = "" if _is_memory(operation) else " per second"
            yield f"{load.name}: {operation}: {published:.4g} {ours:.4g}{unit}, {ratio:.2f}"
    KEPT.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    file.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _lines(rows: Iterable[tuple[str, str, str, float, float]]) -> Iterator[str]:
    for dependent, version, operation, published, ours in rows:
        rates = f"{published:,.0f} | {ours:,.0f} | {ours / published:.2f}"
        yield f"| {dependent} | {version} | {operation} | {rates} |"


def table() -> str:
    """Return all that was kept as a table."""
    lines = []
    for file in sorted(KEPT.glob("*.json")):
        name = file.stem
        rows = json.loads(file.read_text())
        lines += [
            f"On {name}:",
            "",
            "| dependent | version | operation per second | published | ours | ratio |",
            RULE,
            *_lines(row for row in rows if not _is_memory(row[2])),
            "",
            "| dependent | version | memory | published | ours | ratio |",
            RULE,
            *_lines(row for row in rows if _is_memory(row[2])),
            "",
        ]
    return "\n".join(lines)
