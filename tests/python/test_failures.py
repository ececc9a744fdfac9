"""Each allocation fails once: failures.py is the machine, failure_cases.py has the operations.

A sample. `make inject` tries all of them on all interpreters.
"""

from __future__ import annotations

import pytest
from helpers import THREAD_SANITIZER, run_machine, stacks_stay_in_place

# If the guard of a frozen stack fails, the greenlet cannot go on, not even to be killed. Here
# system calls fail, too.
pytestmark = [
    stacks_stay_in_place,
    pytest.mark.skipif(THREAD_SANITIZER, reason="the sanitizer has memory functions of its own"),
]


def test_a_sample_of_allocations_fails() -> None:
    # Without the cases that make interpreters: CPython itself often ends there without memory.
    options = ("--seed", "17", "--seconds", "3", "--only", "^(?!.*another_interpreter)")
    assert run_machine("failures.py", *options, timeout=90)["failures"] > 0


def test_the_end_of_a_thread_kills_its_greenlets_without_memory() -> None:
    """It abandoned them, with their stacks, if there was no memory for a list of them."""
    failure = ("end_a_thread_that_has_several", "0", "from there on")
    assert run_machine("failures.py", "--at", *failure)["children"] > 0
