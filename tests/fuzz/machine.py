"""Runs programs: lists of operations, each of which whoever runs at that moment takes and performs.

A program has no scripts of single greenlets. There is one list, and the greenlet that runs takes
the next operation from it: to switch, to call something that takes operations in turn, to return
from there. So every part of a list is a program, too, and it can be shrunk by leaving operations
out. The history is what they tell; it is the same with every greenlet that does what it should.

What is not specified is left out of programs or of the history, and a comment says so.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import gc
import operator
import re
import sys
import sysconfig
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
SLOTS = 6
SHARED = 3
WORLDS = 3
Operation = tuple[Any, ...]
Machine = Any


class Thrown(Exception):
    pass


class Unmakable(Exception):
    """Its constructor fails, in C: the frame of one in Python would lead to all that called it.

    The error has that frame in its traceback, but not in the model, which has frames in between.
    """

    __init__ = None


class Library:
    """What a program needs of a greenlet: the real one's part."""

    def __init__(self, module: Any, contexts: Any) -> None:
        self.greenlet, self.getcurrent = module.greenlet, module.getcurrent
        self.settrace, self.gettrace = module.settrace, module.gettrace
        self.GreenletExit, self.error = module.GreenletExit, module.error
        self.Context, self.ContextVar = contexts.Context, contexts.ContextVar
        self.copy_context = contexts.copy_context
        self.Quiet = type("Quiet", (module.GreenletExit,), {})
        self.classes = make_classes(self)
        #: Gives back memory of stacks; ours alone has it.
        self.trim = getattr(getattr(module, "stacks", None), "trim", lambda: None)

    def set_python_trace(self, function: Any) -> None:
        sys.settrace(function)

    def collect(self, machine: Machine) -> None:
        for _ in range(3):
            gc.collect()

    def end_thread(self) -> None:
        pass

    def left(self, machine: Machine) -> list[Any]:
        """The suspended greenlets of this thread."""
        return [g for ref in machine.family if (g := ref()) is not None and g]

    def frames(self, g: Any) -> list[types.FrameType]:
        found, frame = [], g.gr_frame
        while frame is not None:
            found.append(frame)
            frame = frame.f_back
        return found

    def close(self, machine: Machine) -> None:
        end_all(machine)
        machine.forget()
        gc.collect()


class ModelLibrary(Library):
    def __init__(self, module: Any) -> None:
        super().__init__(module, module)
        self.module = module

    def set_python_trace(self, function: Any) -> None:
        self.module.set_python_trace(function)

    def collect(self, machine: Machine) -> None:
        self.module.collect([machine])

    def end_thread(self) -> None:
        self.module.end_thread()

    def left(self, machine: Machine) -> list[Any]:
        return self.module.suspended()  # type: ignore[no-any-return]

    def frames(self, g: Any) -> list[types.FrameType]:
        return g.frames() if g is not self.getcurrent() else []

    def close(self, machine: Machine) -> None:
        machine.forget()
        self.module.abandon()


# --- greenlets


def make_classes(library: Library) -> list[Any]:
    base: Any = library.greenlet

    class Method(base):  # type: ignore[misc]
        """Its run is a method."""

        def run(self, *args: Any, **kwargs: Any) -> Any:
            return self.m.body(*args, **kwargs)

    class Lookup(base):  # type: ignore[misc]
        """Looking up its run takes operations."""

        @property
        def run(self) -> Any:
            return look_up(self)

    class Attribute(base):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if name == "run":
                return look_up(self)
            return super().__getattribute__(name)

    class Deleted(base):  # type: ignore[misc]
        """Takes an operation when it is finalized."""

        def __del__(self) -> None:
            m = self.m
            if m.quiet:
                return  # when a collection calls this, and in which thread, is not specified
            m.tell("del", self.name, bool(self), self.dead)
            del self  # the traceback of an exception thrown into this would keep it
            if m.deep() and m.finalizers_act:
                perform(m, 1)

    class Moving(base):  # type: ignore[misc]
        """Changes its parent when it is finalized."""

        def __del__(self) -> None:
            m = self.m
            if not m.quiet:
                set_parent(m, self, m.choose(self.name % SLOTS))

    class Slotted(base):  # type: ignore[misc]
        __slots__ = ("one", "two")

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.one = self.two = 1

    class Hiding(base):  # type: ignore[misc]
        """Its own switch and throw are not used by ends and deaths."""

        def switch(self, *args: Any, **kwargs: Any) -> Any:
            self.m.tell("own switch", self.name)
            return base.switch(self, *args, **kwargs)

        def throw(self, *args: Any) -> Any:
            self.m.tell("own throw", self.name)
            return base.throw(self, *args)

    return [base, base, base, Method, Lookup, Attribute, Deleted, Moving, Slotted, Hiding]


def look_up(g: Any) -> Any:
    m = g.m
    m.tell("lookup", g.name, state(m.library.getcurrent()))
    # If a greenlet is used during its own lookup, the published one may answer "Greenlet.switch()
    # returned NULL without an exception set". (The collector cannot look into a lookup.)
    if m.deep() and m.lookups_act:
        outer, g.looking = g.looking, True
        try:
            perform(m, 2)
        finally:
            g.looking = outer
    return m.body


class Token:
    """Tells when the last reference to it goes."""

    def __init__(self, m: Machine, number: int) -> None:
        self.m, self.number = m, number

    def __del__(self) -> None:
        self.m.tell("token gone", self.number)


class World:
    """A thread of the program. Only the one that has the baton runs."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.baton = threading.Lock()
        self.baton.acquire()
        self.ending = self.over = self.called_back = False
        self.dying: set[Any] = set()
        self.thread: threading.Thread | None = None
        self.ident = 0  # its thread tells, when it runs


class _Machine:
    """One run of one program."""

    def __init__(self, library: Library, program: list[Operation]) -> None:
        self.library, self.program = library, program
        self.position = 0
        self.log: list[Any] = []
        self.hushed: list[Any] = []
        self.quiet = 0
        self.over = False
        self.slots: list[Any] = [None] * SLOTS
        self.shared: list[Any] = [None] * (3 * SHARED)
        self.contexts: list[Any] = []
        self.tokens: list[Any] = []
        self.variable = library.ContextVar("variable")
        self.family: list[Any] = []
        self.worlds = [World(0)]
        self.world = self.worlds[0]
        self.lookups_act = not {("simple",), ("collect",)} & set(program)
        # The collector cannot look into a deallocation that is under way.
        self.finalizers_act = ("collect",) not in program
        self.names = self.numbers = self.marking = 0
        self.body = make_body(self)

    def take(self) -> Operation | None:
        if self.position >= len(self.program):
            return None
        operation = self.program[self.position]
        self.position += 1
        return operation

    def who(self) -> Any:
        # A thread that is ending may have made another main greenlet, which has no name.
        return getattr(self.library.getcurrent(), "name", "?")

    def has_no_baton(self) -> bool:
        """Whether a thread finalizes what others dropped, while another one has the baton."""
        return FREE_THREADED and threading.get_ident() != self.world.ident

    def tell(self, *what: Any) -> None:
        if self.has_no_baton():
            return
        if self.quiet:
            self.hushed.append(what)
        elif not self.over:
            self.log.append((self.who(), *what))

    @contextlib.contextmanager
    def hush(self) -> Iterator[None]:
        """In here nobody takes operations, and the order in which things are told is left open."""
        self.quiet += 1
        try:
            yield
        finally:
            self.quiet -= 1
            self.unhush()

    def unhush(self) -> None:
        if not self.quiet and self.hushed:
            said, self.hushed = sorted(map(repr, self.hushed)), []
            self.tell("in any order", said)

    def deep(self) -> bool:
        """Whether a lookup or a finalizer may take operations."""
        if self.quiet or self.world.ending:
            return False
        # A greenlet that has ended looks up its parent's run, and lets go of things. If it switches
        # there, the published one loses it: who comes back to it comes to its parent.
        return ("simple",) not in self.program or not self.library.getcurrent().dead

    def choose(self, index: int) -> Any:
        if index < 0:
            me = self.library.getcurrent()
            return me if index == -1 or me.parent is None else me.parent
        for ahead in range(SLOTS):
            if (g := self.slots[(index + ahead) % SLOTS]) is not None:
                return g
        return None

    def told(self, value: Any) -> Any:
        if value is None or isinstance(value, int | str):
            return value
        if isinstance(value, tuple | list):
            return tuple(map(self.told, value))
        if isinstance(value, dict):
            return tuple((key, self.told(one)) for key, one in value.items())
        if isinstance(value, Token):
            return "token", value.number
        if isinstance(value, self.library.greenlet):
            return "greenlet", value.name
        if isinstance(value, BaseException):
            return self.kind(value)
        return "callable" if callable(value) else type(value).__name__

    def kind(self, failure: BaseException | None) -> Any:
        if isinstance(failure, self.library.GreenletExit):
            # From a collection it is a SystemExit, too.
            return ("GreenletExit", () if self.quiet else self.told(failure.args))
        name = type(failure).__name__
        if isinstance(failure, TypeError | RecursionError):
            return name  # their texts are CPython's, and tell the names of our functions
        text = str(failure).split("\n")[0]
        if "was created in a different" in text:
            text = "created in a different context"
        elif "cannot enter context" in text or "token" in text.lower():
            text = text[:20]
        return (name, text)

    def failure(self, failure: BaseException) -> Any:
        if "vanished" in str(failure) and not self.quiet and not self.library.getcurrent().dead:
            self.world.dying.add(self.who())
        context = None if self.quiet else failure.__context__
        return self.kind(failure), context and self.kind(context)

    def forget(self) -> None:
        """Drop all that the program's variables hold."""
        self.slots, self.shared = [None] * SLOTS, [None] * (3 * SHARED)
        self.contexts, self.tokens = [], []


def make_body(m: Machine) -> Callable[..., Any]:
    def body(*args: Any, **kwargs: Any) -> Any:
        m.library.getcurrent().world = m.world
        m.tell("started", m.told(args), m.told(kwargs))
        try:
            return perform(m)
        except BaseException as failure:
            m.tell("ends by", m.failure(failure))
            raise
        finally:
            m.tell("ending")
            for world in m.worlds:
                world.dying.discard(m.who())

    return body


def perform(m: Machine, budget: int = 1 << 30) -> Any:
    """Take operations until one says to return, or so many."""
    kept: list[Any] = []
    while budget and not m.quiet and not m.world.ending and not m.has_no_baton():
        budget -= 1
        operation = m.take()
        if operation is None:
            return "exhausted"
        name = operation[0]
        if name == "return":
            return payload(m, operation[1])
        if name == "raise":
            raise exception(m, operation[1])
        if name == "keep":
            kept.append(m.choose(operation[1]))
        elif name == "unkeep":
            kept.clear()
        else:
            OPERATIONS[name](m, operation)
    return None


def exception(m: Machine, index: int) -> BaseException:
    kinds = (Thrown, m.library.GreenletExit, KeyboardInterrupt, StopIteration, KeyError)
    made: BaseException = kinds[index % 5](index)
    return made


def payload(m: Machine, index: int) -> Any:
    if index < 8:
        return index
    if index == 8:
        return None
    if index == 9:
        return ()
    if index == 10:
        return (1, 2)
    if index == 11:
        return {"one": 1}
    if index == 12:
        return m.library.getcurrent()
    if index == 13:
        return m.library.GreenletExit("sent")
    if index == 14:
        return Thrown("sent")
    m.numbers += 1
    return Token(m, m.numbers)


OPERATIONS: dict[str, Callable[[Machine, Operation], None]] = {}


def operation(
    function: Callable[[Machine, Operation], None],
) -> Callable[[Machine, Operation], None]:
    OPERATIONS[function.__name__] = function
    return function


# --- operations on greenlets

SWITCHES: list[Callable[[Any, Any, Any], Any]] = [
    lambda g, x, y: g.switch(),
    lambda g, x, y: g.switch(x),
    lambda g, x, y: g.switch(x),
    lambda g, x, y: g.switch(x, y),
    lambda g, x, y: g.switch(one=x),
    lambda g, x, y: g.switch(x, two=y),
    lambda g, x, y: g.switch((x,)),
    lambda g, x, y: type(g).switch(g, x),
    # The rest holds the greenlet in C code, which only some versions can look into: not for
    # programs that leave greenlets to the collector.
    lambda g, x, y: g.switch(*(x, y)),
    lambda g, x, y: g.switch(**dict(one=x, two=y)),  # noqa: C408
    lambda g, x, y: next(map(g.switch, [x])),
    lambda g, x, y: functools.partial(g.switch, x)(),
    lambda g, x, y: operator.methodcaller("switch", x)(g),
    lambda g, x, y: sorted([x], key=g.switch) and None,
]
EXACT_SWITCHES = 8


@operation
def switch(m: Machine, operation: Operation) -> None:
    _, index, shape, first, second, catch = operation
    g = m.choose(index)
    if g is None:
        return
    if g.dead and ("simple",) in m.program:
        first = 0  # the published one keeps what no ancestor takes (docs/internals/ledger.md)
    try:
        value = SWITCHES[shape](g, payload(m, first), payload(m, second))
    except BaseException as failure:
        m.tell("raised", m.failure(failure))
        if not catch or m.quiet:
            raise
    else:
        m.tell("received", m.told(value))


def a_traceback() -> types.TracebackType | None:
    try:
        raise Thrown
    except Thrown as failure:
        return failure.__traceback__


THROWS: list[Callable[[Machine], tuple[Any, ...]]] = [
    lambda m: (),
    lambda m: (Thrown,),
    lambda m: (Thrown, 5),
    lambda m: (Thrown(5),),
    lambda m: (Thrown, (1, 2)),
    lambda m: (Thrown, Thrown("instance")),
    lambda m: (m.library.GreenletExit, 7),
    lambda m: (m.library.GreenletExit(8),),
    lambda m: (m.library.Quiet,),
    lambda m: (KeyboardInterrupt,),
    lambda m: (StopIteration, 3),
    lambda m: (Unmakable,),
    lambda m: (Thrown, None, a_traceback()),
    lambda m: (Thrown("with"), None, a_traceback()),
    # These are refused.
    lambda m: (5,),
    lambda m: (Thrown(1), 2),
    lambda m: (Thrown, None, 5),
    lambda m: (int,),
]
WRONG_THROWS = 14


@operation
def throw(m: Machine, operation: Operation) -> None:
    _, index, form, catch = operation
    g = m.choose(index)
    if g is None:
        return
    if form >= WRONG_THROWS and g.world is not m.world:
        form = 1  # which check comes first is not the same everywhere (docs/internals/ledger.md)
    try:
        match THROWS[form](m):
            case ():
                value = g.throw()
            case (one,):
                value = g.throw(one)
            case (one, two):
                value = g.throw(one, two)
            case (one, two, three):
                value = g.throw(one, two, three)
    except BaseException as failure:
        m.tell("raised", m.failure(failure))
        if not catch or m.quiet:
            raise
    else:
        m.tell("received", m.told(value))
    finally:
        one = two = three = None


class Made:
    """Called, it is an object whose constructor takes operations."""

    def __init__(self, m: Machine) -> None:
        m.tell("made", m.told(perform(m)))


class Holder:
    def __init__(self, m: Machine) -> None:
        self.m = m

    def method(self, *args: Any, **kwargs: Any) -> Any:
        return self.m.body(*args, **kwargs)


@operation
def create(m: Machine, operation: Operation) -> None:
    _, slot, cls, parent, kind = operation
    m.slots[slot] = None
    kinds = m.library.classes
    cls = kinds[cls % len(kinds)]
    run: Any = m.body
    if kind == 1:
        run = None
    elif kind == 2:
        run = 5
    elif kind == 3:
        run = tuple
    elif kind == 4:
        run = getattr(m.choose(parent or 0), "switch", None)
    elif kind == 5:
        run = functools.partial(Made, m)
    elif kind == 6:
        run = Holder(m).method
    elif kind == 7:
        run = functools.partial(m.body, 0, zero=0)
    above = None if parent is None else m.choose(parent)
    try:
        g = cls(run, above) if above is not None else cls(run)
    except BaseException as failure:
        m.tell("not created", m.failure(failure))
        return
    g.m, g.name, g.age = m, m.names, m.names
    g.world = getattr(g.parent, "world", m.world)  # m.world may be another, while a thread ends
    g.has_children = g.looking = False
    if above is not None:
        above.has_children = True
    m.names += 1
    m.family.append(weakref.ref(g))
    m.slots[slot] = g


def set_parent(m: Machine, g: Any, parent: Any) -> None:
    if g.world.over or any(world.dying for world in m.worlds):
        return  # while a greenlet is ended: the published one gives it its former parent back
    new = not g and not g.dead
    if parent is not None and parent.world is not g.world and new and (g.has_children or g.looking):
        # A greenlet that ends, and whose unstarted parent has gone to another thread, has nobody
        # to go to: the published one ends the process.
        return
    try:
        g.parent = parent
    except (ValueError, AttributeError) as failure:
        m.tell("parent refused", m.kind(failure))
    except TypeError:
        m.tell("parent refused")
    else:
        parent.has_children = True
        if new:
            g.world = parent.world
        m.tell("parent set", m.told(g), m.told(parent))


@operation
def reparent(m: Machine, operation: Operation) -> None:
    g = m.choose(operation[1])
    if g is not None:
        set_parent(m, g, m.choose(operation[2]))


@operation
def drop(m: Machine, operation: Operation) -> None:
    if m.slots[operation[1]] is not None:
        m.tell("drop", m.slots[operation[1]].name)
        m.slots[operation[1]] = None


@operation
def store(m: Machine, operation: Operation) -> None:
    m.slots[operation[1]] = None
    m.slots[operation[1]] = m.library.getcurrent()


@operation
def copy_slot(m: Machine, operation: Operation) -> None:
    m.slots[operation[1]] = m.choose(operation[2])


@operation
def cycle(m: Machine, operation: Operation) -> None:
    """A greenlet that only itself refers to."""
    g = m.slots[operation[1]]
    if g is not None and g.parent is not None:
        g.cycle = [g]
        m.slots[operation[1]] = None


@operation
def collect(m: Machine, operation: Operation) -> None:
    with m.hush():  # the order of finalizers in a collection is not specified
        m.library.collect(m)


def state(g: Any) -> str:
    # Whether the main greenlet of a thread that has ended is true is left out.
    return "dead" if g.dead else "active" if g else "new"


@operation
def look(m: Machine, operation: Operation) -> None:
    m.tell(
        "looks",
        [
            g is not None and (g.name, state(g), g.parent is not None and g.parent.name)
            for g in (*m.slots, m.library.getcurrent())
        ],
        m.kind(handled) if (handled := sys.exception()) is not None else None,
        "run" in dir(m.library.getcurrent()),
    )


@operation
def frames(m: Machine, operation: Operation) -> None:
    g = m.choose(operation[1])
    if g is not None and g.world is m.world:
        names = [f.f_code.co_name for f in m.library.frames(g) if f.f_code.co_filename == __file__]
        if g.parent is not None or g is m.library.getcurrent():
            m.tell("frames", names)


@operation
def change_run(m: Machine, operation: Operation) -> None:
    _, index, what = operation
    g = m.choose(index)
    if g is None:
        return
    try:
        if what == 0:
            g.run = m.body
        elif what == 1:
            del g.run
        else:
            m.tell("run", m.told(g.run))
    except AttributeError as failure:
        m.tell("run refused", "set" not in str(failure) and m.kind(failure))


@operation
def init(m: Machine, operation: Operation) -> None:
    """Initialize a greenlet once more."""
    g = m.choose(operation[1])
    if g is None:
        return
    try:
        m.library.greenlet.__init__(g, *(m.body,)[: operation[2]])
    except AttributeError as failure:
        m.tell("not initialized", m.kind(failure))


@operation
def trim(m: Machine, operation: Operation) -> None:
    m.library.trim()


# --- calls that take operations


def recursion(m: Machine, depth: int = 5) -> Any:
    # Not deeper: in a finalizer, CPython up to 3.12 puts off what goes away fifty levels deep, as a
    # traceback of many frames does. In the model such a traceback has more of them.
    return recursion(m, depth - 1) if depth else perform(m)


class Acting:
    """Its special methods take operations."""

    def __init__(self, m: Machine) -> None:
        self.m = m

    def __eq__(self, other: object) -> bool:
        perform(self.m)
        return False

    def __hash__(self) -> int:
        perform(self.m)
        return 1

    def __add__(self, other: object) -> Any:
        return perform(self.m)

    def __bool__(self) -> bool:
        return perform(self.m) is not None

    def __lt__(self, other: object) -> bool:
        perform(self.m)
        return True

    def __contains__(self, other: object) -> bool:
        return perform(self.m) is not None

    def __getitem__(self, index: int) -> Any:
        return perform(self.m)

    def __len__(self) -> int:
        perform(self.m)
        return 3

    def __format__(self, form: str) -> str:
        perform(self.m)
        return "formatted"

    def __repr__(self) -> str:
        perform(self.m)
        return "told"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return perform(self.m)

    def __call__(self, *args: Any) -> Any:
        return perform(self.m)

    def __enter__(self) -> Any:
        return perform(self.m)

    def __exit__(self, *args: object) -> bool:
        return bool(perform(self.m) == 1)

    def __iter__(self) -> Any:
        perform(self.m)
        return iter((1, 2))

    def __copy__(self) -> Any:
        return perform(self.m)

    def __set_name__(self, owner: type, name: str) -> None:
        perform(self.m)

    def __index__(self) -> int:
        perform(self.m)
        return 1

    @property
    def acts(self) -> Any:
        return perform(self.m)

    @(functools.cached_property if sys.version_info >= (3, 12) else property)  # type: ignore[untyped-decorator] # 3.11 takes a lock
    def cached(self) -> Any:
        return perform(self.m)


class ActsWhenDeleted:
    def __init__(self, m: Machine) -> None:
        self.m = m

    def __del__(self) -> None:
        perform(self.m, 3)


def numbers(m: Machine, count: int) -> Iterator[Any]:
    for _ in range(count):
        yield perform(m)


def delegating(m: Machine) -> Iterator[Any]:
    return (yield from numbers(m, 1))


class Step:
    def __init__(self, m: Machine) -> None:
        self.m = m

    def __await__(self) -> Any:
        return (yield perform(self.m))


async def coroutine(m: Machine, count: int = 1) -> Any:
    value = None
    for _ in range(count):
        value = await Step(m)
        m.tell("coroutine got", m.told(value))
    return value


async def numbers_async(m: Machine) -> Any:
    for _ in range(2):
        yield perform(m)


async def consuming(m: Machine) -> Any:
    return [value async for value in numbers_async(m)]


def driven(made: Any) -> Any:
    try:
        made.send(None)
    except StopIteration as stop:
        return stop.value
    made.close()


def handling(m: Machine) -> Any:
    try:
        raise Thrown("handled")
    except Thrown:
        value = perform(m)
        handled = sys.exception()
        m.tell("handles", handled and m.kind(handled))
        del handled
        return value


def finally_(m: Machine) -> Any:
    try:
        return perform(m)
    finally:
        perform(m)


def grouped(m: Machine) -> Any:
    value = None
    try:
        try:
            raise ExceptionGroup("group", [Thrown("one"), KeyError("two")])
        except* Thrown:
            perform(m)
    except* KeyError:
        value = perform(m)
    return value


@contextlib.contextmanager
def managed(m: Machine) -> Iterator[Any]:
    try:
        yield perform(m)
    finally:
        perform(m)


def with_managed(m: Machine) -> Any:
    with managed(m) as value:
        perform(m)
    return value


def with_acting(m: Machine) -> Any:
    with Acting(m) as value:
        perform(m)
    return value


def class_body(m: Machine) -> Any:
    class Made:
        value = perform(m)
        named = Acting(m)

    return Made.value


def in_exec(m: Machine) -> Any:
    space = {"perform": perform, "m": m}
    exec("value = perform(m)", space)
    return space.pop("value")


def weak_callback(m: Machine) -> None:
    target = World(9)
    reference = weakref.ref(target, lambda _: perform(m, 3) and None)
    del target
    del reference


def deleting(m: Machine) -> None:
    ActsWhenDeleted(m)


def comprehension(m: Machine) -> Any:
    return [value for _ in range(2) if (value := perform(m)) is not None]


def matched(m: Machine) -> Any:
    match Acting(m):
        case Acting(acts=1):
            return 1
        case _:
            return perform(m)


def with_lock(m: Machine) -> Any:
    with threading.Lock():
        return perform(m)


def without_value(m: Machine) -> None:
    perform(m)  # 3.11 leaks the value if a context cannot be left


def in_context(m: Machine) -> Any:
    return m.library.copy_context().run(without_value, m)


def in_given_context(m: Machine) -> Any:
    if not m.contexts:
        m.contexts.append(m.library.Context())
    return m.contexts[-1].run(without_value, m)


def marked(m: Machine) -> Any:
    first = 1
    first = perform(m, 3)
    for _ in range(2):
        second = first
    perform(m, 2)
    return second


def with_events(m: Machine) -> Any:
    m.marking += 1
    try:
        return marked(m)
    finally:
        m.marking -= 1


def in_tuple(m: Machine) -> Any:
    return tuple(numbers(m, 2))


def in_list(m: Machine) -> Any:
    return list(perform(m) for _ in range(2))  # noqa: C400


def in_generator(m: Machine) -> Any:
    made = numbers(m, 2)
    next(made)
    return next(made)


CALLS: list[Callable[[Machine], Any]] = [
    recursion,
    perform,
    lambda m: sorted([2, 1], key=lambda x: (perform(m), x)[1]),
    lambda m: list(map(lambda _: perform(m), [1, 2])),  # noqa: C417
    lambda m: functools.reduce(lambda a, b: perform(m), [1, 2, 3]),
    lambda m: re.sub("a", lambda _: "b" if perform(m) else "c", "aa"),
    lambda m: min([1, 2], key=lambda x: (perform(m), x)[1]),
    lambda m: Acting(m).acts,
    lambda m: Acting(m).other,
    lambda m: Acting(m).cached,
    lambda m: Acting(m) + 1,
    lambda m: [Acting(m)].index(Acting(m)),
    lambda m: {Acting(m): 1} and 1,
    lambda m: not Acting(m),
    lambda m: max([Acting(m), Acting(m)]) and 1,
    lambda m: 1 in Acting(m),
    lambda m: Acting(m)[1],
    lambda m: len(Acting(m)),
    lambda m: f"{Acting(m)} {Acting(m)!r}",
    lambda m: Acting(m)(),
    lambda m: tuple(Acting(m)),
    lambda m: [*Acting(m)],
    lambda m: copy.copy(Acting(m)),
    lambda m: [1, 2, 3][Acting(m)],
    lambda m: functools.partial(perform, m)(),
    lambda m: operator.methodcaller("acting", m)(types.SimpleNamespace(acting=perform)),
    lambda m: functools.lru_cache(perform)(m),
    in_tuple,
    in_list,
    lambda m: next(delegating(m)),
    in_generator,
    lambda m: driven(coroutine(m)),
    lambda m: driven(consuming(m)),
    handling,
    handling,
    finally_,
    grouped,
    with_managed,
    with_acting,
    class_body,
    in_exec,
    weak_callback,
    deleting,
    comprehension,
    matched,
    with_lock,
    in_context,
    in_given_context,
    with_events,
    with_events,
]


#: Not for programs that leave greenlets to the collector: the traceback of what was raised leads to
#: greenlets, and these hold it among the operands of a frame, where the model does not look.
INEXACT_CALLS = (finally_, grouped)


@operation
def call(m: Machine, operation: Operation) -> None:
    _, index, catch = operation
    m.tell("calls", index)
    try:
        value = CALLS[index](m)
    except BaseException as failure:
        m.tell("call raised", index, m.failure(failure))
        if not catch or m.quiet:
            raise
    else:
        m.tell("call returned", index, m.told(value))


# --- generators, coroutines and asynchronous generators that greenlets share


def shared_generator(m: Machine, number: int) -> Iterator[Any]:
    try:
        while True:
            received = yield perform(m)
            m.tell("generator got", number, m.told(received))
    except BaseException as failure:
        m.tell("generator ends by", number, m.failure(failure))
        raise
    finally:
        m.tell("generator ends", number)


async def shared_async_generator(m: Machine, number: int) -> Any:
    try:
        while True:
            received = yield await Step(m)
            m.tell("generator got", number, m.told(received))
    finally:
        m.tell("generator ends", number)


@operation
def make(m: Machine, operation: Operation) -> None:
    _, index = operation
    m.shared[index] = None
    m.numbers += 1
    if index < SHARED:
        m.shared[index] = shared_generator(m, m.numbers)
    elif index < 2 * SHARED:
        m.shared[index] = coroutine(m, 3)
    else:
        m.shared[index] = shared_async_generator(m, m.numbers)


@operation
def use(m: Machine, operation: Operation) -> None:
    _, index, how, catch = operation
    made = m.shared[index]
    if made is None:
        return
    try:
        if index >= 2 * SHARED:
            into = Thrown("into")
            made = (made.asend(None), made.asend(7), made.athrow(into), made.aclose())[how]
        if how == 0 or index >= 2 * SHARED:
            value = made.send(None)
        elif how == 1:
            value = made.send(7)
        elif how == 2:
            value = made.throw(Thrown("into"))
        else:
            value = made.close()
    except BaseException as failure:
        m.tell("use raised", index, m.failure(failure))
        if not catch or m.quiet:
            raise
    else:
        m.tell("use gave", index, m.told(value))


@operation
def discard(m: Machine, operation: Operation) -> None:
    m.tell("discards", operation[1])
    m.shared[operation[1]] = None


# --- context variables


@operation
def set_variable(m: Machine, operation: Operation) -> None:
    m.tokens.append(m.variable.set(operation[1]))


@operation
def get_variable(m: Machine, operation: Operation) -> None:
    m.tell("variable", m.variable.get(None))


@operation
def reset_variable(m: Machine, operation: Operation) -> None:
    if m.tokens:
        try:
            m.variable.reset(m.tokens.pop(operation[1] % len(m.tokens)))
        except (ValueError, RuntimeError) as failure:
            m.tell("variable not reset", m.kind(failure))


@operation
def give_context(m: Machine, operation: Operation) -> None:
    _, index, kind = operation
    g = m.choose(index)
    if g is None or g.world is not m.world or g.parent is None:
        return  # a thread runs in a context of its own, and leaves it when it ends
    if kind == 0:
        g.gr_context = None
    elif kind == 1:
        g.gr_context = m.library.copy_context()
    else:
        if not m.contexts:
            m.contexts.append(m.library.Context())
        g.gr_context = m.contexts[-1]
    m.tell("context", g.gr_context is not None)


# --- tracing


def make_callback(m: Machine, kind: int) -> Any:
    def callback(event: str, pair: tuple[Any, Any]) -> None:
        # It keeps the pair to its end: when its caller lets go of it is not specified.
        if m.quiet:
            return
        m.tell("event", event, pair[0].name, pair[1].name)
        world, mark = m.world, object()
        if event == "throw":
            world.dying.add(mark)  # perhaps by what ends a greenlet: see set_parent()
        try:
            if kind == 2:
                perform(m, 1)
            elif kind == 3:
                raise Thrown("callback")
            elif kind == 4:
                m.library.settrace(None)
            elif kind == 5:
                m.library.settrace(make_callback(m, 1))
            elif kind == 6:
                raise m.library.GreenletExit("callback")
            elif kind == 7:
                reparent(m, ("reparent", 0, -1))
        except BaseException:
            if event == "throw" and pair[1].parent is not None:
                world.dying.add(m.who())  # what this raises takes the place of what ends it
            raise
        finally:
            world.dying.discard(mark)

    return None if kind == 0 else callback


@operation
def trace(m: Machine, operation: Operation) -> None:
    m.tell("traced", m.library.settrace(make_callback(m, operation[1])) is not None)


@contextlib.contextmanager
def called_back(m: Machine) -> Iterator[bool]:
    """Say whether this is the only callback of sys.settrace or sys.monitoring in the thread.

    While one has left for another greenlet, the whole thread has no events. The model, with its
    threads, has to be told.
    """
    world = m.world
    if world.called_back:
        yield False
        return
    world.called_back = True
    try:
        yield True
    finally:
        world.called_back = False


def make_python_callback(m: Machine, kind: int) -> Any:
    def callback(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code is not marked.__code__:
            return None
        with called_back(m) as first:
            if not first:
                return None
            m.tell("python", event, frame.f_lineno - marked.__code__.co_firstlineno)
            if kind == 2 and event == "line" and not m.quiet:
                perform(m, 1)
        return callback

    return None if kind == 0 else callback


def events_are_left_out(m: Machine) -> bool:
    # From 3.12 to 3.14 CPython instruments the frames that threads are in at that moment. Those of
    # suspended greenlets go on without events.
    return m.marking > 0 and (3, 12) <= sys.version_info < (3, 15)


@operation
def python_trace(m: Machine, operation: Operation) -> None:
    if events_are_left_out(m):
        return
    m.library.set_python_trace(make_python_callback(m, operation[1]))


TOOL = 4


@operation
def monitor(m: Machine, operation: Operation) -> None:
    """Events of `marked`, and of no other function."""
    if sys.version_info < (3, 12) or events_are_left_out(m):
        return
    monitoring = sys.monitoring
    kind = operation[1]
    events = monitoring.events
    if monitoring.get_tool(TOOL) is None:
        monitoring.use_tool_id(TOOL, "fuzz")

    def callback(event: str) -> Any:
        def tell(code: Any, *args: Any) -> None:
            with called_back(m) as first:
                if first:
                    m.tell("monitored", event)
                    if kind == 2 and not m.quiet:
                        perform(m, 1)

        return tell

    for name in ("PY_START", "PY_RETURN", "LINE", "JUMP"):
        event = getattr(events, name)
        monitoring.register_callback(TOOL, event, callback(name) if kind else None)
    wanted = events.PY_START | events.PY_RETURN | events.LINE | events.JUMP
    monitoring.set_local_events(TOOL, marked.__code__, wanted if kind else 0)


def unmonitor() -> None:
    if sys.version_info >= (3, 12) and sys.monitoring.get_tool(TOOL) is not None:
        sys.monitoring.set_local_events(TOOL, marked.__code__, 0)
        sys.monitoring.free_tool_id(TOOL)


# --- threads


def go_to(m: Machine, target: World) -> None:
    """Let another thread of the program run, until one comes back to this."""
    here = m.world
    m.world = target
    m.quiet += 1  # until arrive()
    target.baton.release()
    here.baton.acquire()
    arrive(m)


def arrive(m: Machine) -> None:
    for world in m.worlds:
        if world.over and world.thread is not None:
            world.thread.join()  # what ends with it tells so
            world.thread = None
            m.quiet -= 1
    # In what order those end that others dropped is not specified.
    m.library.getcurrent()
    m.quiet -= 1
    m.unhush()


@operation
def start_thread(m: Machine, operation: Operation) -> None:
    if sum(not world.over for world in m.worlds) >= WORLDS or m.world.dying:
        return  # see go_to_thread()
    world = World(len(m.worlds))
    m.worlds.append(world)
    # Free-threaded builds would let it begin with the variables of this one.
    context: Any = {"context": contextvars.Context()} if sys.version_info >= (3, 14) else {}
    world.thread = threading.Thread(target=live, args=(m, world), **context)
    m.tell("starts a thread", world.index)
    here, m.world = m.world, world
    world.thread.start()
    here.baton.acquire()
    arrive(m)


def live(m: Machine, world: World) -> None:
    main(m, f"main {world.index}")
    # Which greenlets end with their thread is told in docs/guides/threads.md, and the published one
    # leaves them; so all of them end before, except in programs that are about this.
    m.quiet += 1
    if ("leave",) not in m.program:
        end_all(m)
    m.library.settrace(None)
    m.library.end_thread()
    world.over = True
    m.world = m.worlds[0]
    m.quiet += 1  # until arrive()
    m.world.baton.release()


def end_all(m: Machine) -> None:
    for _ in range(5):
        for g in sorted(m.library.left(m), key=operator.attrgetter("age")):
            if g and g.world is m.world and g.parent is not None:
                with contextlib.suppress(BaseException):
                    g.parent = m.library.getcurrent()
                    m.library.greenlet.throw(g)


@operation
def go_to_thread(m: Machine, operation: Operation) -> None:
    others = [world for world in m.worlds if not world.over and world is not m.world]
    # If others drop a greenlet of this thread while another one is ending, the published one ends
    # it at the next question for getcurrent(), ours when that other one has ended.
    if others and not m.world.dying:
        m.tell("goes to another thread")
        go_to(m, others[operation[1] % len(others)])
        m.tell("is back")


@operation
def end_thread(m: Machine, operation: Operation) -> None:
    if m.world.index:
        m.world.ending = True


@operation
def simple(m: Machine, operation: Operation) -> None:
    """Says that the program is compared with the published greenlet, too."""


@operation
def leave(m: Machine, operation: Operation) -> None:
    """Says that threads end with suspended greenlets."""


def main(m: Machine, name: str) -> None:
    """What the main greenlet of a thread does."""
    m.world.ident = threading.get_ident()
    me = m.library.getcurrent()
    me.name, me.age, me.world, me.m = name, -1, m.world, m
    me.has_children = me.looking = False
    del me
    while m.position < len(m.program) and not m.world.ending and not m.quiet:
        try:
            perform(m)
        except BaseException as failure:
            m.tell("main caught", m.failure(failure))
    m.tell("main ends")


def run(library: Library, program: list[Operation]) -> tuple[list[Any], int]:
    """Run a program; return its history, and how many operations were performed."""
    m = _Machine(library, program)
    usual = sys.unraisablehook

    def unraisable(report: Any) -> None:
        m.tell("unraisable", m.kind(report.exc_value))
        # CPython's begins where it reports, with the frame of one that is being finalized, perhaps.
        report.exc_value.__traceback__ = None

    sys.unraisablehook = unraisable
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about coroutines that nobody awaited
            main(m, "main 0")
            for world in m.worlds[1:]:
                if not world.over:
                    go_to(m, world)
            look(m, ("look",))
            m.over = True
            library.settrace(None)
            library.set_python_trace(None)
            unmonitor()
            library.close(m)
    finally:
        sys.unraisablehook = usual
    return m.log, m.position
