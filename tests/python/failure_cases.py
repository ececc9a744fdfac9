"""What may run out of memory, for failures.py: operations on greenlets, one function each.

A case makes what it needs, lets memory fail during one call of `failing`, and then looks at what is
left: no greenlet is half made, and each can still be used.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import gc
import re
import sys
import threading
import types
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import greenlet as library
from child import Interpreter
from greenlet import (
    _greenlet,
    _hints as _hints,  # imported before memory fails
    getcurrent,
    gettrace,
    greenlet,
    inspect,
    settrace,
    stacks,
)


class Failed:
    """What `failing` returns in place of a result if the call raised MemoryError."""

    def __bool__(self) -> bool:
        return False


FAILED = Failed()
NEVER = 1 << 40  # the number of no allocation


#: The texts of CPython's own errors: see find_own_errors().
OWN: set[str] = set()


def text_of(error: BaseException) -> str:
    """The text of a SystemError without the name of a function."""
    return re.sub("^<.*> ", "", str(error))


class Failing:
    """Calls a function while memory fails, as tests/extensions/failures.c says."""

    def __init__(self, extension: Any, entries: Any, first: int, end: int) -> None:
        self.extension, self.entries = extension, entries
        self.first, self.end = first, end
        self.calls = 0
        #: What CPython raises without memory and without greenlets; None: not known.
        self.own: set[str] | None = OWN

    def __call__(
        self,
        function: Callable[..., Any],
        *args: Any,
        raises: tuple[type[BaseException], ...] = (),
        **kwargs: Any,
    ) -> Any:
        """The result, FAILED, or an exception that the call may raise."""
        self.calls += 1
        try:
            return self.extension.call(self.first, self.end, function, args, kwargs)
        except MemoryError:
            return FAILED
        except raises as error:
            return error.with_traceback(None)
        except SystemError as error:
            if self.own is not None and text_of(error) not in self.own:
                raise
            return error

    def arm(self) -> None:
        """Let memory fail in this thread until it ends, or until disarm()."""
        self.calls += 1
        self.extension.arm(self.first, self.end)

    def disarm(self) -> None:
        self.extension.disarm()

    def in_thread(self, function: Callable[[], object]) -> None:
        """Call the function in a thread that Python has not made."""
        raised: list[BaseException] = []

        def guarded() -> None:
            try:
                function()
            except BaseException as error:
                self.disarm()
                raised.append(error)

        self.extension.in_thread(guarded)
        if raised:
            raise raised[0]


Case = Callable[[Failing], None]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


# --- what runs in greenlets -----------------------------------------------------------------------


def identity(value: Any = None) -> Any:
    return value


def wait(*args: Any) -> Any:
    """Leave for the parent; return what comes."""
    return getcurrent().parent.switch(*args)  # type: ignore[union-attr]


def wait_for_ever(*_: Any) -> None:
    while True:
        wait()


def wait_and_raise() -> None:
    wait()
    raise KeyError


def wait_in_a_handler() -> Any:
    try:
        raise KeyError
    except KeyError:
        return wait()


def wait_in_finally() -> Any:
    try:
        return wait()
    finally:
        identity()


def deep(level: int, leaf: Callable[[], Any] = wait) -> Any:
    return deep(level - 1, leaf) if level else leaf()


def deep_in_c(level: int) -> Any:
    return next(map(deep_in_c, (level - 1,))) if level else wait()


def with_keywords(*args: Any, **kwargs: Any) -> Any:
    return kwargs["last"]


def keep_tracing(*_: Any) -> Any:
    return keep_tracing


class Callables:
    """Has no vectorcall."""

    def __call__(self, value: Any = None, last: Any = None) -> Any:
        return last if value is None else value


class Special(greenlet):
    __slots__ = ("slot",)

    def __init__(self, run: Any = None, parent: Any = None) -> None:
        super().__init__(run, parent)
        self.slot = run


class Defined(greenlet):
    def run(self, value: Any = None) -> Any:
        return value


main = getcurrent()
callables = Callables()
VALUE = object()
variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")


def suspended(run: Callable[..., Any] = wait, *args: Any) -> greenlet:
    g = greenlet(run)
    g.switch(*args)
    return g


def finished() -> greenlet:
    g = greenlet(identity)
    g.switch()
    return g


# --- what must hold afterwards --------------------------------------------------------------------


def check_suspended(g: greenlet) -> None:
    assert g and not g.dead, g
    assert g.gr_frame is not None
    assert g._stack_saved > 0


def check_dead(g: greenlet) -> None:
    assert g.dead and not g, g
    assert g.gr_frame is None
    if g.parent is getcurrent():
        assert g.switch(VALUE) is VALUE


def finish(*greenlets: greenlet) -> None:
    """Bring each to its end, whatever its state is."""
    for g in greenlets:
        assert f"{g!r}".startswith("<")
        if g.dead:
            check_dead(g)
            continue
        if g:
            check_suspended(g)
        else:
            assert g.gr_frame is None
            assert g._stack_saved == 0
        g.throw()
        check_dead(g)


def start_again(g: greenlet, *args: Any, **kwargs: Any) -> Any:
    """If g has not started, it can be; else MemoryError has ended it."""
    if g.dead:
        return VALUE
    assert not g
    return g.switch(*args, **kwargs)


# --- creation -------------------------------------------------------------------------------------


@case
def create(failing: Failing) -> None:
    if g := failing(greenlet, identity):
        assert g.switch(VALUE) is VALUE
        finish(g)


@case
def create_with_a_parent(failing: Failing) -> None:
    parent = suspended(wait_for_ever)
    g = failing(greenlet, identity, parent)
    if g is not FAILED:
        assert g.parent is parent
        finish(g)
    finish(parent)


@case
def create_with_keywords(failing: Failing) -> None:
    g = failing(greenlet, run=identity, parent=main)
    if g is not FAILED:
        assert g.switch(VALUE) is VALUE


@case
def create_an_instance_of_a_subclass(failing: Failing) -> None:
    g = failing(Special, identity)
    if g is not FAILED:
        assert g.slot is identity
        assert g.switch(VALUE) is VALUE


@case
def create_by_new_alone(failing: Failing) -> None:
    g = failing(greenlet.__new__, Special)
    if g is not FAILED:
        g.run = identity
        finish(g)


@case
def create_a_subclass(failing: Failing) -> None:
    made = failing(type, "Made", (greenlet,), {})
    if made is not FAILED:
        assert made(identity).switch(VALUE) is VALUE


@case
def create_in_a_thread_that_has_none(failing: Failing) -> None:
    def first() -> None:
        if g := failing(greenlet, identity):
            assert g.parent is getcurrent()
        assert greenlet(identity).switch(VALUE) is VALUE

    failing.in_thread(first)


@case
def get_current_in_a_thread_that_has_none(failing: Failing) -> None:
    def first() -> None:
        found = failing(getcurrent)
        current = getcurrent()
        assert found in (current, FAILED)
        assert current.parent is None and current

    failing.in_thread(first)


@case
def get_current_in_a_thread_of_threading(failing: Failing) -> None:
    def first() -> None:
        try:
            found = failing(getcurrent)
            assert found in (getcurrent(), FAILED)
            left = suspended()
            check_suspended(left)
            kept.append(weakref.ref(left))
            left.itself = left  # type: ignore[attr-defined]
        except BaseException as error:
            raised.append(error)

    raised: list[BaseException] = []
    kept: list[weakref.ref[greenlet]] = []
    thread = threading.Thread(target=first)
    thread.start()
    thread.join()
    assert not raised, raised
    g = kept[0]()
    assert g is None or g.dead


@case
def switch_in_a_thread_that_has_none(failing: Failing) -> None:
    g = greenlet(identity)

    def first() -> None:
        error = failing(g.switch, raises=(library.error,))
        assert error is FAILED or isinstance(error, library.error)

    failing.in_thread(first)
    finish(g)


@case
def copy_and_pickle(failing: Failing) -> None:
    g = greenlet(identity)
    failing(copy.copy, g, raises=(TypeError,))
    finish(g)


# --- starts ---------------------------------------------------------------------------------------


@case
def start(failing: Failing) -> None:
    g = greenlet(identity)
    if failing(g.switch) is FAILED:
        start_again(g)
    check_dead(g)


@case
def start_with_a_value(failing: Failing) -> None:
    g = greenlet(identity)
    got = failing(g.switch, VALUE)
    assert got is VALUE or start_again(g, VALUE) is VALUE
    check_dead(g)


@case
def start_with_values(failing: Failing) -> None:
    g = greenlet(wait)
    if failing(g.switch, VALUE, VALUE) is FAILED and not g.dead:
        assert g or start_again(g, VALUE, VALUE) == (VALUE, VALUE)
    finish(g)


@case
def start_with_keywords(failing: Failing) -> None:
    g = greenlet(with_keywords)
    got = failing(g.switch, 1, 2, last=VALUE, first=1)
    assert got is VALUE or start_again(g, 1, last=VALUE) is VALUE
    check_dead(g)


@case
def start_with_keywords_what_has_no_vectorcall(failing: Failing) -> None:
    g = greenlet(callables)
    got = failing(g.switch, last=VALUE)
    assert got is VALUE or start_again(g, last=VALUE) is VALUE
    check_dead(g)


@case
def start_with_a_value_what_has_no_vectorcall(failing: Failing) -> None:
    g = greenlet(callables)
    got = failing(g.switch, VALUE)
    assert got is VALUE or start_again(g, VALUE) is VALUE
    check_dead(g)


@case
def start_by_a_method_run(failing: Failing) -> None:
    g = Defined()
    got = failing(g.switch, VALUE)
    assert got is VALUE or start_again(g, VALUE) is VALUE
    check_dead(g)


@case
def start_without_run(failing: Failing) -> None:
    g = greenlet()
    error = failing(g.switch, raises=(AttributeError,))
    assert error is FAILED or str(error) == "run"
    g.run = identity
    assert g.switch(VALUE) is VALUE


@case
def start_of_what_is_no_function(failing: Failing) -> None:
    g = greenlet(VALUE)  # type: ignore[arg-type]
    failing(g.switch, raises=(TypeError,))
    finish(g)


@case
def start_with_a_stack_of_its_own_size(failing: Failing) -> None:
    g = greenlet(identity)
    stacks.set_size(g, 3 << 20)
    got = failing(g.switch, VALUE)
    assert got is VALUE or start_again(g, VALUE) is VALUE
    check_dead(g)


@case
def start_when_the_pool_is_empty(failing: Failing) -> None:
    stacks.trim()
    g = greenlet(identity)
    got = failing(g.switch, VALUE)
    assert got is VALUE or start_again(g, VALUE) is VALUE
    check_dead(g)


def start_all(all_: list[greenlet]) -> None:
    for g in all_:
        g.switch()


@case
def start_more_than_a_batch(failing: Failing) -> None:
    stacks.trim()
    all_ = [greenlet(wait) for _ in range(150)]
    failing(start_all, all_)
    finish(*all_)
    stacks.trim()


@case
def start_with_another_default_size(failing: Failing) -> None:
    g = greenlet(identity)
    before = stacks.set_default_size(512 << 10)
    try:
        got = failing(g.switch, VALUE)
        assert got is VALUE or start_again(g, VALUE) is VALUE
    finally:
        stacks.set_default_size(before)


@case
def start_deep_in_parents(failing: Failing) -> None:
    parents = [suspended(wait_for_ever)]
    parents += [greenlet(identity, parents[0]) for _ in range(3)]
    g = greenlet(identity, parents[-1])
    failing(g.switch, VALUE)
    finish(g, *reversed(parents))


@case
def start_in_a_list_that_sorts(failing: Failing) -> None:
    """On free-threaded builds the list is locked, and the switch unlocks it."""
    g = greenlet(functools.partial(sorted, (3, 1, 2), key=wait))
    if failing(g.switch) is FAILED and not (g or g.dead):
        start_again(g)
    finish(g)


# --- switches -------------------------------------------------------------------------------------


def switch_with(*args: Any, **kwargs: Any) -> Case:
    def run(failing: Failing) -> None:
        g = suspended()
        if failing(g.switch, *args, **kwargs) is FAILED and not g.dead:
            check_suspended(g)
            g.switch()
        check_dead(g)

    return run


CASES["switch_with_nothing"] = switch_with()
CASES["switch_with_a_value"] = switch_with(VALUE)
CASES["switch_with_values"] = switch_with(VALUE, VALUE)
CASES["switch_with_keywords"] = switch_with(a=VALUE, b=VALUE)
CASES["switch_with_values_and_keywords"] = switch_with(VALUE, VALUE, a=VALUE)


@case
def switch_to_and_fro(failing: Failing) -> None:
    g = suspended(wait_for_ever)
    failing(g.switch, VALUE)
    finish(g)


@case
def switch_to_the_dead(failing: Failing) -> None:
    g = finished()
    failing(g.switch, VALUE, a=1)
    check_dead(g)


@case
def switch_to_oneself(failing: Failing) -> None:
    got = failing(main.switch, VALUE, VALUE)
    assert got is FAILED or got == (VALUE, VALUE)


@case
def switch_deep_in_c(failing: Failing) -> None:
    g = greenlet(deep_in_c)
    failing(g.switch, 30)
    if g:
        failing(g.switch, VALUE)
    finish(g)


@case
def switch_deep_in_python(failing: Failing) -> None:
    """The frames do not fit into the region, so there are chunks."""
    g = greenlet(deep)
    failing(g.switch, 700)
    if g:
        failing(g.switch, VALUE)
    finish(g)


@case
def recurse_without_end(failing: Failing) -> None:
    g = greenlet(recurse)
    failing(g.switch, raises=(RecursionError,))
    finish(g)


def recurse() -> None:
    recurse()


@case
def switch_with_a_trace_callback(failing: Failing) -> None:
    def callback(event: str, args: tuple[greenlet, greenlet]) -> None:
        events.append(event)

    events: list[str] = []
    g = suspended(wait_for_ever)
    settrace(callback)
    failing(g.switch, VALUE)
    failing(g.throw, KeyError, raises=(KeyError,))
    settrace(None)
    assert len(events) <= 4
    finish(g)


@case
def set_and_get_the_trace_callback(failing: Failing) -> None:
    assert failing(settrace, identity) in (None, FAILED)
    assert failing(gettrace) in (identity, None, FAILED)
    settrace(None)


@case
def switch_while_sys_settrace_traces(failing: Failing) -> None:
    g = suspended(deep, 3)
    before = sys.gettrace()
    sys.settrace(keep_tracing)
    try:
        # CPython's own: "Missing frame when calling trace function", if there is no memory for it.
        failing(g.switch, raises=(SystemError,))
    finally:
        sys.settrace(before)
    finish(g)


@case
def switch_to_another_thread(failing: Failing) -> None:
    g = suspended()

    def elsewhere() -> None:
        getcurrent()
        error = failing(g.switch, raises=(library.error,))
        assert error is FAILED or isinstance(error, library.error), error

    failing.in_thread(elsewhere)
    finish(g)


@case
def switch_in_generators(failing: Failing) -> None:
    def generator() -> Iterator[Any]:
        yield wait()

    def outer() -> Iterator[Any]:
        yield from generator()

    g = greenlet(list)
    failing(g.switch, outer())
    if g:
        failing(g.switch)
    finish(g)


@case
def switch_in_a_coroutine(failing: Failing) -> None:
    async def inner() -> Any:
        return wait()

    async def outer() -> Any:
        return await inner()

    coroutine = outer()
    g = greenlet(coroutine.send)
    failing(g.switch, None, raises=(StopIteration,))
    if g:
        failing(g.switch, raises=(StopIteration,))
    finish(g)
    coroutine.close()


@case
def switch_with_context_variables(failing: Failing) -> None:
    """3.11 and 3.12 crash in ContextVar.set() without memory: without greenlets, too."""
    if sys.version_info < (3, 13):
        failing(identity)
        return

    def run() -> Any:
        variable.set(VALUE)
        wait()
        return variable.get()

    g = greenlet(run)
    failing(g.switch)
    if g:
        failing(g.switch)
    assert variable.get(None) is None
    finish(g)


@case
def switch_out_of_a_class_body(failing: Failing) -> None:
    """3.12 and 3.13 crash without memory for the body's function: without greenlets, too."""
    if (3, 12) <= sys.version_info < (3, 14):
        failing(identity)
        return
    g = greenlet(functools.partial(exec, compile("class A:\n  wait()", "", "exec")))
    failing(g.switch, {"wait": wait}, raises=(SystemError,))
    if g:
        failing(g.switch)
    finish(g)


# --- throws ---------------------------------------------------------------------------------------


def find_own_errors(extension: Any) -> None:
    """Fill OWN: SystemErrors of CPython where memory fails and there are no greenlets.

    Before 3.14 an exception is lost where there is no memory for the object of a frame that it
    passes, and f_back returns None beside the exception.
    """

    def raise_deep(level: int) -> None:
        if not level:
            raise KeyError
        raise_deep(level - 1)

    def raise_deep_in_c(level: int) -> None:
        if not level:
            raise KeyError
        next(map(raise_deep_in_c, (level - 1,)))

    def look_back(frame: types.FrameType | None) -> None:
        while frame is not None:
            frame = frame.f_back

    def at_depth(level: int, function: Callable[[], Any]) -> Any:
        return at_depth(level - 1, function) if level else function()

    def raise_in_a_generator() -> Iterator[None]:
        raise_deep(5)
        yield

    for number in range(60):
        for end in (number + 1, NEVER):
            failing = Failing(extension, None, number, end)
            failing.own = None
            for outcome in (
                failing(raise_deep, 15, raises=(KeyError,)),
                failing(raise_deep_in_c, 15, raises=(KeyError,)),
                failing(list, raise_in_a_generator(), raises=(KeyError,)),
                at_depth(15, lambda: failing(look_back, sys._getframe())),  # noqa: B023
            ):
                if isinstance(outcome, SystemError):
                    OWN.add(text_of(outcome))


def traceback() -> Any:
    try:
        raise KeyError
    except KeyError as error:
        return error.__traceback__


def throw_with(*args: Any, new: Callable[[], greenlet] = suspended) -> Case:
    def run(failing: Failing) -> None:
        g = new()
        given = [each() if isinstance(each, type(traceback)) else each for each in args]
        failing(g.throw, *given, raises=(KeyError, TypeError))
        finish(g)

    return run


for name, makes in {
    "suspended": suspended,
    "new": lambda: greenlet(wait),
    "dead": finished,
}.items():
    for form, args in {
        "nothing": (),
        "class": (KeyError,),
        "class_and_value": (KeyError, VALUE),
        "class_and_its_instance": (KeyError, KeyError(VALUE)),
        "class_value_and_traceback": (KeyError, 5, traceback),
        "instance": (KeyError(VALUE),),
        "wrong": (5,),
    }.items():
        CASES[f"throw_{form}_into_a_{name}_one"] = throw_with(*args, new=makes)


@case
def throw_into_a_handler(failing: Failing) -> None:
    g = suspended(wait_in_a_handler)
    failing(g.throw, KeyError, raises=(KeyError,))
    finish(g)


@case
def throw_into_a_generator(failing: Failing) -> None:
    def generator() -> Iterator[Any]:
        try:
            yield wait()
        finally:
            identity()

    g = suspended(list, generator())
    failing(g.throw, KeyError, raises=(KeyError,))
    finish(g)


# --- ends -----------------------------------------------------------------------------------------


@case
def finish_by_an_exception(failing: Failing) -> None:
    g = suspended(wait_and_raise)
    failing(g.switch, raises=(KeyError,))
    finish(g)


@case
def finish_into_a_parent_that_is_new(failing: Failing) -> None:
    parent = greenlet(identity)
    g = greenlet(wait)
    g.switch()
    g.parent = parent
    failing(g.switch, VALUE)
    finish(g, parent)


@case
def finish_by_an_exception_into_a_parent_that_is_new(failing: Failing) -> None:
    parent = greenlet(identity)
    g = suspended(wait_and_raise)
    g.parent = parent
    failing(g.switch, raises=(KeyError,))
    finish(g, parent)


@case
def finish_into_a_parent_that_cannot_start(failing: Failing) -> None:
    parent = greenlet()
    g = suspended()
    g.parent = parent
    failing(g.switch, raises=(AttributeError,))
    parent.run = identity
    finish(g, parent)


@case
def finish_into_dead_parents(failing: Failing) -> None:
    parent = finished()
    g = suspended()
    g.parent = parent
    failing(g.switch, VALUE)
    finish(g)


@case
def finish_many(failing: Failing) -> None:
    all_ = [suspended() for _ in range(100)]
    bound = stacks.set_pool_bound(3)
    failing(start_all, all_)
    stacks.set_pool_bound(bound)
    finish(*all_)


@case
def drop_a_new_one(failing: Failing) -> None:
    holder = [greenlet(identity)]
    failing(holder.clear)


def drop(run: Callable[..., Any], *args: Any) -> Case:
    def case_of(failing: Failing) -> None:
        holder = [suspended(run, *args)]
        seen = weakref.ref(holder[0])
        failing(holder.clear)
        assert not holder
        assert seen() is None

    return case_of


def wait_in_a_generator() -> Any:
    def generator() -> Generator[Any, Any, Any]:
        try:
            yield wait()
        finally:
            identity()

    return list(generator())


CASES["drop_a_suspended_one"] = drop(wait)
CASES["drop_one_in_finally"] = drop(wait_in_finally)
CASES["drop_one_in_a_handler"] = drop(wait_in_a_handler)
CASES["drop_one_in_a_generator"] = drop(wait_in_a_generator)
CASES["drop_one_deep_in_c"] = drop(deep_in_c, 20)
CASES["drop_one_deep_in_python"] = drop(deep, 200)


@case
def drop_an_instance_of_a_subclass(failing: Failing) -> None:
    g = Special(wait)
    g.switch()
    holder = [g]
    del g
    failing(holder.clear)


@case
def drop_what_waits_in_another(failing: Failing) -> None:
    """The last reference goes in a greenlet that is killed."""

    def outer(inner: greenlet) -> None:
        wait()

    holder = [suspended(outer, suspended(wait_in_finally))]
    failing(holder.clear)


@case
def drop_in_another_thread(failing: Failing) -> None:
    holder = [suspended(wait_in_finally)]
    failing.in_thread(lambda: failing(holder.clear))
    # Free-threaded CPython gives a last reference back to the thread that made the object.
    assert library._greenlet.get_pending_cleanup_count() in (0, 1)
    getcurrent()
    assert library._greenlet.get_pending_cleanup_count() == 0


def kill_what_another_thread_dropped(failing: Failing, call: Callable[[], Any]) -> None:
    holder = [suspended(wait_in_finally) for _ in range(3)]
    seen = [weakref.ref(each) for each in holder]
    failing.in_thread(holder.clear)
    failing(call)
    getcurrent()
    assert library._greenlet.get_pending_cleanup_count() == 0
    assert all(each() is None for each in seen)


@case
def kill_the_dropped_in_getcurrent(failing: Failing) -> None:
    kill_what_another_thread_dropped(failing, getcurrent)


@case
def kill_the_dropped_in_a_creation(failing: Failing) -> None:
    kill_what_another_thread_dropped(failing, greenlet)


@case
def kill_the_dropped_in_a_switch(failing: Failing) -> None:
    g = suspended(wait_for_ever)
    kill_what_another_thread_dropped(failing, g.switch)
    finish(g)


def in_a_cycle(run: Callable[..., Any], *args: Any) -> weakref.ref[greenlet]:
    g: Any = greenlet(run)
    g.itself = g
    g.switch(*args)
    return weakref.ref(g)


def collects(run: Callable[..., Any], *args: Any) -> Case:
    def case_of(failing: Failing) -> None:
        seen = in_a_cycle(run, *args)
        failing(gc.collect)
        gc.collect()
        gc.collect()
        assert seen() is None

    return case_of


CASES["collect_a_suspended_one"] = collects(wait)
CASES["collect_one_in_finally"] = collects(wait_in_finally)
CASES["collect_one_in_a_generator"] = collects(wait_in_a_generator)
CASES["collect_one_deep_in_python"] = collects(deep, 100)
CASES["collect_a_new_one"] = lambda failing: collects(in_a_cycle, identity)(failing)


@case
def collect_while_many_wait(failing: Failing) -> None:
    all_ = [suspended(wait_in_a_generator) for _ in range(20)] + [suspended(deep, 30)]
    failing(gc.collect)
    for g in all_:
        check_suspended(g)
    finish(*all_)


@case
def collect_in_another_thread(failing: Failing) -> None:
    seen = in_a_cycle(wait_in_finally)
    failing.in_thread(lambda: failing(gc.collect))
    getcurrent()
    gc.collect()
    gc.collect()
    assert seen() is None


def end_of_a_thread(failing: Failing, *runs: Callable[..., Any]) -> None:
    left: list[greenlet] = []

    def body() -> None:
        left.extend(suspended(run) for run in runs)
        failing.arm()

    failing.in_thread(body)
    for g in left:
        assert g.dead and not g
        assert g.gr_frame is None


@case
def end_a_thread_that_has_none(failing: Failing) -> None:
    def body() -> None:
        getcurrent()
        failing.arm()

    failing.in_thread(body)


@case
def end_a_thread(failing: Failing) -> None:
    end_of_a_thread(failing, wait_in_finally)


@case
def end_a_thread_that_has_several(failing: Failing) -> None:
    end_of_a_thread(failing, wait, wait_in_a_generator, wait_in_a_handler, wait_in_finally)


@case
def end_a_thread_with_something_to_kill(failing: Failing) -> None:
    holder: list[greenlet] = []
    ready, go = threading.Event(), threading.Event()

    def body() -> None:
        holder.append(suspended(wait_in_finally))
        ready.set()
        go.wait()
        failing.arm()

    def dropper() -> None:
        ready.wait()
        holder.clear()
        go.set()

    thread = threading.Thread(target=dropper)
    thread.start()
    failing.in_thread(body)
    thread.join()


@case
def end_a_thread_of_threading(failing: Failing) -> None:
    """The hook that greenlet puts there runs without memory; threading itself has some."""
    left: list[greenlet] = []

    class Thread(threading.Thread):
        def run(self) -> None:
            left.append(suspended(wait_in_finally))
            if hook := vars(self).get("_delete"):
                vars(self)["_delete"] = lambda: self.end(hook)

        def end(self, hook: Callable[[], None]) -> None:
            vars(self)["_delete"] = hook
            if failing(hook) is FAILED:
                threading._active.pop(self.ident, None)  # type: ignore[attr-defined]

    thread = Thread()
    thread.start()
    thread.join()
    assert left[0].dead


# --- attributes -----------------------------------------------------------------------------------


def attribute(name: str, make: Callable[[], greenlet] = suspended) -> Case:
    def run(failing: Failing) -> None:
        g = make()
        failing(getattr, g, name, raises=(AttributeError,))
        finish(g)

    return run


for name in (
    *("run", "parent", "dead", "gr_frame", "gr_context", "_stack_saved", "__dict__", "missing"),
):
    CASES[f"read_{name}"] = attribute(name)
    CASES[f"read_{name}_of_a_new_one"] = attribute(name, lambda: greenlet(identity))


def change(name: str, value: Any, *raises: type[BaseException]) -> Case:
    def run(failing: Failing) -> None:
        g = greenlet(identity)
        other = suspended(wait_for_ever)
        failing(setattr, g, name, other if value is greenlet else value, raises=raises)
        finish(g, other)

    return run


for label, (changed, *change_to) in {
    "set_run": ("run", wait),
    "set_parent": ("parent", greenlet),
    "set_a_wrong_parent": ("parent", 5, TypeError),
    "set_context": ("gr_context", contextvars.copy_context()),
    "set_no_context": ("gr_context", None),
    "set_a_wrong_context": ("gr_context", 5, TypeError),
    "set_an_attribute": ("anything", VALUE),
    "set_dict": ("__dict__", {}),
}.items():
    CASES[label] = change(str(changed), *change_to)  # type: ignore[arg-type]


@case
def show(failing: Failing) -> None:
    for g in (greenlet(identity), suspended(), finished(), main):
        text = failing(repr, g)
        assert text is FAILED or text.startswith("<")
        if g is not main:
            finish(g)


@case
def refer_weakly(failing: Failing) -> None:
    g = suspended()
    failing(weakref.ref, g)
    failing(weakref.ref, g, identity)
    finish(g)


def read_frames(g: greenlet) -> int:
    frame, count = g.gr_frame, 0
    while frame is not None:
        count += len(frame.f_locals) + frame.f_lineno
        frame = frame.f_back
    return count


@case
def read_all_frames(failing: Failing) -> None:
    g = suspended(deep, 10)
    failing(read_frames, g)
    finish(g)


@case
def read_all_frames_in_another_thread(failing: Failing) -> None:
    g = suspended(deep, 10)
    failing.in_thread(lambda: failing(read_frames, g))
    finish(g)


@case
def keep_a_frame(failing: Failing) -> None:
    g = suspended(deep, 3)
    frame = g.gr_frame
    failing(g.switch)
    finish(g)
    while frame is not None:
        frame.f_locals
        frame = frame.f_back


# --- stacks ---------------------------------------------------------------------------------------


def on_a_stack() -> Any:
    return stacks.call_on_thread_stack(identity, VALUE)


@case
def call_on_the_thread_stack(failing: Failing) -> None:
    g = greenlet(on_a_stack)
    got = failing(g.switch)
    assert got in (VALUE, FAILED)
    finish(g)


@case
def call_on_the_thread_stack_with_keywords(failing: Failing) -> None:
    got = failing(stacks.call_on_thread_stack, with_keywords, 1, last=VALUE)
    assert got in (VALUE, FAILED)


@case
def switch_on_the_thread_stack(failing: Failing) -> None:
    def refused() -> Any:
        try:
            stacks.call_on_thread_stack(main.switch)
        except library.error:
            return VALUE

    g = greenlet(refused)
    failing(g.switch)
    finish(g)


@case
def statistics(failing: Failing) -> None:
    g = suspended()
    failing(stacks.statistics)
    failing(stacks.resident_bytes)
    finish(g)


@case
def settings(failing: Failing) -> None:
    size, bound = stacks.get_default_size(), stacks.get_pool_bound()
    g = greenlet(identity)
    failing(stacks.set_default_size, 1 << 20)
    stacks.set_default_size(None)
    failing(stacks.set_size, g, 1 << 20)
    failing(stacks.set_size, g, 5, raises=(ValueError,))
    failing(stacks.set_pool_bound, 10)
    stacks.set_pool_bound(bound)
    failing(stacks.report_overflow)
    stacks.report_overflow(False)
    assert stacks.get_default_size() == size
    finish(g)


def go_deep_and_return() -> Any:
    deep(300, identity)
    return wait()


@case
def trim(failing: Failing) -> None:
    all_ = [suspended(go_deep_and_return) for _ in range(5)]
    finish(all_.pop())
    failing(stacks.trim)
    for g in all_:
        assert g.switch(VALUE) is VALUE


# --- C API ----------------------------------------------------------------------------------------


@case
def entry_new(failing: Failing) -> None:
    g = failing(failing.entries.create, identity, main)
    assert g is FAILED or g.switch(VALUE) is VALUE


@case
def entry_get_current(failing: Failing) -> None:
    failing.in_thread(lambda: failing(failing.entries.get_current))


@case
def entry_switch(failing: Failing) -> None:
    g = greenlet(wait)
    failing(failing.entries.switch, g, (VALUE, VALUE), {"a": VALUE}, raises=(TypeError,))
    finish(g)


@case
def entry_switch_to_a_suspended_one(failing: Failing) -> None:
    g = suspended()
    failing(failing.entries.switch, g, (VALUE,), {"a": VALUE})
    finish(g)


@case
def entry_throw(failing: Failing) -> None:
    g = suspended()
    failing(failing.entries.throw, g, KeyError, VALUE, ..., raises=(KeyError,))
    finish(g)


@case
def entry_set_parent(failing: Failing) -> None:
    g, parent = greenlet(identity), suspended(wait_for_ever)
    failing(failing.entries.set_parent, g, parent)
    failing(failing.entries.set_parent, g, 5, raises=(TypeError,))
    assert failing(failing.entries.get_parent, g) in (parent, main, FAILED)
    finish(g, parent)


@case
def entry_of_what_is_no_greenlet(failing: Failing) -> None:
    failing(failing.entries.is_main, 5, raises=(TypeError,))
    failing(failing.entries.switch, 5, ..., ..., raises=(TypeError,))


# --- seeing greenlets -----------------------------------------------------------------------------


@contextlib.contextmanager
def in_another_thread() -> Iterator[greenlet]:
    """A suspended greenlet of another thread, which waits."""
    made: list[greenlet] = []
    ready, end = threading.Event(), threading.Event()

    def run() -> None:
        made.append(suspended())
        ready.set()
        end.wait()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield made[0]
    finally:
        made.clear()
        end.set()
        thread.join()


# The functions in C: CPython's own lists leak without memory (3.11), or crash (3.15t-debug).


@case
def list_greenlets(failing: Failing) -> None:
    family = [suspended() for _ in range(20)]
    found = failing(_greenlet._list_greenlets, 0)
    assert found is FAILED or found == (main, *family)
    assert failing(_greenlet._list_threads) in (FAILED, _greenlet._list_threads())
    finish(*family)


@case
def list_greenlets_of_another_thread(failing: Failing) -> None:
    with in_another_thread() as g:
        found = failing(_greenlet._list_greenlets, 0)
        assert found is FAILED or g in found
        found = failing(inspect._describe, g)
        assert found is FAILED or found == inspect._describe(g)
        assert failing(_greenlet._list_frames, g) in (FAILED, _greenlet._list_frames(g))


@case
def see_one_greenlet(failing: Failing) -> None:
    g = suspended()
    found = failing(inspect._describe, g)
    assert found is FAILED or found == inspect._describe(g)
    assert failing(_greenlet._list_frames, g) in (FAILED, _greenlet._list_frames(g))
    failing(_greenlet._list_frames, main)
    finish(g)


class Text(str):
    pass


@case
def name_a_greenlet(failing: Failing) -> None:
    g = suspended()
    named = failing(inspect.set_name, g, Text("mine")) is not FAILED
    assert inspect.get_name(g) == ("mine" if named else "wait")
    failing(repr, g)
    failing(inspect.set_name, g, None)
    assert inspect.get_name(g) in ("mine", "wait")
    finish(g)


@case
def make_a_greenlet_with_an_origin(failing: Failing) -> None:
    inspect.track_origin(3)
    g = failing(greenlet, identity)
    inspect.track_origin(0)
    assert g is FAILED or len(inspect.describe(g).origin) in (0, 3)
    assert g is FAILED or g.switch(VALUE) is VALUE


@case
def trace_all_threads(failing: Failing) -> None:
    calls: list[str] = []
    old = failing(settrace, lambda event, pair: calls.append(event), all_threads=True)
    assert old in (None, FAILED)
    g = greenlet(identity)
    failing(g.switch, VALUE)
    settrace(None, all_threads=True)
    if not g.dead:
        g.switch(VALUE)


@case
def look_as_a_watch(failing: Failing) -> None:
    g = suspended()
    failing(_greenlet._watch_threads)
    failing(_greenlet._watch_threads)
    finish(g)


@case
def record_switches(failing: Failing) -> None:
    g = suspended()
    started = failing(_greenlet._timeline_start, 1000, functools.partial, functools.partial.func)
    assert (started is None) == _greenlet._timeline_is_recording()
    failing(greenlet(identity).switch, VALUE)
    failing(lambda: [greenlet(identity).switch() for _ in range(300)])
    found = failing(_greenlet._timeline_stop, raises=(RuntimeError,))
    assert not _greenlet._timeline_is_recording() or found is FAILED
    _greenlet._timeline_discard()
    finish(g)


@case
def hint_at_another_thread(failing: Failing) -> None:
    with in_another_thread() as g:
        assert failing(g.switch, raises=(library.error,)) is not None


@case
def hint_at_nothing_to_run(failing: Failing) -> None:
    failing(greenlet().switch, raises=(AttributeError,))


@case
def hint_at_a_circle_of_parents(failing: Failing) -> None:
    parent = greenlet(identity)
    child = greenlet(identity, parent)
    failing(setattr, parent, "parent", child, raises=(ValueError,))
    assert parent.parent is main


@case
def report_what_is_collected(failing: Failing) -> None:
    told: list[object] = []
    inspect.on_collected(told.append)
    g: Any = suspended()
    g.itself = g
    del g
    failing(gc.collect)
    inspect.on_collected(None)
    gc.collect()


# --- other interpreters ---------------------------------------------------------------------------


def case_of_interpreters(function: Case) -> Case:
    # Before 3.14 CPython itself ends there: tests/cpython_faults/interpreter_without_memory.py.
    return case(function) if sys.version_info >= (3, 14) else function


@contextlib.contextmanager
def interpreter() -> Iterator[Interpreter]:
    other = Interpreter()
    try:
        yield other
    finally:
        other.close()


@case_of_interpreters
def use_in_another_interpreter(failing: Failing) -> None:
    with interpreter() as other:
        other.run("import greenlet; g = greenlet.greenlet(lambda: 5)")
        failing(other.run, "g.switch()", raises=(RuntimeError, SystemError))
        other.run("assert greenlet.greenlet(lambda: 5).switch() == 5")


@case_of_interpreters
def import_in_another_interpreter(failing: Failing) -> None:
    with interpreter() as other:
        other.run("import threading, contextvars, functools, typing, collections.abc")
        failing(other.run, "import greenlet", raises=(RuntimeError, SystemError))
        other.run("import greenlet; assert greenlet.greenlet(lambda: 5).switch() == 5")


#: CPython does not free all that it allocates for an interpreter.
LEAVE_BLOCKS = {"use_in_another_interpreter", "import_in_another_interpreter"}
#: Nor what its lists and tuples lose without memory (3.11, 3.12), in our functions in Python.
LEAVE_BLOCKS |= {"switch_to_another_thread", "report_what_is_collected"}
LEAVE_BLOCKS |= {name for name in CASES if name.startswith("hint_")}
