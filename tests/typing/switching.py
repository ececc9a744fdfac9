"""A greenlet's life: made, switched to, thrown into, looked at."""

from collections.abc import Callable
from contextvars import Context, copy_context
from types import FrameType
from typing import Any, ClassVar, assert_type

import greenlet as library
from greenlet import GreenletExit, error, getcurrent, greenlet


def double(number: int) -> int:
    return 2 * number


def make() -> None:
    assert_type(greenlet(), greenlet)
    assert_type(greenlet(double), greenlet)
    assert_type(greenlet(double, getcurrent()), greenlet)
    assert_type(greenlet(run=double, parent=None), greenlet)
    assert_type(greenlet(lambda: None, parent=greenlet()), greenlet)
    greenlet(1)  # type: ignore
    greenlet(double, 1)  # type: ignore
    greenlet(double, getcurrent(), None)  # type: ignore
    greenlet(target=double)  # type: ignore


def switch(task: greenlet) -> None:
    # What arrives depends on who switches back, so it is Any, whatever the greenlet runs.
    assert_type(task.switch(), Any)
    assert_type(task.switch(1), Any)
    assert_type(task.switch(1, "two", three=3.0), Any)
    number: int = task.switch("the first message, and the following ones, may be of any type")
    assert_type(number, int)


def throw(task: greenlet) -> None:
    assert_type(task.throw(), Any)
    assert_type(task.throw(GreenletExit), Any)
    assert_type(task.throw(ValueError, "text"), Any)
    assert_type(task.throw(ValueError("text")), Any)
    assert_type(task.throw(ValueError, ValueError("text")), Any)
    try:
        task.throw(KeyError, ("key",))
    except KeyError as caught:
        task.throw(type(caught), caught, caught.__traceback__)
        task.throw(caught, None, caught.__traceback__)
    task.throw("text")  # type: ignore
    task.throw(int)  # type: ignore
    task.throw(ValueError("text"), "text")  # type: ignore
    task.throw(ValueError, "text", "traceback")  # type: ignore
    task.throw(typ=ValueError)  # type: ignore
    task.throw(ValueError, val="text")  # type: ignore


def look(task: greenlet) -> None:
    assert_type(task.parent, greenlet | None)
    assert_type(task.dead, bool)
    assert_type(bool(task), bool)
    assert_type(task.gr_frame, FrameType | None)
    assert_type(task.gr_context, Context | None)
    assert_type(task.run, Callable[..., Any])
    assert_type(task.getcurrent(), greenlet)
    assert_type(greenlet.GreenletExit, type[GreenletExit])
    assert_type(greenlet.error, type[error])


def change(task: greenlet) -> None:
    task.parent = getcurrent()
    task.run = double
    del task.run
    task.gr_context = copy_context()
    task.gr_context = None
    task.parent = None  # type: ignore
    task.parent = "main"  # type: ignore
    task.run = 1  # type: ignore
    task.gr_context = {}  # type: ignore
    task.dead = True  # type: ignore
    task.gr_frame = None  # type: ignore


def catch(task: greenlet) -> object:
    try:
        return task.switch()
    except error as caught:
        assert_type(caught, error)
    except greenlet.GreenletExit as caught_exit:
        assert_type(caught_exit, GreenletExit)
    return None


class Task(greenlet):
    """The form of many programs: `run` is a method, and takes what the first switch brings."""

    classes: ClassVar[list[type[greenlet]]] = []

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def run(self, first: int, *, second: str = "") -> str:
        return f"{self.name} {first} {second}"


class Child(greenlet):
    """A class that takes more arguments, and gives the parent on."""

    def __init__(self, function: Callable[..., object], parent: greenlet | None = None) -> None:
        super().__init__(function, parent)

    def throw_late(self, reason: BaseException) -> Any:
        return self.throw(reason)


assert_type(Task("a").name, str)
assert_type(Task("a").switch(1), Any)
assert_type(Task("a").run(1), str)
assert_type(Child(print).parent, greenlet | None)
Task("a").run("one")  # type: ignore
Task()  # type: ignore


def annotate(
    every: list[greenlet], one: type[greenlet], by_name: dict[str, library.greenlet]
) -> None:
    """`greenlet` takes no parameters, so strict checkers accept it without any."""
    every.append(one())
    by_name["main"] = getcurrent()


def narrow(thing: object) -> None:
    if isinstance(thing, greenlet):
        assert_type(thing, greenlet)


class Impossible(greenlet, int):  # type: ignore
    """Objects of two layouts in one: TypeError when it is defined, which @disjoint_base tells."""
