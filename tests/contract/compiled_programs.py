"""What the compiled programs of tests/extensions do, as a transcript: one line for each thing.

`compiled_programs.py FOLDER` imports the programs from there. Like the scripts of behaviour it
imports the module named `greenlet`. It cannot tell with which header the programs were compiled.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, sys.argv[1])
library: Any = importlib.import_module("greenlet")
entries: Any = importlib.import_module("entries")
fields: Any = importlib.import_module("fields")
unwinding: Any = importlib.import_module("unwinding")

Greenlet, getcurrent = library.greenlet, library.getcurrent
NULL = ...


def say(*values: object) -> None:
    print(*map(repr, values), flush=True)


def attempt(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except BaseException as failure:
        return f"{type(failure).__name__}: {failure}"


def growth(function: Callable[[], object], watched: object) -> int:
    """By how much a hundred calls change the reference count of an object."""
    for _ in range(2):
        gc.collect()  # free-threaded builds add up the counts of all threads at its start
    before = sys.getrefcount(watched)
    for _ in range(100):
        function()
    for _ in range(2):
        gc.collect()
    return round((sys.getrefcount(watched) - before) / 10)


def layout() -> None:
    say(entries.facts())
    say(Greenlet.__basicsize__, Greenlet.__dictoffset__, Greenlet.__weakrefoffset__)
    for kind in (unwinding.Task, fields.Task, fields.Named):
        say(kind, kind.__mro__, kind.__basicsize__, kind.__dictoffset__, kind.__weakrefoffset__)


def every_entry() -> None:
    main = entries.get_current()
    say(main is getcurrent(), entries.is_main(main), entries.get_parent(main) is NULL)
    made = entries.create(lambda *args, **kwargs: main.switch(args, kwargs), NULL)
    say(entries.check(made), entries.check(5), type(made) is Greenlet)
    say(entries.is_started(made), entries.is_active(made), entries.is_main(made))
    say(entries.switch(made, (1, 2), {"three": 3}))
    say(entries.is_started(made), entries.is_active(made))
    say(entries.get_parent(made) is main, entries.get_parent_by_old_name(made) is main)
    other = entries.create(int, made)
    say(entries.get_parent(other) is made, entries.set_parent(other, main), other.parent is main)
    say(attempt(entries.set_parent, main, made), attempt(entries.set_parent, made, made))
    say(attempt(entries.throw, made, KeyError, "value", NULL), made.dead)
    say(attempt(entries.switch, 5, NULL, NULL), attempt(entries.is_main, NULL))
    say(entries.in_a_foreign_thread(5))


def references() -> None:
    item = object()

    def forget() -> None:
        while True:
            getcurrent().parent.switch()

    echo = Greenlet(forget)
    echo.switch()
    say(growth(lambda: entries.switch(echo, (item,), NULL), item))
    say(growth(lambda: entries.switch(echo, (item,), NULL), echo))
    say(growth(entries.get_current, getcurrent()))
    say(growth(lambda: entries.get_parent(echo), getcurrent()))
    say(
        growth(lambda: entries.create(say, echo), echo),
        growth(lambda: entries.create(say, echo), say),
    )
    for kind in (unwinding.Task, fields.Task, fields.Named):
        python: Any = type("Python", (kind,), {})
        for cls in (kind, python):
            say(cls, growth(cls, cls))


def cpp() -> None:
    task = unwinding.Task(lambda: getcurrent().parent.switch("paused"))
    say(task.switch(), task.name, unwinding.count_living())
    del task
    say(unwinding.count_living())
    handling = Greenlet(unwinding.handle)
    handling.switch("text", 2)
    while not handling.dead:
        result = handling.switch()
    say(result, unwinding.count_living())
    handling = Greenlet(unwinding.handle)
    handling.switch("text", 2)
    say(attempt(handling.throw, KeyError), unwinding.count_living())


def cython() -> None:
    log: list[Any] = []
    task = fields.Named()
    task.name, task.kept = "name", log
    say(task.switch(1), task.switch(2), task.received, task.sum_of_squares(), task.active)
    say(attempt(fields.end, task, KeyError), log, task.name, task.active)
    say(fields.call_in_greenlet(lambda *args: args, 1, 2), fields.current() is getcurrent())
    say(attempt(fields.adopt, task, None), attempt(fields.adopt, task, task))

    def body() -> None:
        with fields.Guard(log):
            log.extend(fields.numbers(2))

    running = Greenlet(body)
    while not running.dead:
        running.switch()
    say(log)

    class Python(fields.Task):  # type: ignore[misc]
        def run(self, *args: Any) -> Any:
            return args, self.received

    say(Python().switch(1, 2))


layout()
every_entry()
references()
cpp()
cython()
