"""A moment of each storm, with a new seed each time. `make storm` runs them for long."""

from __future__ import annotations

import os
import random

import pytest
from helpers import TIME_SCALE, run_script

SECONDS = 0.3
RUN = "import runpy; runpy.run_module('storms', run_name='__main__', alter_sys=True)"


def run_storms(seconds: float, stall: float, *options: str) -> None:
    seed = random.randrange(1 << 30)
    outcome = run_script(
        RUN,
        args=[str(seconds), "--seed", str(seed), "--stall", str(stall * TIME_SCALE), *options],
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
    run_storms(SECONDS, 30, "--here")


@pytest.mark.stress
def test_each_storm_for_minutes() -> None:
    run_storms(float(os.environ.get("GREENLET_STRESS_SECONDS", "600")), 120)
