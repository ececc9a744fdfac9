"""The shapes of garbage that hold suspended greenlets, and where each is collected: as data.

A case makes its garbage from a canary. Its greenlets wait in `suspend`, which switches to the main
greenlet and returns 0: a Python function, or the main greenlet's switch() itself. The case returns
its greenlets. After they are dropped, only the garbage refers to the garbage.
`docs/internals/garbage-collection.md` shows the same table; test_collection.py compares the two.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import operator
import re
import threading
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from greenlet import getcurrent, greenlet, settrace

Suspend = Callable[..., Any]
Make = Callable[[Any, Suspend], Sequence[greenlet]]

VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")

# Why a case is not collected. Where CPython allows it, all cases are.
HIDDEN_STACK = "value stack hidden behind a C caller"
HIDDEN_OWN = "what a C caller keeps in variables of its own"

BOTH = ("python", "switch")  # what suspend is: a Python function, or switch() itself
PYTHON = ("python",)
SWITCH = ("switch",)


class Hidden(NamedTuple):
    """Why a case is not collected, and with which kinds of `suspend`."""

    reason: str = HIDDEN_STACK
    leaves_by: tuple[str, ...] = BOTH


class Case(NamedTuple):
    name: str
    code: Make
    leaves_by: tuple[str, ...] = BOTH
    hidden: Mapping[str, Hidden] = {}  # by version

    def make(self, canary: Any, suspend: Suspend) -> Sequence[greenlet]:
        """Make the garbage, by code that runs for the first time.

        The interpreter specializes code that has run a few times. Then it calls Python functions
        itself that it called through C before, and more is collected on 3.12 and 3.13.
        """
        assert isinstance(self.code, types.FunctionType)
        make = types.FunctionType(
            fresh(self.code.__code__),
            globals(),
            argdefs=self.code.__defaults__,
            closure=self.code.__closure__,
        )
        greenlets: Sequence[greenlet] = make(canary, suspend)
        return greenlets

    def is_beyond_reach(self) -> bool:
        """Whether even the newest CPython hides it."""
        return any(hidden.reason == HIDDEN_OWN for hidden in self.hidden.values())

    def hidden_on(self, version: str, leaves_by: str) -> bool:
        hidden = self.hidden.get(version)
        return hidden is not None and leaves_by in hidden.leaves_by


def fresh(code: types.CodeType) -> types.CodeType:
    constants = (
        fresh(constant) if isinstance(constant, types.CodeType) else constant
        for constant in code.co_consts
    )
    return code.replace(co_consts=tuple(constants))


CASES: list[Case] = []


def on(
    *versions: str, reason: str = HIDDEN_STACK, leaves_by: tuple[str, ...] = BOTH
) -> dict[str, Hidden]:
    return dict.fromkeys(versions, Hidden(reason, leaves_by))


# Before 3.14 the interpreter does not store where a frame's value stack ends when it calls C.
BEFORE_314 = on("3.11", "3.12", "3.13")
BEFORE_314_BY_PYTHON = on("3.11", "3.12", "3.13", leaves_by=PYTHON)
# From 3.14 on the stack is known. Only what the C function holds in its own variables is hidden.
FROM_314 = on("3.14", "3.15", reason=HIDDEN_OWN)


def case(
    name: str, hidden: Mapping[str, Hidden] | None = None, leaves_by: tuple[str, ...] = BOTH
) -> Callable[[Make], Make]:
    def add(make: Make) -> Make:
        CASES.append(Case(name, make, leaves_by, hidden or {}))
        return make

    return add


class Holder:
    """Holds what it is given."""

    def __init__(self, *held: Any) -> None:
        self.held = held


def started(run: Callable[..., Any], *args: Any, **kwargs: Any) -> greenlet:
    g = greenlet(run)
    g.switch(*args, **kwargs)
    return g


# --- held by itself ---------------------------------------------------------------------------


@case("its own closure")
def closure(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run() -> Any:
        suspend()
        return g, canary

    g = greenlet(run)
    g.switch()
    return [g]


@case("its own local variable")
def local(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(canary: Any) -> Any:
        me = getcurrent()
        suspend()
        return me, canary

    return [started(run, canary)]


@case("a local variable of an outer frame")
def outer_local(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def inner(level: int) -> Any:
        return inner(level - 1) if level else suspend()

    def run(canary: Any) -> Any:
        me = getcurrent()
        inner(20)
        return me, canary

    return [started(run, canary)]


@case("its instance `__dict__`")
def instance_dict(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    g: Any = started(suspend_in(suspend))
    g.itself, g.canary = g, canary
    return [g]


def suspend_in(suspend: Suspend) -> Callable[[], Any]:
    def run() -> Any:
        return suspend()

    return run


@case("an attribute of a subclass with its own `run`")
def subclass(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Task(greenlet):
        def __init__(self) -> None:
            self.mine = [self, canary]

        def run(self) -> Any:
            return suspend()

    task = Task()
    task.switch()
    return [task]


@case("a value on its value stack")
def value_stack(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        return [getcurrent(), things.pop(), suspend()]

    return [started(run, [canary])]


@case("an argument of the call that leaves")
def operand(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        # The value goes to the main greenlet too, which drops it.
        return suspend(Holder(getcurrent(), things.pop()))

    return [started(run, [canary])]


@case("`switch` itself as `run`, with its arguments", leaves_by=SWITCH)
def only_switch(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    g = greenlet(suspend)
    g.switch([g, canary])
    return [g]


@case("positional arguments of the first call")
def first_arguments(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(*args: Any) -> Any:
        return suspend()

    g = greenlet(run)
    g.switch(g, canary)
    return [g]


@case("the only argument of the first call")
def first_argument(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(*args: Any) -> Any:
        return suspend()

    g = greenlet(run)
    g.switch([g, canary])
    return [g]


@case("keyword arguments of the first call")
def first_keywords(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(**kwargs: Any) -> Any:
        return suspend()

    g = greenlet(run)
    g.switch(me=g, canary=canary)
    return [g]


@case("a class as `run`, with positional arguments")
def class_as_run(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Run:
        def __init__(self, *args: Any) -> None:
            suspend()

    g = greenlet(Run)
    g.switch(g, canary)
    return [g]


@case("a class as `run`, with one argument")
def class_as_run_with_one_argument(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Run:
        def __init__(self, *args: Any) -> None:
            suspend()

    g = greenlet(Run)
    g.switch([g, canary])
    return [g]


@case("a class as `run`, with keyword arguments", on(*VERSIONS, reason=HIDDEN_OWN))
def class_as_run_with_keywords(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Run:
        def __init__(self, **kwargs: Any) -> None:
            suspend()

    g = greenlet(Run)
    g.switch(me=g, canary=canary)
    return [g]


# --- held by each other -----------------------------------------------------------------------


def ring(count: int, run: Callable[..., Any]) -> list[greenlet]:
    return [greenlet(run) for _ in range(count)]


def through_locals(count: int) -> Make:
    def make(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
        def run(other: greenlet, canary: Any) -> Any:
            suspend()
            return other, canary

        greenlets = ring(count, run)
        for index, g in enumerate(greenlets):
            g.switch(greenlets[index - 1], canary)
        return greenlets

    return make


def through_closures(count: int) -> Make:
    def make(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
        greenlets: list[greenlet] = []

        def holding(index: int) -> Callable[[], Any]:
            def run() -> Any:
                suspend()
                return greenlets[index], canary

            return run

        greenlets.extend(greenlet(holding(index)) for index in range(count))
        for g in greenlets:
            g.switch()
        return list(greenlets)

    return make


def through_value_stacks(count: int) -> Make:
    """Each waits in the next one's switch(); the last one holds the first."""

    def make(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
        order: list[greenlet] = []

        def run(things: list[Any]) -> Any:
            return order.pop().switch(things)

        def run_last(things: list[Any]) -> Any:
            return [order.pop(), things.pop(), suspend()]

        greenlets = [*ring(count - 1, run), greenlet(run_last)]
        order.extend([greenlets[0], *reversed(greenlets[1:])])
        greenlets[0].switch([canary])
        assert not order
        return greenlets

    return make


for number, word in ((2, "two"), (3, "three")):
    CASES.append(Case(f"{word} of them, each other's local variables", through_locals(number)))
    CASES.append(Case(f"{word} of them, each other's closures", through_closures(number)))
    CASES.append(
        Case(f"{word} of them, each other's value stacks (`b.switch(x)`)",
             through_value_stacks(number))
    )  # fmt: skip


@case("a parent chain of dead and living greenlets")
def parents(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        suspend()
        return things

    things = [canary]
    oldest = started(run, things)
    dead = greenlet(lambda: None)
    dead.switch()
    dead.parent = oldest
    youngest = greenlet(run, parent=dead)
    youngest.switch(things)
    things.append(youngest)
    return [oldest, youngest]


# --- calls ------------------------------------------------------------------------------------


@case("`self` of a bound method under call")
def bound_method(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Worker(Holder):
        def work(self) -> Any:
            return suspend()

    def run(things: list[Any]) -> Any:
        return Worker(getcurrent(), things.pop()).work()

    return [started(run, [canary])]


@case("a bound method as `run`")
def bound_method_as_run(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Worker(Holder):
        def work(self) -> Any:
            return suspend()

    worker = Worker(canary)
    g = started(worker.work)
    worker.held += (g,)
    return [g]


@case("`*args` of a Python function under call", on("3.11"))
def star_args(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def call(*args: Any) -> Any:
        return suspend()

    def run(things: list[Any]) -> Any:
        return call(*[getcurrent(), things.pop()])

    return [started(run, [canary])]


@case("`**kwargs` of a Python function under call", on("3.11"))
def star_kwargs(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def call(**kwargs: Any) -> Any:
        return suspend()

    def run(things: list[Any]) -> Any:
        return call(**{"me": getcurrent(), "canary": things.pop()})  # noqa: PIE804

    return [started(run, [canary])]


@case("`*args` of the call that leaves", on("3.11") | on("3.12", "3.13", leaves_by=SWITCH))
def star_args_of_switch(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        return suspend(*[Holder(getcurrent(), things.pop())])

    return [started(run, [canary])]


@case("a decorator chain", on("3.11"))
def decorators(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @decorate
    @decorate
    @decorate
    def work(me: greenlet, *, canary: Any) -> Any:
        return suspend()

    def run(things: list[Any]) -> Any:
        return work(getcurrent(), canary=things.pop())

    return [started(run, [canary])]


@case("`functools.partial` as `run`", on("3.15", reason=HIDDEN_OWN))
def partial(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(*args: Any) -> Any:
        return suspend()

    cell: list[Any] = [canary]
    g = greenlet(functools.partial(run, cell))
    cell.append(g)
    g.switch()
    return [g]


@case("`functools.partial` as `run`, with keyword arguments", on(*VERSIONS, reason=HIDDEN_OWN))
def partial_with_keywords(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(*args: Any, **kwargs: Any) -> Any:
        return suspend()

    cell: list[Any] = [canary]
    g = greenlet(functools.partial(run, key=cell))
    cell.append(g)
    g.switch()
    return [g]


# --- generators and their kin -----------------------------------------------------------------


@case("a local variable of a generator that runs in it", BEFORE_314_BY_PYTHON)
def generator(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def values(*held: Any) -> Iterator[Any]:
        yield suspend()

    def run(things: list[Any]) -> Any:
        for _ in values(getcurrent(), things.pop()):
            pass

    return [started(run, [canary])]


@case("a generator that runs in it, which it holds in a local variable", BEFORE_314_BY_PYTHON)
def generator_in_a_local(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def values(*held: Any) -> Iterator[Any]:
        yield suspend()

    def run(things: list[Any]) -> Any:
        running = values(getcurrent(), things.pop())
        return next(running)

    return [started(run, [canary])]


@case("a suspended generator that it holds")
def suspended_generator(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def values(*held: Any) -> Iterator[Any]:
        yield 1

    def run(things: list[Any]) -> Any:
        waiting = values(getcurrent(), things.pop())
        next(waiting)
        suspend()

    return [started(run, [canary])]


@case("the outer one of two generators, by `yield from`", on("3.12", "3.13"))
def delegating_generator(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def inner() -> Iterator[Any]:
        yield suspend()

    def outer(*held: Any) -> Iterator[Any]:
        yield from inner()

    def run(things: list[Any]) -> Any:
        for _ in outer(getcurrent(), things.pop()):
            pass

    return [started(run, [canary])]


def add_consumer(name: str, consume: Callable[[Iterator[Any]], Any]) -> None:
    def make(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
        def values(*held: Any) -> Iterator[Any]:
            yield suspend()

        def run(things: list[Any]) -> Any:
            return consume(values(getcurrent(), things.pop()))

        return [started(run, [canary])]

    hidden = BEFORE_314_BY_PYTHON | FROM_314
    CASES.append(Case(f"a generator that `{name}()` consumes", make, BOTH, hidden))


for each_consumer in (list, tuple, set, frozenset, sorted, sum, min, max, all, any):
    add_consumer(each_consumer.__name__, each_consumer)


@case("a coroutine that runs in it", on("3.12", "3.13"))
def coroutine(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    async def inner() -> Any:
        return suspend()

    async def work(*held: Any) -> Any:
        return await inner()

    def run(things: list[Any]) -> Any:
        with contextlib.suppress(StopIteration):
            work(getcurrent(), things.pop()).send(None)

    return [started(run, [canary])]


@case("an asynchronous generator that runs in it", BEFORE_314_BY_PYTHON)
def async_generator(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    async def values(*held: Any) -> AsyncIterator[Any]:
        yield suspend()

    async def work(things: list[Any]) -> Any:
        async for value in values(getcurrent(), things.pop()):
            return value

    def run(things: list[Any]) -> Any:
        with contextlib.suppress(StopIteration):
            work(things).send(None)

    return [started(run, [canary])]


# --- statements and expressions ---------------------------------------------------------------


@case("a list comprehension")
def comprehension(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        return [(held, suspend()) for held in [Holder(getcurrent(), things.pop())]]

    return [started(run, [canary])]


@case("a generator expression", BEFORE_314_BY_PYTHON)
def generator_expression(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        for _ in ((held, suspend()) for held in [Holder(getcurrent(), things.pop())]):
            pass

    return [started(run, [canary])]


@case("a class body, with a closure", BEFORE_314)
def class_body(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(canary: Any) -> Any:
        me = getcurrent()

        class Body:
            suspend()
            mine = me, canary

        return Body

    g = greenlet(run)
    g.switch(canary)
    return [g]


@case("a class body's own names")
def class_namespace(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        class Body:
            me = getcurrent()
            canary = things.pop()
            suspend()

        return Body

    return [started(run, [canary])]


@case("a `with` block")
def with_block(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Manager(Holder):
        def __enter__(self) -> None: ...

        def __exit__(self, *exc_info: object) -> None: ...

    def run(things: list[Any]) -> Any:
        with Manager(getcurrent(), things.pop()):
            suspend()

    return [started(run, [canary])]


@case("`contextlib.contextmanager` that waits when entered", BEFORE_314_BY_PYTHON)
def generator_context_manager(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    @contextlib.contextmanager
    def manager(*held: Any) -> Iterator[Any]:
        yield suspend()

    def run(things: list[Any]) -> Any:
        with manager(getcurrent(), things.pop()):
            pass

    return [started(run, [canary])]


@case("a `for` loop's iterator")
def for_loop(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        for _ in iter([None, getcurrent(), things.pop()]):
            suspend()

    return [started(run, [canary])]


@case("a `for` loop's iterator that waits", BEFORE_314)
def for_loop_in_next(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Values(Holder):
        def __iter__(self) -> Values:
            return self

        def __next__(self) -> Any:
            suspend()
            raise StopIteration

    def run(things: list[Any]) -> Any:
        for _ in Values(getcurrent(), things.pop()):
            pass

    return [started(run, [canary])]


@case("a property", BEFORE_314)
def property_(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Thing(Holder):
        @property
        def value(self) -> Any:
            return suspend()

    def run(things: list[Any]) -> Any:
        return Thing(getcurrent(), things.pop()).value

    return [started(run, [canary])]


@case("`__getattr__`", BEFORE_314)
def getattr_(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Thing(Holder):
        def __getattr__(self, name: str) -> Any:
            return suspend()

    def run(things: list[Any]) -> Any:
        return Thing(getcurrent(), things.pop()).value

    return [started(run, [canary])]


@case("an operator method", BEFORE_314)
def operator_method(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Thing(Holder):
        def __add__(self, other: object) -> Any:
            return suspend()

    def run(things: list[Any]) -> Any:
        return Thing(getcurrent(), things.pop()) + 1

    return [started(run, [canary])]


@case("`exec` with its own locals", BEFORE_314 | FROM_314)
def exec_locals(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        namespace = {"me": getcurrent(), "canary": things.pop()}
        exec("mine = [me, canary]; suspend()", {"suspend": suspend}, namespace)

    return [started(run, [canary])]


@case("`exec` with its own globals", BEFORE_314 | FROM_314)
def exec_globals(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        namespace = {"me": getcurrent(), "canary": things.pop(), "suspend": suspend}
        exec(compile("mine = [me, canary]; suspend()", "a script", "exec"), namespace)

    return [started(run, [canary])]


@case("`eval` with its own locals", BEFORE_314 | FROM_314)
def eval_locals(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        namespace = {"me": getcurrent(), "canary": things.pop()}
        return eval("[me, canary, suspend()]", {"suspend": suspend}, namespace)

    return [started(run, [canary])]


# --- inside C callers -------------------------------------------------------------------------


class HashedBy:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __hash__(self) -> int:
        return int(self.function())


C_NAMESPACE: Mapping[str, Any] = {
    "reduce": functools.reduce,
    "sub": re.sub,
    "HashedBy": HashedBy,
    "getcurrent": getcurrent,
}

# Each calls function(…), which waits.
C_CALLS = {
    "`sorted(key=)`": "sorted([2, 1], key=function)",
    "`map`": "next(map(function, [1]))",
    "`functools.reduce`": "reduce(function, [1, 2])",
    "`re.sub`": "sub('a', function, 'a')",
    "`min(key=)`": "min([2, 1], key=function)",
    "`dict.setdefault` with a Python `__hash__`": "{}.setdefault(HashedBy(function), 1)",
}


def add_c_calls(name: str, call: str) -> None:
    bodies = {
        "a local variable": f"me, canary = getcurrent(), things.pop(); return {call}",
        "the value stack": f"return [getcurrent(), things.pop(), {call}]",
        "the function that it calls": f"return {call}",
    }
    for place, body in bodies.items():
        source = f"def run(function, things): {body}\n"
        holds = place == "the function that it calls"

        def make(
            canary: Any,
            suspend: Suspend,
            source: str = source,
            holds: bool = holds,
            result: object = "0" if name == "`re.sub`" else 0,
        ) -> Sequence[greenlet]:
            held: list[Any] = []

            def function(*args: Any) -> Any:
                suspend()
                assert len(held) == holds * 2
                return result

            namespace = dict(C_NAMESPACE)
            exec(source, namespace)
            g = greenlet(namespace["run"])
            if holds:
                held.extend((g, canary))
                g.switch(function, [None])
            else:
                g.switch(function, [canary])
            return [g]

        hidden = {} if place == "a local variable" else BEFORE_314
        if name == "`re.sub`":
            # It is a Python function, so the stack of its caller is known. It calls a C method.
            hidden = BEFORE_314 | FROM_314 if holds else {}
        CASES.append(Case(f"inside {name}: {place}", make, BOTH, hidden))


for each_name, each_call in C_CALLS.items():
    add_c_calls(each_name, each_call)


@case("`operator.methodcaller`, an argument of it", BEFORE_314)
def methodcaller(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    class Thing:
        def wait(self, *args: Any) -> Any:
            return suspend()

    def run(things: list[Any]) -> Any:
        call = operator.methodcaller("wait", getcurrent(), things.pop())
        return call(Thing())

    return [started(run, [canary])]


# --- exceptions, contexts, frames -------------------------------------------------------------


def fail(*held: Any) -> None:
    raise ValueError


@case("the traceback of an exception")
def traceback(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        try:
            fail(getcurrent(), things.pop())
        except ValueError as caught:
            kept = caught
        suspend()
        return kept

    return [started(run, [canary])]


@case("the exception that it handles")
def handled_exception(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        try:
            fail(getcurrent(), things.pop())
        except ValueError:
            return suspend()

    return [started(run, [canary])]


@case("`__context__` of an exception")
def exception_context(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        try:
            try:
                fail(getcurrent(), things.pop())
            finally:
                raise KeyError
        except KeyError as caught:
            kept = caught
        suspend()
        return kept

    return [started(run, [canary])]


@case("a context variable")
def context_variable(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")

    def run(things: list[Any]) -> Any:
        variable.set([getcurrent(), things.pop()])
        return suspend()

    return [started(run, [canary])]


@case("`contextvars.Context.run`", BEFORE_314)
def context_run(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")

    def inner(things: list[Any]) -> Any:
        variable.set([getcurrent(), things.pop()])
        return suspend()

    def run(things: list[Any]) -> Any:
        context = contextvars.Context()
        return context.run(inner, things)

    return [started(run, [canary])]


@case("a frame object taken from `gr_frame`")
def frame(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        suspend()
        return things

    things = [canary]
    g = started(run, things)
    things += [g, g.gr_frame]
    return [g]


@case("`f_locals` of its frame")
def frame_locals(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        me = getcurrent()
        suspend()
        return things, me

    things = [canary]
    g = started(run, things)
    assert g.gr_frame is not None
    things += [g.gr_frame.f_locals, g.gr_frame.f_back]
    return [g]


# --- callbacks and threads --------------------------------------------------------------------


@case("the trace callback")
def trace_callback(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        suspend()
        return things

    things: list[Any] = [canary]
    g = greenlet(run)

    def callback(event: str, args: Any) -> None:
        things.append((g, args))

    settrace(callback)
    try:
        g.switch([callback])
    finally:
        settrace(None)
    return [g]


@case("a weak reference's callback")
def weak_reference_callback(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    def run(things: list[Any]) -> Any:
        suspend()
        return things

    watched = Holder()
    things: list[Any] = [canary, watched]
    g = started(run, things)
    things.append(weakref.ref(watched, lambda _, held=(g, canary): None))  # type: ignore[misc]
    return [g]


@case("a thread's main greenlet")
def main_greenlet_of_a_thread(canary: Any, suspend: Suspend) -> Sequence[greenlet]:
    """The thread ends; its main greenlet lives on in a cycle with the greenlet of this thread."""
    mains: list[Any] = []
    thread = threading.Thread(target=lambda: mains.append(getcurrent()))
    thread.start()
    thread.join()
    g: Any = started(suspend_in(suspend))
    [main] = mains
    main.held = [g, canary]
    g.main = main
    return [g]


# --- the table --------------------------------------------------------------------------------


WORDS = {"": "no", "switch": "if by `switch`", "python": "if by a function"}


def table() -> str:
    """All cases as docs/internals/garbage-collection.md shows them."""
    reasons = [HIDDEN_STACK, HIDDEN_OWN]
    lines = [f"| held by | {' | '.join(VERSIONS)} |", "| --- |" + " --- |" * len(VERSIONS)]
    for each in sorted(CASES, key=lambda case: case.is_beyond_reach()):
        cells = []
        for version in VERSIONS:
            hidden = each.hidden.get(version)
            if hidden is None:
                cells.append("yes")
                continue
            note = f"({reasons.index(hidden.reason) + 1})"
            rest = [way for way in each.leaves_by if way not in hidden.leaves_by]
            cells.append(WORDS["".join(rest)] + " " + note)
        lines.append(f"| {each.name} | {' | '.join(cells)} |")
    lines.append("")
    lines += [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
