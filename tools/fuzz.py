"""Random programs of greenlets: the same history on the model and on ours (tests/fuzz).

    fuzz.py [--seconds 60] [--seed N] [--interpreters 3.14 3.15t] [--published]

Each interpreter gets that many seconds. The model runs on the build with the GIL of the same
version. A failure is a crash, a hang, or another history. It is shrunk, and the script is put into
tests/regression/. With --published the published greenlet runs the same programs; what it does
otherwise is printed, but is no failure.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import environments
import interpreters
from suites import CHECKOUT

FUZZ = CHECKOUT / "tests" / "fuzz"
KEPT = CHECKOUT / "tests" / "regression"
sys.path.insert(0, str(FUZZ))

import programs  # noqa: E402
import replay  # noqa: E402

BATCH = 100  # programs in one process
Line = tuple[int, str]  # steps, digest


class Run:
    """A process that runs a batch of programs."""

    def __init__(self, python: Path, library: str, seed: int, count: int, *more: str) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.seed, self.count = seed, count
        self.process = subprocess.Popen(
            [
                *("nice", "-n", "10", str(python), "-B", "-X", "faulthandler"),
                *(str(FUZZ / "batch.py"), library, str(seed), str(count), *more),
            ],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def finish(self) -> tuple[dict[int, Line], str | None]:
        """What came of each program that came to its end, and how the process ended if badly."""
        try:
            out, _ = self.process.communicate(timeout=60 + 5 * self.count)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, _ = self.process.communicate()
        found = {}
        for line in out.splitlines():
            match line.split():
                case [seed, steps, digest]:
                    found[int(seed)] = int(steps), digest
        if self.process.returncode == 0:
            return found, None
        self.errors.seek(0)
        text = self.errors.read()
        if "Timeout (" in text or self.process.returncode == -9:
            return found, "hangs"
        crash = next((s for s in text.splitlines() if s.startswith("Fatal Python")), text[-300:])
        return found, f"ends with {self.process.returncode}: {crash}"


Programs = list[list[tuple[Any, ...]]]


def shrunk(whole: Programs, fails: Callable[[Programs], bool], seconds: float) -> Programs:
    """The smallest programs found in that time that still fail: delta debugging, by halves."""
    end = time.monotonic() + seconds

    def smaller(parts: list[Any], rest: Callable[[list[Any]], Programs]) -> list[Any]:
        size = max(1, len(parts) // 2)
        while size:
            start = 0
            while start < len(parts) and time.monotonic() < end:
                fewer = parts[:start] + parts[start + size :]
                if fails(rest(fewer)):
                    parts = fewer
                else:
                    start += size
            size //= 2
        return parts

    whole = smaller(whole, lambda some: some)
    for _ in range(2):
        for index in reversed(range(len(whole))):
            whole[index] = smaller(
                whole[index],
                lambda some, index=index: [*whole[:index], some, *whole[index + 1 :]],  # type: ignore[misc]
            )
    return [program for program in whole if program] or whole


class Interpreter:
    """One interpreter with ours, and what its programs are compared with."""

    def __init__(self, name: str, base: Path, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.ours = environments.ours(name, base)
        reference = name.removesuffix("t")
        self.model = environments.ours(reference, interpreters.provide([reference])[reference])
        self.published = environments.published(name, base) if options.published else None
        self.steps = self.programs = 0
        self.seconds = {"model": 0.0, "ours": 0.0}
        self.failures: list[str] = []
        self.others = 0

    def fuzz(self, seed: int) -> int:
        """Run for the time given from this seed on, and return the next seed."""
        end = time.monotonic() + self.options.seconds
        while time.monotonic() < end and len(self.failures) < self.options.failures:
            seed = self.batch(seed)
        return seed

    def batch(self, seed: int) -> int:
        runs = {"ours": Run(self.ours, "greenlet", seed, BATCH)}
        runs["model"] = Run(self.model, "model", seed, BATCH)
        if self.published:
            runs["published"] = Run(self.published, "greenlet", seed, BATCH, "--compared")
        results = {name: run.finish() for name, run in runs.items()}
        expected, trouble = results["model"]
        if trouble:
            self.report(seed, seed + len(expected), f"the model {trouble}", "model")
        for name in ("ours", "published") if self.published else ("ours",):
            found, trouble = results[name]
            for each, (steps, history) in found.items():
                if each not in expected:
                    continue
                if name == "ours":
                    self.steps += steps
                    self.programs += 1
                if history not in ("-", expected[each][1]):
                    self.report(seed, each, "has another history", name)
            if trouble:
                self.report(seed, seed + len(found), trouble, name)
        reached = min(len(found) for found, _ in results.values())
        return seed + min(BATCH, reached + 1)

    def report(self, first: int, seed: int, what: str, who: str) -> None:
        """Say that a program failed, shrink it, and keep it."""
        label = f"{self.name} {'' if who == 'ours' else who + ' '}seed {seed}: {what}"
        if who == "published":
            self.others += 1
        else:
            self.failures.append(label)
        print(label, flush=True)
        if who != "published" and self.options.shrink:
            self.keep(first, seed, what, label)

    def keep(self, first: int, seed: int, what: str, label: str) -> None:
        python, model = str(self.ours), str(self.model)

        def fails(some: Programs) -> bool:
            if what.startswith("the model"):
                return replay.history("model", some, model)[-1:] in (["hangs"], [])
            found = replay.history("greenlet", some, python)
            if not what.startswith("has another"):
                return found[0].startswith(("hangs", "ends with"))
            return found != replay.history("model", some, model)

        whole = [programs.program(seed)]
        if not fails(whole):
            whole = [programs.program(each) for each in range(first, seed + 1)]
            if not fails(whole):
                print("  it does not happen again")
                return
        whole = shrunk(whole, fails, self.options.shrink)
        expected = replay.history("model", whole, model)
        found = replay.difference(expected, replay.history("greenlet", whole, python))
        KEPT.mkdir(exist_ok=True)
        script = KEPT / f"seed_{seed}_on_{self.name.replace('.', '_')}.py"
        lines = ",\n".join(textwrap.indent(f"{program!r}", "    ") for program in whole)
        script.write_text(
            f'"""{label}."""\n\nimport sys\nfrom pathlib import Path\n\n'
            'sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))\n\n'
            f"PROGRAMS = [\n{lines},\n]\n\n"
            'if __name__ == "__main__":\n    import replay\n\n    replay.main(PROGRAMS)\n'
        )
        print(f"{found}\n  kept as {script.relative_to(CHECKOUT)}", flush=True)


def main() -> int:
    """Fuzz each interpreter in turn; print its steps and its failures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="for each interpreter")
    parser.add_argument("--seed", type=int, help="the first one; at random if not given")
    parser.add_argument("--interpreters", nargs="+", default=["all"])
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--failures", type=int, default=10, help="after so many, stop")
    parser.add_argument("--shrink", type=float, default=120, help="seconds; 0: do not")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 40) if options.seed is None else options.seed
    names = list(interpreters.STANDARD) if options.interpreters == ["all"] else options.interpreters
    found = interpreters.provide(names)
    failures: list[str] = []
    print(f"seed {seed}", flush=True)
    for name, base in found.items():
        try:
            one = Interpreter(name, base, options)
        except environments.Unavailable as reason:
            failures.append(f"{name}: {reason}")
            continue
        start = time.monotonic()
        one.fuzz(seed)
        speed = one.steps / (time.monotonic() - start)
        others = f", the published one differs {one.others} times" if options.published else ""
        print(
            f"{name}: {one.steps} steps in {one.programs} programs, {speed:.0f} a second, "
            f"{len(one.failures)} failures{others}",
            flush=True,
        )
        failures += one.failures
    for failure in failures:
        print(failure)
    return bool(failures) or len(found) < len(names)


if __name__ == "__main__":
    sys.exit(main())
