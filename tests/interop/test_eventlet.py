"""The newest eventlet, unmodified, on our greenlet."""

from __future__ import annotations

import pytest
from environment import make_environment


@pytest.mark.timeout(900)  # the first run builds a wheel and an environment
def test_hubs_of_eventlet_do_not_hold_up_threads_children_nor_the_program() -> None:
    environment = make_environment("eventlet", "eventlet")
    assert "the program ends\n" in environment.run("hubs_that_stay.py", "eventlet", timeout=120)


SCENARIOS = (
    "a_hub_that_was_used",
    "a_timer",
    "a_timeout",
    "a_socket",
    "children",
    "children_that_nobody_refers_to",
    "children_whose_finally_blocks_sleep",
    "a_server",
)


def run_threads(scenario: str, count: int, timeout: float) -> None:
    environment = make_environment("eventlet", "eventlet")
    arguments = ("hubs_of_threads.py", "eventlet", scenario, str(count))
    lines = environment.run(*arguments, timeout=timeout).splitlines()
    assert lines[0].startswith("greenlet ")
    assert lines[1:] == ["all threads have ended"]  # and nobody has complained


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_threads_end_with_a_hub_of_eventlet_and_their_finally_blocks_run(scenario: str) -> None:
    run_threads(scenario, 5, timeout=60)


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_many_threads_end_with_a_hub_of_eventlet(scenario: str) -> None:
    run_threads(scenario, 200, timeout=300)
