"""Calls through C in which a greenlet waits while its stack only borrows an object: as data.

A case returns a function that switches to the main greenlet inside such a call, the object, and the
number of references to the object that the stack owns at that moment. If the greenlet shows the
collector one reference too many, the process crashes. test_collection.py runs this file as a
program, in child processes.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, SupportsIndex

from greenlet import getcurrent, greenlet

main = getcurrent()
pattern: Any = re.compile("x")
new_context: Any = contextvars.Context


class Thing:
    """Every build counts each reference to it. (No build has to for functions and classes.)"""

    def __call__(self, *args: Any) -> Any:
        return "y"


class Waits:
    """Switches to the main greenlet when it is converted."""

    def __index__(self) -> int:
        main.switch()
        return 1


class WaitsAtLast(str):
    """Switches to the main greenlet when it is dropped."""

    __slots__ = ()

    def __del__(self) -> None:
        main.switch()


class Wait(NamedTuple):
    """What a greenlet runs, and how many references to an object it owns while it waits there."""

    run: Callable[[], object]
    thing: Any
    owned: int


CASES: dict[str, Callable[[bool], Wait]] = {}


def case(name: str) -> Callable[[Callable[[bool], Wait]], Callable[[bool], Wait]]:
    def add(make: Callable[[bool], Wait]) -> Callable[[bool], Wait]:
        CASES[name] = make
        return make

    return add


def often(warm: bool, work: Callable[[], object]) -> None:
    """Let the interpreter specialize what the case executes."""
    for _ in range(100 if warm else 0):
        work()


# --- what converts its arguments, or drops them, before or after it owns them ------------------


@case("pattern.sub, while it converts the count")
def sub_count(warm: bool) -> Wait:
    box = [Thing()]

    def call(take: Callable[[], Any], count: Callable[[], SupportsIndex]) -> None:
        pattern.sub(take(), "x", count())

    often(warm, lambda: call(Thing, int))
    return Wait(lambda: call(box.pop, Waits), box[0], 1)


@case("pattern.subn, while it converts the count, given by its name")
def subn_count(warm: bool) -> Wait:
    box = [Thing()]

    def call(take: Callable[[], Any], count: Callable[[], Any]) -> None:
        pattern.subn(take(), "x", count=count())

    often(warm, lambda: call(Thing, int))
    return Wait(lambda: call(box.pop, Waits), box[0], 1)


@case("pattern.sub, when its text is dropped")
def sub_text(warm: bool) -> Wait:
    box = [Thing()]

    def call(take: Callable[[], Any], make: Callable[[str], str]) -> None:
        pattern.sub(take(), make("x"))

    often(warm, lambda: call(Thing, str))
    return Wait(lambda: call(box.pop, WaitsAtLast), box[0], 1)


def counting() -> Iterator[int]:
    yield 0
    main.switch()
    yield 1
    while True:
        yield 2


def add_consumer(consumer: Any) -> None:
    @case(f"{consumer.__name__}, when it has failed and its caller's stack is dropped")
    def failed(warm: bool) -> Wait:
        generator = counting()
        next(generator)

        class Resumes:
            __del__ = staticmethod(generator.__next__)

        def fail(argument: object) -> Any:
            raise ValueError

        def run() -> None:
            try:
                consumer(generator, Resumes(), fail(1))
            except ValueError:
                pass

        return Wait(run, generator, 1)


for each_consumer in (list, tuple, set, frozenset, sorted, sum, min, max, all, any):
    add_consumer(each_consumer)


@case("set, when it has failed and drops what it had")
def failing_set(warm: bool) -> Wait:
    def values() -> Iterator[Any]:
        yield resumes.pop()
        yield []  # cannot be hashed
        main.switch()
        yield 0

    generator = values()

    class Resumes:
        __del__ = staticmethod(generator.__next__)

    resumes = [Resumes()]

    def run() -> None:
        try:
            set(generator)
        except TypeError:
            pass

    return Wait(run, generator, 1)


# --- what puts borrowed references over those of its caller -------------------------------------


@case("partial of Context.run, with a bound switch")
def bound_switch(warm: bool) -> Wait:
    switch = main.switch
    call = functools.partial(new_context().run, switch)
    often(warm, lambda: call_with(functools.partial(new_context().run, str)))
    return Wait(lambda: call_with(call), switch, 0)


def call_with(function: Callable[..., Any]) -> None:
    function("x")


@case("partial of Context.run, with the unbound switch")
def unbound_switch(warm: bool) -> Wait:
    switch = greenlet.__dict__["switch"]
    call = functools.partial(new_context().run, switch)
    often(warm, lambda: call_with_two(functools.partial(new_context().run, str.join)))
    return Wait(lambda: call_with_two(call, main), switch, 0)


def call_with_two(function: Callable[..., Any], first: Any = "x") -> None:
    function(first, "x")


@case("a bound method of a partial of Context.run, with the unbound switch")
def bound_partial(warm: bool) -> Wait:
    switch = greenlet.__dict__["switch"]
    call = types.MethodType(functools.partial(new_context().run, switch), main)
    return Wait(lambda: call_with(call), switch, 0)


@case("partial of a bound switch")
def partial_of_switch(warm: bool) -> Wait:
    switch = main.switch
    call = functools.partial(switch, "first")
    return Wait(lambda: call_with(call), switch, 0)


# --- code in namespaces that others own ---------------------------------------------------------


def class_body() -> types.CodeType:
    def run() -> None:
        class Body:
            main.switch()

        del Body

    (code,) = (one for one in run.__code__.co_consts if isinstance(one, types.CodeType))
    return code


def execute(function: Callable[..., object], *args: object) -> None:
    function(*args)


def add_execution(name: str, bind: Callable[..., tuple[Any, ...]]) -> None:
    @case(name)
    def make(warm: bool) -> Wait:
        code = class_body()
        # The code object is a constant of the code that executes it, as in a class statement.
        constants = (*execute.__code__.co_consts, code)
        caller = types.FunctionType(execute.__code__.replace(co_consts=constants), globals())
        namespace: dict[str, object] = {}
        call = functools.partial(caller, *bind(code, {"main": main, "__name__": "test"}, namespace))
        return Wait(call, namespace, 1)  # its frame


add_execution("exec of a class body's code", lambda *args: (exec, *args))
add_execution("a partial of that exec", lambda *args: (functools.partial(exec, *args),))
add_execution(
    "a partial of exec with that code", lambda code, *args: (functools.partial(exec, code), *args)
)
add_execution("eval of a class body's code", lambda *args: (eval, *args))


def visits(wait: Wait, keep: list[greenlet]) -> int:
    g = greenlet(wait.run)
    keep.append(g)
    g.switch()
    assert not g.dead, "it was to wait"
    return sum(one is wait.thing for one in gc.get_referents(g))


if __name__ == "__main__":
    gc.disable()
    waits: list[Wait] = []
    greenlets: list[greenlet] = []  # keeps them alive
    for name, make in CASES.items():
        waits.append(make(sys.argv[1] == "warm"))
        shown = visits(waits[-1], greenlets)
        if shown > waits[-1].owned:
            print(f"{name}: {shown} instead of {waits[-1].owned}", flush=True)
    print("done", flush=True)
    os._exit(0)
