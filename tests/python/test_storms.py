"""A moment of each storm. STORM_SEED in the environment gives another seed.

`make storm` takes a new one each time, and runs them for long.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import pytest
from helpers import TIME_SCALE, run_script

SECONDS = 0.3
SEED = int(os.environ.get("STORM_SEED") or 1)
NAMES = ["containers", "monitoring", "frames", "finalizers", "forks", "subinterpreters", "exits"]
if not hasattr(os, "fork"):
    NAMES.remove("forks")
RUN = "import runpy; runpy.run_module('storms', run_name='__main__', alter_sys=True)"


def run_storms(
    seed: int, seconds: float, stall: float, names: Sequence[str] = (), *options: str
) -> None:
    # The positional arguments together: argparse of 3.11 and 3.12 takes them only so.
    outcome = run_script(
        RUN,
        args=[
            *("--seed", str(seed), "--stall", str(stall * TIME_SCALE), *options),
            *(str(seconds), *names),
        ],
        timeout=10 * (seconds + 3 * stall),
    )
    text = f"seed {seed}\n{outcome.stdout}\n{outcome.stderr}"
    unexpected = [
        line
        for line in outcome.stderr.splitlines()
        if not line.startswith("GreenletExit did not kill ")
    ]
    assert (outcome.returncode, unexpected) == (0, []), text


def test_a_moment_of_each_storm() -> None:
    run_storms(SEED, SECONDS, 30, NAMES, "--here")


@pytest.mark.stress
def test_each_storm_for_minutes() -> None:
    seconds = float(os.environ.get("GREENLET_STRESS_SECONDS", "600"))
    run_storms(random.randrange(1 << 30), seconds, 120)
