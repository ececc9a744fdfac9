"""The newest eventlet, unmodified, on our greenlet."""

from __future__ import annotations

import pytest
from environment import make_environment


@pytest.mark.timeout(900)  # the first run builds a wheel and an environment
def test_hubs_of_eventlet_do_not_hold_up_threads_children_nor_the_program() -> None:
    environment = make_environment("eventlet", "eventlet")
    assert "the program ends\n" in environment.run("hubs_that_stay.py", "eventlet", timeout=120)
