"""How much of a fixed load dependents do per second, and the memory it takes, with the published
greenlet and with ours.

gevent has benchmarks of its own, in its source distribution; for the others there are programs in
tests/interop/dependents/programs. What they call "..., MB" is memory; the rest is done per second.
Both sides take turns, and the better one of each side's rounds counts: what else the machine does
can only take away.
"""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import environments
from environments import Unavailable
from suites import CHECKOUT

from . import environment
from .catalog import LOADS, Load
from .environment import SIDES, Pair
from .results import FOLDER
from .running import WORK

PROGRAMS = CHECKOUT / "tests" / "interop" / "dependents" / "programs"
KEPT = FOLDER / "load"
# Operations per second that a file of pyperf's tells.
RATES = """
import json, pyperf, sys
suite = pyperf.BenchmarkSuite.load(sys.argv[1])
print(json.dumps({each.get_name(): 1 / min(each.get_values()) for each in suite}))
"""
TABLE = """\
| dependent | version | {} | published | ours | ratio |
| --- | --- | --- | --- | --- | --- |"""


def slugs(load: Load) -> dict[str, str]:
    """Return the load's programs by what they are called on the command line."""
    benchmarks = {f"bench_{each}": f"benchmarks/bench_{each}.py" for each in load.benchmarks}
    return benchmarks | {each.replace(".py", "").replace(" ", "-"): each for each in load.programs}


def _once(load: Load, program: str, pair: Pair, side: str) -> dict[str, float]:
    """Run a program; return what it has measured by the name of the operation."""
    python = pair.pythons[side]
    if program.startswith("benchmarks/"):
        folder = WORK / f"load-{load.package}-{pair.versions[load.package]}"
        if not folder.exists():
            environment.source(pair, load.package, folder)
        file = folder / "rates.json"
        file.unlink(missing_ok=True)
        settings = ("--processes=2", "--values=3", "--warmups=1", f"--output={file}")
        inherit = "--inherit-environ=PATH,PYTHONPATH,PYTHONNOUSERSITE"
        # The programs' folder has the perf.py that some of them import.
        environments.run(python, folder / program, *settings, inherit, PYTHONPATH=str(PROGRAMS))
        printed = environments.run(python, "-c", RATES, file)
    else:
        path, *arguments = program.split()
        printed = environments.run(python, PROGRAMS / path, *arguments, PYTHONNOUSERSITE="1")
    found: dict[str, float] = json.loads(re.findall(r"^\{.*\}$", printed, re.MULTILINE)[-1])
    return found


def _is_memory(operation: str) -> bool:
    return operation.endswith(", MB")


def measure(name: str, base: Path, rounds: int, wanted: Collection[str]) -> Iterator[str]:
    """Measure loads on an interpreter and keep that with what is kept; says how it goes."""
    file = KEPT / f"{name}.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    programs = [(load, *item) for load in LOADS for item in slugs(load).items()]
    for load, slug, program in programs:
        if slug not in wanted:
            continue
        try:
            pair = environment.make(name, base, load.requirements)
            best: dict[str, dict[str, float]] = {side: {} for side in SIDES}
            for number in range(rounds):
                for side in SIDES if number % 2 else SIDES[::-1]:
                    for operation, rate in _once(load, program, pair, side).items():
                        better = min if _is_memory(operation) else max
                        best[side][operation] = better(rate, best[side].get(operation, rate))
        except Unavailable as error:
            yield f"{load.name}, {program}: {error}"
            continue
        for operation, published in best["published"].items():
            ours = best["ours"][operation]
            version = pair.versions[load.package]
            rows = [row for row in rows if (row[0], row[2]) != (load.name, operation)]
            rows.append([load.name, version, operation, published, ours])
            unit = "" if _is_memory(operation) else " per second"
            ratio = f"{ours / published:.2f}"
            yield f"{load.name}: {operation}: {published:.4g} {ours:.4g}{unit}, {ratio}"
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    file.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def table() -> str:
    """Return all that was kept as a table."""
    lines = []
    for file in sorted(KEPT.glob("*.json")):
        rows = json.loads(file.read_text())
        lines += [f"On {file.stem}:", ""]
        for memory, heading in ((False, "operation per second"), (True, "memory")):
            lines.append(TABLE.format(heading))
            for dependent, version, operation, published, ours in rows:
                if _is_memory(operation) == memory:
                    rates = f"{published:,.0f} | {ours:,.0f} | {ours / published:.2f}"
                    lines.append(f"| {dependent} | {version} | {operation} | {rates} |")
            lines.append("")
    return "\n".join(lines)
