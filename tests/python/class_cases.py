"""What must hold for every kind of compiled class over greenlet, and for Python classes over those.
Subinterpreters import this file, too, so it imports nothing but greenlet and tests/extensions."""

from __future__ import annotations

import gc
import itertools
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from greenlet import getcurrent

LETTERS = "tcdf"  # see tests/extensions/classes.c
SLOTS = ["".join(some) for n in range(5) for some in itertools.combinations(LETTERS, n)]
KINDS = ("static", "pretended", "heap")
LOOPS = 50
HEAP_TYPE = 1 << 9


def itself(cls: Any) -> Any:
    return cls


def subclass(cls: Any) -> Any:
    return type("Python", (cls,), {"y": 5})


def with_del(cls: Any) -> Any:
    return type("Deleted", (cls,), {"y": 5, "__del__": lambda self: None})


def with_slots(cls: Any) -> Any:
    return type("Slotted", (cls,), {"y": 5, "__slots__": ("slot",)})


SHAPES: dict[str, Callable[[Any], Any]] = {
    "itself": itself,
    "a subclass": subclass,
    "a subclass with __del__": with_del,
    "a subclass with __slots__": with_slots,
}


def body() -> None:
    getcurrent().parent.switch()  # type: ignore[union-attr]


def instances(cls: Any) -> Iterator[Callable[[], None]]:
    """Ways to make an instance and to drop it."""

    def unstarted() -> None:
        cls()

    def suspended() -> None:
        cls(body).switch()

    def in_a_cycle() -> None:
        g = cls(body)
        g.me = g

    def suspended_in_a_cycle() -> None:
        g = cls(body)
        g.me = g
        g.switch()

    def many_in_a_cycle() -> None:
        family = [cls(body) for _ in range(30)]
        for g in family:
            g.family = family

    yield from (unstarted, suspended, in_a_cycle, suspended_in_a_cycle, many_in_a_cycle)


def check_counts(cls: Any) -> None:
    """After their end, instances have not changed the reference count of their class."""
    for use in instances(cls):
        use()
        for _ in range(2):
            gc.collect()  # free-threaded builds add up the counts of all threads here
        before = sys.getrefcount(cls)
        for _ in range(LOOPS):
            use()
        for _ in range(2):
            gc.collect()
        growth = sys.getrefcount(cls) - before
        assert abs(growth) < LOOPS // 5, f"{growth} references after {use.__name__}"
    visits = gc.get_referents(cls()).count(cls)
    assert visits == (1 if cls.__flags__ & HEAP_TYPE else 0), f"{visits} visits"


def check_use(cls: Any) -> None:
    """A collection of instances, or of a thread's frames that hold some, does not touch a class."""
    mro = cls.__mro__
    for use in instances(cls):
        use()
        gc.collect()
        assert cls.__mro__ is mro
        assert issubclass(cls, cls.__base__)
        assert cls.__name__ == "Task" or cls.y == 5
        assert cls(lambda: 5).switch() == 5
    waiting = cls(body)
    waiting.switch()
    gc.collect()
    waiting.switch()
    assert waiting.dead


def check_end(make: Callable[[], Any]) -> None:
    """A class that is dropped with its instances is collected."""
    for number in range(4):
        cls = make()
        alive = weakref.ref(cls)
        instance = cls(body)
        instance.me = instance
        instance.cls = cls
        if number % 2:
            instance.switch()
        if number >= 2 and "slot" in cls.__dict__:
            instance.slot = instance
        del cls, instance
        for _ in range(4):
            gc.collect()
        assert alive() is None, f"kept by {gc.get_referrers(alive())}"


def check_kept(cls: Any) -> None:
    """The class's own tp_traverse finds what its fields refer to."""

    class Kept:
        pass

    for started in (False, True):
        g = cls(body)
        kept = g.kept = Kept()
        kept.back = g  # type: ignore[attr-defined]
        alive = weakref.ref(kept)
        if started:
            g.switch()
        del g, kept
        for _ in range(4):
            gc.collect()
        assert alive() is None, f"started: {started}"


def check_one(classes: Any, kind: str, slots: str, derive: Callable[[Any], Any]) -> None:
    compiled = classes.make(kind, slots)
    cls = derive(compiled)
    check_use(cls)
    check_counts(cls)
    if kind == "heap":
        check_end(lambda: derive(classes.make(kind, slots)))
    elif cls is not compiled:
        check_end(lambda: derive(compiled))
    if {*"tcd"} <= {*slots}:
        check_kept(cls)


def check(classes: Any, kind: str, shape: str) -> None:
    """Do all the checks with the 16 classes of a kind."""
    for slots in SLOTS:
        try:
            check_one(classes, kind, slots, SHAPES[shape])
        except AssertionError as failure:
            raise AssertionError(f"{kind}, slots {slots!r}, {shape}: {failure}") from failure
