"""Each allocation fails once: failures.py is the machine, failure_cases.py has the operations.

A sample. `make inject` tries all of them on all interpreters.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import THREAD_SANITIZER, TIME_SCALE

MACHINE = Path(__file__).with_name("failures.py")

pytestmark = pytest.mark.skipif(
    THREAD_SANITIZER, reason="the sanitizer has memory functions of its own"
)


def test_a_sample_of_allocations_fails() -> None:
    # Without the cases that make interpreters: CPython itself often ends there without memory.
    options = ["--seed", "17", "--seconds", "3", "--only", "^(?!.*another_interpreter)"]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(MACHINE), *options],
        capture_output=True,
        text=True,
        timeout=90 * TIME_SCALE,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert json.loads(done.stdout.splitlines()[-1])["failures"] > 0


def test_the_end_of_a_thread_kills_its_greenlets_without_memory() -> None:
    """It abandoned them, with their stacks, if there was no memory for a list of them."""
    done = subprocess.run(
        [
            sys.executable,
            str(MACHINE),
            "--at",
            "end_a_thread_that_has_several",
            "0",
            "from there on",
        ],
        capture_output=True,
        text=True,
        timeout=60 * TIME_SCALE,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
