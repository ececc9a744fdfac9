"""Run kept programs on the model and on greenlet, each in a process of its own, and compare."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BATCH = Path(__file__).with_name("batch.py")
Programs = list[list[tuple[Any, ...]]]


def history(
    library: str, programs: Programs, python: str = sys.executable, seconds: float = 60
) -> list[str]:
    """The history of the last program, a line for each event, with how the process ended."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "programs")
        file.write_text(repr(programs))
        batch = [str(BATCH), library, "--file", str(file)]
        command = [python, "-B", "-X", "faulthandler", *batch]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                env={**os.environ, "FUZZ_PROGRAM_SECONDS": str(seconds / 3)},
            )
        except subprocess.TimeoutExpired:
            return ["hangs"]
    if done.returncode:
        crash = next((s for s in done.stderr.splitlines() if s.startswith("Fatal")), "")
        return ["hangs" if "Timeout (" in done.stderr else f"ends with {done.returncode} {crash}"]
    return done.stdout.splitlines()


def difference(expected: list[str], found: list[str]) -> str | None:
    """What is different first, with what happened before; None if nothing is."""
    if expected == found:
        return None
    place = next(
        (i for i, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]),
        min(len(expected), len(found)),
    )
    before = "".join(f"    {line}\n" for line in expected[max(0, place - 12) : place])
    return (
        f"{before}  expected {expected[place : place + 2]}\n  found    {found[place : place + 2]}"
    )


def main(programs: Programs) -> None:
    """For a kept script that is run by hand."""
    found = difference(history("model", programs), history("greenlet", programs))
    print(found or "as the model says")
    sys.exit(found is not None)
