"""The C API, called through the table in the capsule: entries by index, wrong arguments included.

What crashes the published greenlet is in `c_api_misuse.py`, so this script runs to its end.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from behaviour import (
    Base,
    Greenlet,
    GreenletExit,
    arguments,
    attempt,
    behaviour,
    dead,
    fail,
    getcurrent,
    library,
    listening,
    run,
    say,
    suspended,
)

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_table = ctypes.cast(
    _get_pointer(library._C_API, b"greenlet._C_API"), ctypes.POINTER(ctypes.c_void_p)
)

NULL = object()


def _entry(index: int, result: Any, parameters: int) -> Callable[..., Any]:
    """Entry `index` as a function that takes objects or NULL and raises its exceptions."""
    address = _table[index]
    assert address is not None
    prototype = ctypes.PYFUNCTYPE(result, *[ctypes.c_void_p] * parameters)
    function = prototype(address)

    def call(*args: Any) -> Any:
        return function(*[None if argument is NULL else id(argument) for argument in args])

    return call


def _object(index: int) -> Any:
    return ctypes.cast(_table[index], ctypes.py_object).value


new = _entry(3, ctypes.py_object, 2)
get_current = _entry(4, ctypes.py_object, 0)
throw = _entry(5, ctypes.py_object, 4)
switch = _entry(6, ctypes.py_object, 3)
set_parent = _entry(7, ctypes.c_int, 2)
is_main = _entry(8, ctypes.c_int, 1)
is_started = _entry(9, ctypes.c_int, 1)
is_active = _entry(10, ctypes.c_int, 1)
get_parent = _entry(11, ctypes.py_object, 1)


@behaviour
def the_table_begins_with_the_types() -> None:
    say(_object(0) is Greenlet, _object(1) is library.error, _object(2) is GreenletExit)


@behaviour
def new_makes_a_greenlet() -> None:
    made = new(arguments, NULL)
    say(type(made) is Greenlet, made.parent is getcurrent(), made.run is arguments)
    say(made.switch(1))


@behaviour
def new_takes_a_parent() -> None:
    parent = Greenlet()
    say(new(arguments, parent).parent is parent)


@behaviour
def new_without_run_has_none() -> None:
    say(attempt(lambda: new(NULL, NULL).run))


@behaviour
def new_stores_none_as_run() -> None:
    say(new(None, NULL).run)


@behaviour
def new_takes_any_run() -> None:
    say(new(5, NULL).run)


@behaviour
def new_refuses_a_wrong_parent() -> None:
    say(attempt(new, arguments, 5))


@behaviour
def new_takes_none_for_no_parent() -> None:
    say(new(arguments, None).parent is getcurrent(), new(arguments, None).switch(1))


@behaviour
def get_current_is_getcurrent() -> None:
    say(get_current() is getcurrent())
    made: Any = Greenlet(lambda: get_current() is getcurrent() is made)
    say(made.switch())


@behaviour
def switch_starts_with_arguments() -> None:
    say(switch(Greenlet(arguments), (1, 2), {"three": 3}))
    say(switch(Greenlet(arguments), (1,), NULL))
    say(switch(Greenlet(arguments), NULL, {"three": 3}))
    say(switch(Greenlet(arguments), (), {}))


@behaviour
def switch_without_arguments() -> None:
    say(switch(Greenlet(arguments), NULL, NULL))


@behaviour
def switch_delivers_as_the_method_does() -> None:
    receiver = listening()
    say(switch(receiver, NULL, NULL), switch(receiver, (1,), NULL), switch(receiver, (1, 2), NULL))
    say(switch(receiver, NULL, {"one": 1}), switch(receiver, (1,), {"two": 2}))


@behaviour
def switch_with_none_delivers_it() -> None:
    receiver = listening()
    say(switch(receiver, None, NULL), switch(receiver, None, None), switch(receiver, None, {}))
    say(switch(dead(), None, NULL), switch(getcurrent(), None, NULL))


@behaviour
def switch_with_none_starts_without_arguments() -> None:
    say(switch(Greenlet(arguments), None, NULL), switch(Greenlet(arguments), None, {"a": 1}))


@behaviour
def switch_to_a_dead_greenlet() -> None:
    say(switch(dead(), (1,), NULL), switch(dead(), NULL, NULL))


@behaviour
def switch_to_oneself() -> None:
    say(switch(getcurrent(), (1,), NULL))


@behaviour
def switch_raises_what_the_body_raises() -> None:
    say(attempt(switch, Greenlet(fail), NULL, NULL))


@behaviour
def switch_refuses_a_wrong_target() -> None:
    for target in (NULL, None, 5, Greenlet):
        say(attempt(switch, target, (1,), NULL))


@behaviour
def switch_ignores_methods_of_subclasses() -> None:
    class Special(Base):
        def switch(self, *args: Any) -> str:
            return "method"

    say(switch(Special(arguments), (1,), NULL))


@behaviour
def throw_raises_in_the_target() -> None:
    say(throw(listening(), ValueError, NULL, NULL))
    say(throw(listening(), ValueError, "value", NULL))
    say(throw(listening(), ValueError("instance"), NULL, NULL))
    say(throw(listening(), ValueError("instance"), None, None))


@behaviour
def throw_at_an_unstarted_and_a_dead_greenlet() -> None:
    for made in (Greenlet(arguments), dead()):
        say(attempt(throw, made, ValueError, "value", NULL), made.dead)


@behaviour
def throw_of_greenlet_exit_returns_it() -> None:
    for made in (Greenlet(arguments), suspended(), dead()):
        say(attempt(throw, made, GreenletExit, 4, NULL), made.dead)


@behaviour
def throw_checks_the_exception() -> None:
    for made in (Greenlet(arguments), suspended(), dead()):
        say(attempt(throw, made, 5, NULL, NULL))
        say(attempt(throw, made, None, NULL, NULL))
        say(attempt(throw, made, ValueError("instance"), 1, NULL))


@behaviour
def throw_checks_the_traceback() -> None:
    say(attempt(throw, Greenlet(arguments), ValueError, 1, 7))


@behaviour
def throw_refuses_a_wrong_target() -> None:
    for target in (NULL, None, 5, Greenlet):
        say(attempt(throw, target, ValueError, NULL, NULL))


@behaviour
def set_parent_sets_it() -> None:
    parent, child = Greenlet(), Greenlet()
    say(set_parent(child, parent), child.parent is parent)


@behaviour
def set_parent_refuses_a_cycle() -> None:
    parent = Greenlet()
    child = Greenlet(None, parent)
    say(attempt(set_parent, parent, child), attempt(set_parent, child, child))


@behaviour
def set_parent_refuses_a_main_greenlet() -> None:
    say(attempt(set_parent, getcurrent(), Greenlet()))


@behaviour
def set_parent_refuses_a_wrong_parent() -> None:
    for parent in (NULL, None, 5, Greenlet):
        say(attempt(set_parent, Greenlet(), parent))


@behaviour
def set_parent_refuses_a_wrong_child() -> None:
    for child in (None, 5, Greenlet):
        say(attempt(set_parent, child, getcurrent()))


@behaviour
def the_flags_of_every_state() -> None:
    for made in (getcurrent(), Greenlet(), suspended(), dead()):
        say(is_main(made), is_started(made), is_active(made))


@behaviour
def the_flags_of_the_running_greenlet() -> None:
    def body() -> Any:
        return is_main(getcurrent()), is_started(getcurrent()), is_active(getcurrent())

    say(Greenlet(body).switch())


@behaviour
def the_flags_refuse_a_wrong_argument() -> None:
    for function in (is_main, is_started, is_active):
        for argument in (NULL, None, 5, Greenlet):
            say(attempt(function, argument))


@behaviour
def get_parent_gives_it() -> None:
    parent = Greenlet()
    say(get_parent(Greenlet(None, parent)) is parent, get_parent(dead()) is getcurrent())


@behaviour
def get_parent_of_a_main_greenlet_is_null_without_an_exception() -> None:
    as_an_address = _entry(11, ctypes.c_void_p, 1)
    say(attempt(as_an_address, getcurrent()))


@behaviour
def get_parent_refuses_a_wrong_argument() -> None:
    for argument in (NULL, None, 5, Greenlet):
        say(attempt(get_parent, argument))


@behaviour
def references_are_counted() -> None:
    made = Greenlet(arguments)
    before = sys.getrefcount(made), sys.getrefcount(getcurrent())
    for _ in range(100):
        get_current()
        get_parent(made)
        is_main(made)
        attempt(set_parent, made, 5)
        attempt(throw, made, 5, NULL, NULL)
        attempt(get_parent, 5)
    say(sys.getrefcount(made) - before[0], sys.getrefcount(getcurrent()) - before[1])


@behaviour
def subclasses_are_greenlets_to_every_entry() -> None:
    class Special(Base):
        pass

    say(is_main(Special()), set_parent(Special(), Special()), get_parent(Special()) is getcurrent())
    say(
        switch(Special(arguments), (1,), NULL),
        attempt(throw, Special(arguments), KeyError, 1, NULL),
    )


if __name__ == "__main__":
    run()
