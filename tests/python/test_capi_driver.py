"""The entries of greenlet.h, called at random: capi_driver.py is the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from helpers import load_extension, run_machine, to_parent

THROW = 5  # PyGreenlet_Throw_NUM


@pytest.mark.parametrize("threads", [1, 3])
def test_each_entry_takes_whatever_it_is_given(threads: int) -> None:
    options = ("--seed", "17", "--programs", "20", "--threads", str(threads))
    result = run_machine("capi_driver.py", *options)
    assert result["programs"] == 20
    assert result["calls"] > 20 * threads * 30


@pytest.mark.parametrize("thrown", [KeyError, KeyError(), GreenletExit])
def test_a_throw_takes_the_place_of_an_exception_that_is_set(thrown: Any, tmp_path: Path) -> None:
    """It was SystemError for a class, and an assertion in debug builds."""
    driver: Any = load_extension("driver.c", tmp_path)

    def run() -> None:
        try:
            to_parent()
        except BaseException as error:
            caught.append(error)

    caught: list[BaseException] = []
    g = greenlet(run)
    g.switch()
    driver.call(THROW, ValueError("set before"), g, thrown)
    assert isinstance(caught[0], thrown if isinstance(thrown, type) else KeyError)
    assert caught[0].__context__ is None
    # One that has not started: it looks up its run.
    value, error = driver.call(THROW, ValueError("set before"), greenlet(run, getcurrent()), thrown)
    assert isinstance(value if thrown is GreenletExit else error, (KeyError, GreenletExit))


def test_a_throw_keeps_what_only_the_exception_that_is_set_owns(tmp_path: Path) -> None:
    driver: Any = load_extension("driver.c", tmp_path)

    def run() -> str:
        try:
            to_parent()
        except LookupError as error:
            return str(error)
        return "nothing was thrown"

    for number in range(100):
        g = greenlet(run)
        g.switch()
        text = f"thrown {number}"
        assert driver.rethrow(g, lambda text=text: {}[text]) == repr(text)
