"""The newest gevent, unmodified, on our greenlet."""

from __future__ import annotations

import pytest
from environment import make_environment


@pytest.mark.timeout(900)  # the first run builds a wheel and an environment
def test_gevent_serves_and_synchronizes() -> None:
    environment = make_environment("gevent", "gevent")
    output = environment.run("gevent_services.py", timeout=180)
    # Every step says when it is done.
    assert "http_server_of_gevent: " in output
    assert "inspection: " in output, output


@pytest.mark.timeout(900)
def test_hubs_of_gevent_do_not_hold_up_threads_nor_the_program() -> None:
    environment = make_environment("gevent", "gevent")
    assert "the program ends\n" in environment.run("hubs_that_stay.py", "gevent", timeout=120)
