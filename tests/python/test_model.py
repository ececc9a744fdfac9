"""Random programs have the same history on greenlet as on the model of tests/fuzz.

Each run has new programs, made from a seed that a failure tells; FUZZ_SEED in the environment gives
the seed. `make fuzz` runs many more. What it found is in tests/regression, a script each, and must
not come back.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import DEBUG_BUILD, FREE_THREADED, TIME_SCALE, frames_are_instrumented_anew

TESTS = Path(__file__).resolve().parents[1]
BATCH = TESTS / "fuzz" / "batch.py"
PROGRAMS = 50
SEED = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(1 << 40))


#: Why the model cannot be compared with on this interpreter; empty if it can.
NO_MODEL = (
    "the model needs the GIL"
    if FREE_THREADED
    else "the model, which is plain Python, has other histories under the JIT of 3.15.2 itself"
    if hasattr(sys, "_jit") and sys._jit.is_enabled()
    else "debug builds leave out steps, which is another program for the model"
    if DEBUG_BUILD
    else ""
)


def run(*command: str | Path | int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-X", "faulthandler", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120 * TIME_SCALE,
        check=False,
        env={**os.environ, "FUZZ_PROGRAM_SECONDS": str(60 * TIME_SCALE)},
    )


def histories(library: str, seed: int) -> dict[str, str]:
    """A digest of the history of each program, by its seed."""
    done = run(BATCH, library, seed, PROGRAMS, "--calm")
    assert done.returncode == 0, f"{library}, FUZZ_SEED={seed}:\n{done.stdout}\n{done.stderr}"
    ended = [line.split() for line in done.stdout.splitlines()]
    return {line[0]: line[2] for line in ended if len(line) == 3}


@pytest.mark.skipif(bool(NO_MODEL), reason=NO_MODEL)
def test_programs_have_the_history_of_the_model() -> None:
    found, expected = histories("greenlet", SEED), histories("model", SEED)
    assert len(found) == PROGRAMS
    different = [each for each, history in found.items() if history != expected[each]]
    assert not different, f"other histories of the seeds {different}"


@frames_are_instrumented_anew
def test_random_programs_come_to_their_end() -> None:
    assert len(histories("greenlet", SEED)) == PROGRAMS


@pytest.mark.parametrize(
    "script", sorted(path.name for path in (TESTS / "regression").glob("*.py"))
)
def test_what_was_found_before_stays_mended(script: str) -> None:
    if script.startswith("model_") and NO_MODEL:
        pytest.skip(NO_MODEL)
    done = run(TESTS / "regression" / script)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
