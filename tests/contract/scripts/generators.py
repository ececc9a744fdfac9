"""Switches below generators, coroutines, and calls through C code."""

from __future__ import annotations

import functools
import operator
import re
import sys
import threading
from typing import Any

from behaviour import (
    Greenlet,
    attempt,
    behaviour,
    fail,
    getcurrent,
    pause,
    root,
    run,
    say,
    suspended,
)


@behaviour
def a_generator_may_switch() -> None:
    def numbers() -> Any:
        yield pause("one")
        yield pause("two")

    made = Greenlet(lambda: list(numbers()))
    say(made.switch(), made.switch(1), made.switch(2))


@behaviour
def a_generator_may_be_fed_by_another_greenlet() -> None:
    def numbers() -> Any:
        while True:
            yield pause()

    def consume() -> None:
        for number in numbers():
            say("consumed", number)
            if number == 3:
                break

    made = suspended(consume)
    for number in (1, 2, 3):
        made.switch(number)
    say(made.dead)


@behaviour
def a_generator_that_is_executing_cannot_be_entered_elsewhere() -> None:
    def numbers() -> Any:
        yield pause("inside")

    generator = numbers()
    made = Greenlet(lambda: next(generator))
    say(made.switch(), attempt(next, generator))
    say(made.switch("value"), attempt(next, generator))


@behaviour
def a_generator_may_be_used_by_several_greenlets_in_turn() -> None:
    def numbers() -> Any:
        received: list[Any] = []
        while True:
            received.append((yield len(received)))

    generator = numbers()
    next(generator)
    say(
        Greenlet(lambda: generator.send("first")).switch(),
        Greenlet(lambda: generator.send("second")).switch(),
        generator.send("main"),
    )


@behaviour
def a_greenlet_may_yield_from_nested_calls() -> None:
    def walk(tree: Any) -> None:
        for node in tree:
            if isinstance(node, list):
                walk(node)
            else:
                root().switch(node)

    made = Greenlet(walk)
    seen = [made.switch([1, [2, [3, 4]], 5])]
    while bool(made):
        seen.append(made.switch())
    say(seen)


@behaviour
def a_generator_closed_while_a_greenlet_waits_in_another() -> None:
    def numbers() -> Any:
        try:
            yield 1
        finally:
            say("closed in main:", getcurrent() is root())

    generator = numbers()
    Greenlet(lambda: next(generator)).switch()
    generator.close()


@behaviour
def a_generators_exception_crosses() -> None:
    def numbers() -> Any:
        yield 1
        fail()

    say(attempt(Greenlet(lambda: list(numbers())).switch))


@behaviour
def a_coroutine_may_switch() -> None:
    async def work() -> Any:
        return await step() + 1

    async def step() -> Any:
        return root().switch("waiting")

    def body() -> Any:
        coroutine = work()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return "done", stop.value

    made = Greenlet(body)
    say(made.switch(), made.switch(41))


@behaviour
def an_async_generator_may_switch() -> None:
    async def numbers() -> Any:
        for number in range(2):
            yield root().switch(number)

    async def work() -> Any:
        return [number async for number in numbers()]

    def body() -> Any:
        try:
            work().send(None)
        except StopIteration as stop:
            return stop.value

    made = Greenlet(body)
    say(made.switch(), made.switch("a"), made.switch("b"))


@behaviour
def a_coroutine_may_be_driven_from_several_greenlets() -> None:
    class Step:
        def __await__(self) -> Any:
            return (yield "step")

    async def work() -> Any:
        return [await Step(), await Step()]

    coroutine = work()
    say(Greenlet(lambda: coroutine.send(None)).switch())
    say(Greenlet(lambda: coroutine.send("first")).switch())
    try:
        coroutine.send("second")
    except StopIteration as stop:
        say(stop.value)


@behaviour
def a_sort_may_switch_in_its_key() -> None:
    made = Greenlet(lambda: sorted([3, 1, 2], key=lambda value: pause(value) or value))
    say(made.switch(), made.switch(), made.switch(), made.switch())


@behaviour
def a_comparison_may_switch() -> None:
    @functools.total_ordering
    class Slow:
        def __init__(self, value: int) -> None:
            self.value = value

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Slow) and self.value == other.value

        def __lt__(self, other: Slow) -> bool:
            pause("comparing")
            return self.value < other.value

    made = Greenlet(lambda: max(Slow(1), Slow(2)).value)
    say(made.switch(), made.switch())


@behaviour
def map_and_filter_may_switch() -> None:
    made = Greenlet(lambda: list(map(pause, filter(pause, [1, 2]))))
    say(made.switch(), made.switch(True), made.switch("a"), made.switch(False))


@behaviour
def reduce_may_switch() -> None:
    made = Greenlet(lambda: functools.reduce(lambda a, b: a + b + pause((a, b)), [1, 2, 3]))
    say(made.switch(), made.switch(10), made.switch(20))


@behaviour
def a_substitution_may_switch() -> None:
    made = Greenlet(lambda: re.sub("[ab]", lambda match: pause(match.group()), "a-b"))
    say(made.switch(), made.switch("x"), made.switch("y"))


@behaviour
def attribute_access_may_switch() -> None:
    class Slow:
        @property
        def value(self) -> Any:
            return pause("property")

        def __getattr__(self, name: str) -> Any:
            return pause("getattr " + name)

        def __getitem__(self, key: Any) -> Any:
            return pause(("item", key))

    slow = Slow()
    made = Greenlet(lambda: (slow.value, slow.other, slow[1]))
    say(made.switch(), made.switch("a"), made.switch("b"), made.switch("c"))


@behaviour
def an_operator_may_switch() -> None:
    class Slow:
        def __add__(self, other: Any) -> Any:
            return pause(("add", other))

        def __bool__(self) -> bool:
            return bool(pause("bool"))

    made = Greenlet(lambda: (operator.add(Slow(), 1), not Slow()))
    say(made.switch(), made.switch("sum"), made.switch(1))


@behaviour
def an_import_hook_may_switch() -> None:
    class Finder:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            pause("finding " + name)

    finder = Finder()

    def body() -> None:
        import a_module_that_does_not_exist  # type: ignore[import-not-found] # noqa: F401

    made = Greenlet(body)
    sys.meta_path.insert(0, finder)
    try:
        say(made.switch())
    finally:
        sys.meta_path.remove(finder)
    say(attempt(made.switch))


@behaviour
def a_class_body_and_a_constructor_may_switch() -> None:
    def body() -> Any:
        class Made:
            value = pause("class body")

            def __init__(self) -> None:
                self.other = pause("constructor")

        made = Made()
        return made.value, made.other

    made = Greenlet(body)
    say(made.switch(), made.switch("a"), made.switch("b"))


@behaviour
def a_comprehension_may_switch() -> None:
    made = Greenlet(lambda: {key: pause(key) for key in "ab"})
    say(made.switch(), made.switch(1), made.switch(2))


@behaviour
def a_lock_may_be_held_across_a_switch() -> None:
    lock = threading.Lock()

    def body() -> None:
        with lock:
            pause()

    made = suspended(body)
    say(lock.locked(), lock.acquire(blocking=False))
    made.switch()
    say(lock.locked())


@behaviour
def two_deep_stacks_may_alternate() -> None:
    def deep(depth: int, name: str) -> Any:
        if depth:
            return next(map(deep, [depth - 1], [name]))
        return [root().switch((name, number)) for number in range(2)]

    one, two = Greenlet(deep), Greenlet(deep)
    say(one.switch(20, "one"), two.switch(30, "two"))
    say(one.switch("a"), two.switch("b"), one.switch("c"), two.switch("d"))


if __name__ == "__main__":
    run()
