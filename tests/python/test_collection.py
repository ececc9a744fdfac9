"""What the collector collects of greenlets and what they hold, and what it leaves as it is.

The shapes of garbage come from collection_cases.py. How a collected greenlet ends is in
test_collection_endings.py.
"""

from __future__ import annotations

import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from collection_cases import CASES, HIDDEN_OWN, HIDDEN_STACK, Case, Suspend, table
from greenlet import GreenletExit, getcurrent, greenlet
from helpers import (
    VERSION,
    Unraisable,
    collect,
    collect_twice,
    collect_until,
    in_a_cycle,
    in_background,
    needs_many_addresses,
    run_clean,
    to_parent,
)

THIS_VERSION = f"{VERSION[0]}.{VERSION[1]}"
DOCUMENT = Path(__file__).parents[2] / "docs" / "internals" / "garbage-collection.md"
BORROWED = Path(__file__).with_name("borrowed_cases.py")


class Log:
    """In which threads the parts of one case died, paused and were unwound."""

    def __init__(self) -> None:
        self.died: list[int] = []
        self.paused: list[int] = []
        self.unwound: list[int] = []


class Canary:
    """A part of the garbage that tells when it dies."""

    def __init__(self, log: Log, token: object) -> None:
        self.log = log
        # The collector clears weak references and calls finalizers before it is sure to free the
        # object. Only after the object is freed, the token is released.
        self.token = token

    def __del__(self) -> None:
        self.log.died.append(threading.get_ident())


def suspender(leaves_by: str, log: Log) -> Suspend:
    main = getcurrent()
    if leaves_by == "switch":
        return main.switch

    def pause(value: Any = 0, /) -> Any:
        log.paused.append(threading.get_ident())
        try:
            return main.switch(value)
        finally:
            log.unwound.append(threading.get_ident())

    return pause


def each_case() -> Iterator[Any]:
    for case in CASES:
        for leaves_by in case.leaves_by:
            yield pytest.param(case, leaves_by, id=f"{case.name}, by {leaves_by}")


class Garbage:
    """The garbage of one case. Only weak references to it are kept."""

    def __init__(self, case: Case, leaves_by: str) -> None:
        self.log = Log()
        self.token = object()
        self._references = sys.getrefcount(self.token)
        canary = Canary(self.log, self.token)
        self.canary = weakref.ref(canary)
        self._kept: Sequence[greenlet] = case.make(canary, suspender(leaves_by, self.log))
        del canary
        self.greenlets = [weakref.ref(g) for g in self._kept]
        assert all(g for g in self._kept), "they wait"

    def drop(self) -> None:
        self._kept = ()

    def released(self) -> bool:
        return sys.getrefcount(self.token) == self._references

    def finish(self) -> None:
        """Let every greenlet run to its end."""
        for reference in self.greenlets:
            for _ in range(10):
                g = reference()
                if g is None or g.dead:
                    break
                g.switch(0)
            else:
                pytest.fail("a greenlet does not end")


@pytest.mark.parametrize(("case", "leaves_by"), list(each_case()))
def test_garbage_is_collected_where_the_table_says_so(case: Case, leaves_by: str) -> None:
    garbage = Garbage(case, leaves_by)
    log = garbage.log
    with Unraisable() as unraisable:
        garbage.drop()
        collect_twice()
        if case.hidden_on(THIS_VERSION, leaves_by):
            # It leaks but is sound: its greenlets can go on, and then everything is released.
            assert garbage.canary() is not None, "it is collected: say so in the table"
            assert log.unwound == []
            garbage.finish()
            collect_twice()
        else:
            assert [reference() for reference in garbage.greenlets] == [None] * len(
                garbage.greenlets
            )
    assert garbage.canary() is None
    assert garbage.released()
    assert log.died == [threading.get_ident()]
    assert log.unwound == log.paused == [threading.get_ident()] * len(log.paused)
    assert unraisable.messages == []


@pytest.mark.parametrize(("case", "leaves_by"), list(each_case()))
def test_what_is_in_use_survives_collections_and_goes_on(case: Case, leaves_by: str) -> None:
    garbage = Garbage(case, leaves_by)
    with Unraisable() as unraisable:
        gc.collect()
        assert garbage.canary() is not None
        assert not garbage.released()
        assert garbage.log.unwound == garbage.log.died == []
        garbage.finish()
        garbage.drop()
        gc.collect()
    assert garbage.canary() is None
    assert garbage.released()
    assert garbage.log.died == [threading.get_ident()]
    assert garbage.log.unwound == garbage.log.paused
    assert unraisable.messages == []


def test_the_document_shows_the_table_of_the_cases() -> None:
    shown = DOCUMENT.read_text()
    assert table() in shown, "run python tests/python/collection_cases.py and put its output there"


def test_only_what_cpython_hides_is_not_collected() -> None:
    reasons = {
        (version, hidden.reason) for case in CASES for version, hidden in case.hidden.items()
    }
    new = {reason for version, reason in reasons if version in ("3.14", "3.15")}
    assert new == {HIDDEN_OWN}
    assert {reason for _, reason in reasons} == new | {HIDDEN_STACK}


@pytest.mark.parametrize("state", ["cold", "warm"])
def test_what_the_stack_only_borrows_is_not_shown(state: str) -> None:
    assert run_clean(BORROWED.read_text(), args=[state]) == "done"


# --- garbage without suspended greenlets, or with one ---------------------------------------------


class Watched:
    """An object that can be referred to weakly."""


def test_a_new_greenlet_in_a_cycle_through_its_attributes_is_collected() -> None:
    g: Any = greenlet(lambda: None)
    g.itself = g
    alive = weakref.ref(g)
    del g
    collect()
    assert alive() is None


def test_a_new_greenlet_in_a_cycle_through_its_run_is_collected() -> None:
    def make() -> weakref.ref[greenlet]:
        holder: list[greenlet] = []
        holder.append(greenlet(lambda: holder))
        return weakref.ref(holder[0])

    alive = make()
    collect()
    assert alive() is None


def test_a_finished_greenlet_in_a_cycle_is_collected() -> None:
    g: Any = greenlet(lambda: None)
    g.switch()
    g.itself = g
    alive = weakref.ref(g)
    del g
    collect()
    assert alive() is None


def test_new_greenlets_that_are_each_others_attributes_are_collected() -> None:
    a: Any = greenlet()
    b: Any = greenlet(parent=a)
    a.other, b.other = b, a
    alive = [weakref.ref(a), weakref.ref(b)]
    del a, b
    collect()
    assert [reference() for reference in alive] == [None, None]


def test_a_suspended_greenlet_in_a_cycle_through_its_attributes_is_collected() -> None:
    log: list[bool] = []

    def run() -> None:
        try:
            to_parent()
        except BaseException as caught:
            log.append(isinstance(caught, GreenletExit))
            raise

    g: Any = greenlet(run)
    g.itself = g
    g.switch()
    alive = weakref.ref(g)
    with Unraisable() as unraisable:
        del g
        collect()
    assert alive() is None
    assert log == [True]
    assert unraisable.messages == []


def test_a_cycle_through_attributes_of_a_subclass_is_collected() -> None:
    class Task(greenlet):
        def __init__(self) -> None:
            super().__init__(self.body)
            self.canary = Watched()

        def body(self) -> None:
            to_parent()

    task = Task()
    alive = weakref.ref(task.canary)
    del task
    collect()
    assert alive() is None


def test_a_context_that_holds_its_greenlet_is_collected() -> None:
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")
    context = contextvars.Context()
    g = greenlet(lambda: None)
    g.gr_context = context
    context.run(variable.set, g)
    alive = weakref.ref(g)
    del g, context
    collect()
    assert alive() is None


def test_an_attribute_of_a_living_greenlet_is_not_collected() -> None:
    g: Any = greenlet(to_parent)
    g.canary = Watched()
    g.canary.cycle = g.canary
    g.switch()
    alive = weakref.ref(g.canary)
    collect()
    assert alive() is g.canary
    g.switch()


# --- at any moment --------------------------------------------------------------------------------


def in_every_state() -> dict[str, greenlet]:
    """Greenlets of every state, suspended in several kinds of places."""
    main = getcurrent()

    def in_a_call(*args: Any, **kwargs: Any) -> Any:
        local = [Watched() for _ in range(5)]
        return main.switch(local)

    def in_an_inlined_call() -> Any:
        return in_a_call(Watched(), key=Watched())

    def in_a_generator() -> Any:
        def generator() -> Any:
            yield main.switch()

        return list(generator())

    def in_a_handler() -> Any:
        try:
            raise KeyError(Watched())
        except KeyError:
            return main.switch()

    def in_a_finally() -> Any:
        try:
            return Watched()
        finally:
            main.switch()

    def in_a_c_call() -> Any:
        return sorted([Watched(), Watched()], key=lambda item: main.switch() or 0)

    def in_a_loop() -> Any:
        for item in iter([Watched(), Watched()]):
            main.switch(item)

    def in_an_expression() -> Any:
        return [Watched(), {Watched(): Watched()}, (Watched(), main.switch())]

    def with_unpacked_arguments() -> Any:
        return in_a_call(*[Watched()], **{"key": Watched()})  # noqa: PIE804 - the call form matters

    def with_unbound_locals() -> Any:
        bound = Watched()
        main.switch()
        late = bound
        return late

    family = {
        function.__name__: greenlet(function)
        for function in (
            in_a_call,
            in_an_inlined_call,
            in_a_generator,
            in_a_handler,
            in_a_finally,
            in_a_c_call,
            in_a_loop,
            in_an_expression,
            with_unpacked_arguments,
            with_unbound_locals,
        )
    }
    family["directly in switch"] = greenlet(main.switch)
    for g in family.values():
        g.switch()
    family["new"] = greenlet(lambda: None)
    family["new without run"] = greenlet()
    family["finished"] = greenlet(lambda: None)
    family["finished"].switch()
    return family


def finish(family: dict[str, greenlet]) -> None:
    """Let every started greenlet run to its end."""
    for g in family.values():
        while g:
            g.switch()


def test_collecting_with_greenlets_in_every_state_disturbs_none_of_them() -> None:
    family = in_every_state()
    for _ in range(3):
        gc.collect()
    finish(family)
    assert all(g.dead for name, g in family.items() if "new" not in name)


def test_collecting_inside_a_greenlet_sees_the_suspended_main_greenlet() -> None:
    local = [Watched()]
    alive = weakref.ref(local[0])
    greenlet(gc.collect).switch()
    assert local[0] is alive()


def test_collecting_after_every_switch_disturbs_nothing() -> None:
    def run() -> list[int]:
        local = []
        for value in range(10):
            local.append([value])
            to_parent()
            gc.collect(0)
        return [item for [item] in local]

    family = [greenlet(run) for _ in range(5)]
    while not family[-1].dead:
        results = [g.switch() for g in family]
        gc.collect()
    assert results == [list(range(10))] * 5


def test_collections_in_another_thread_disturb_no_greenlet() -> None:
    with in_background(collect_until):
        for _ in range(20):
            finish(in_every_state())


def test_what_a_suspended_greenlet_uses_survives_a_collection() -> None:
    main = getcurrent()

    def run() -> list[bool]:
        local = Watched()
        cycle: list[Any] = [local]
        cycle.append(cycle)
        alive = weakref.ref(local)
        del local
        kept = []
        for _ in range(3):
            main.switch()
            kept.append(alive() is cycle[0])
        return kept

    g = greenlet(run)
    for _ in range(3):
        g.switch()
        gc.collect()
    assert g.switch() == [True] * 3


def test_a_collection_at_every_allocation_disturbs_nothing() -> None:
    run_clean(
        """
        import gc
        from greenlet import getcurrent, greenlet

        gc.set_threshold(1)
        main = getcurrent()

        def generator(values):
            for value in values:
                yield main.switch([value])

        def run(*values):
            try:
                total = []
                for item in generator(values):
                    total.append({"item": [item]})
                return sorted(total, key=lambda table: main.switch(dict(table)) or 0)
            finally:
                total = None

        for turn in range(50):
            family = [greenlet(run) for _ in range(5)]
            for g in family:
                g.switch(*range(5))
            for step in range(3):
                for g in family:
                    g.switch([step])
            if turn % 2:
                for g in family:
                    while not g.dead:
                        g.switch(0)
            else:
                g = None
                family.clear()
        """,
        timeout=60,
    )


def test_a_collection_at_every_allocation_of_several_threads_disturbs_nothing() -> None:
    run_clean(
        """
        import gc
        from child import run_threads
        from greenlet import getcurrent, greenlet

        gc.set_threshold(1)

        def body(value):
            local = [value]
            for _ in range(20):
                local = [*getcurrent().parent.switch(local)]
            return local

        def work():
            for turn in range(10):
                family = [greenlet(body) for _ in range(5)]
                values = [g.switch(index) for index, g in enumerate(family)]
                for _ in range(20 if turn % 2 else 10):
                    values = [g.switch(value) for g, value in zip(family, values)]
                assert values == [[index] for index in range(5)]

        run_threads(*[work] * 4)
        """,
        timeout=60,
    )


@needs_many_addresses
def test_a_collection_with_ten_thousand_suspended_greenlets_disturbs_none() -> None:
    def run(value: int) -> int:
        local = [value]
        to_parent()
        return local[0]

    family = [greenlet(run) for _ in range(10_000)]
    for value, g in enumerate(family):
        g.switch(value)
    gc.collect()
    assert [g.switch() for g in family] == list(range(10_000))


def test_deep_frames_of_a_suspended_greenlet_are_collected_around() -> None:
    def deep(level: int) -> int:
        local = [level]
        if level:
            return deep(level - 1) + local[0]
        to_parent()
        return local[0]

    g = greenlet(deep)
    g.switch(400)
    gc.collect()
    assert g.switch() == sum(range(401))


def test_collections_in_the_middle_of_many_switches() -> None:
    log = Log()
    pause = suspender("python", log)

    def run() -> Any:
        local: Any = getcurrent()
        while True:
            local = [getcurrent(), local, pause()]

    for _ in range(5):
        family = [greenlet(run) for _ in range(20)]
        for step in range(10):
            for g in family:
                if step:
                    g.switch(step)
                else:
                    g.switch()
            gc.collect(0)
    del family, g
    collect_twice()
    # Each was left ten times and came back nine times, then died.
    assert len(log.paused) == len(log.unwound) == 5 * 20 * 10


# --- frozen, disabled, by itself ------------------------------------------------------------------


def test_freezing_and_thawing_is_harmless() -> None:
    run_clean(
        """
        import gc
        from greenlet import getcurrent, greenlet

        main = getcurrent()

        def run():
            local = [object()]
            return [main.switch(), local]

        for _ in range(5):
            kept = [greenlet(run) for _ in range(20)]
            for g in kept[:10]:
                g.switch()
            gc.freeze()
            gc.collect()
            for g in kept[:5]:
                g.switch()
            gc.unfreeze()
            gc.collect()
        """
    )


def test_frozen_garbage_is_collected_once_it_is_thawed() -> None:
    run_clean(
        """
        import gc
        from greenlet import getcurrent, greenlet

        log = []
        main = getcurrent()

        def run():
            me = getcurrent()
            try:
                main.switch()
            finally:
                log.append(me)

        for _ in range(10):
            greenlet(run).switch()
        gc.freeze()
        gc.collect()
        assert log == [], log
        gc.unfreeze()
        gc.collect()
        assert len(log) == 10, log
        """
    )


@needs_many_addresses
def test_nothing_is_collected_while_the_collector_is_disabled() -> None:
    run_clean(
        """
        import gc
        from greenlet import getcurrent, greenlet

        log = []
        main = getcurrent()

        def run():
            me = getcurrent()
            try:
                main.switch()
            finally:
                log.append(True)

        gc.disable()
        for _ in range(20_000):
            greenlet(run).switch()
        assert log == [], log
        gc.enable()
        kept = [[] for _ in range(20_000)]  # makes the collector start by itself
        gc.collect()
        assert len(log) == 20_000, len(log)
        """
    )


def test_the_collector_starts_by_itself_and_collects_greenlets() -> None:
    run_clean(
        """
        import gc
        from greenlet import getcurrent, greenlet

        log = []
        main = getcurrent()

        def run():
            me = getcurrent()
            held = [[] for _ in range(50)]
            try:
                main.switch()
            finally:
                log.append(True)

        for _ in range(20_000):
            greenlet(run).switch()
        assert log
        """
    )


# --- switches while a collection runs -------------------------------------------------------------


def test_a_switch_while_a_collection_runs_is_allowed_in_a_finalizer() -> None:
    log: list[object] = []

    class Finalized:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            log.append(greenlet(lambda: "switched").switch())

    for _ in range(5):
        Finalized()
    gc.collect()
    assert log == ["switched"] * 5


def test_a_switch_is_allowed_in_a_weak_reference_callback() -> None:
    log: list[object] = []
    canary = Watched()
    canary.__dict__["cycle"] = canary
    kept = weakref.ref(canary, lambda _: log.append(greenlet(lambda: "switched").switch()))
    del canary
    gc.collect()
    assert log == ["switched"]
    assert kept() is None


def test_a_collector_callback_may_use_greenlets() -> None:
    log: list[object] = []

    def callback(phase: str, info: dict[str, int]) -> None:
        log.append(greenlet(lambda: phase).switch())

    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)
    assert log[:2] == ["start", "stop"]


def test_a_collector_callback_may_resume_a_greenlet_that_waits() -> None:
    def run() -> Any:
        while True:
            to_parent()

    waiting = greenlet(run)
    waiting.switch()
    log: list[str] = []

    def callback(phase: str, info: dict[str, int]) -> None:
        waiting.switch()
        in_a_cycle(lambda: to_parent())
        log.append(phase)

    gc.callbacks.append(callback)
    try:
        gc.collect()
        gc.collect()
    finally:
        gc.callbacks.remove(callback)
    assert len(log) >= 4
    assert log == ["start", "stop"] * (len(log) // 2)
    collect_twice()
    assert not waiting.dead


def test_a_collector_callback_may_leave_its_collection_for_another_greenlet() -> None:
    run_clean(
        """
        import gc
        from greenlet import getcurrent, greenlet

        main = getcurrent()
        log = []

        def callback(phase, info):
            if phase == "start" and getcurrent() is collector:
                log.append(main.switch("left"))

        def run():
            me = getcurrent()
            try:
                main.switch()
            finally:
                log.append("unwound")

        collector = greenlet(gc.collect)
        gc.callbacks.append(callback)
        greenlet(run).switch()
        assert collector.switch() == "left"
        assert gc.collect() == 0  # a collection runs already
        assert log == [], log
        collector.switch("resumed")
        gc.callbacks.clear()
        assert collector.dead
        gc.collect()
        assert log == ["resumed", "unwound"], log
        """
    )


# --- what the gc module shows ---------------------------------------------------------------------


@pytest.mark.parametrize("function", [gc.get_referents, gc.get_referrers])
def test_references_of_greenlets_in_every_state_can_be_listed(function: Any) -> None:
    family = in_every_state()
    for g in family.values():
        assert isinstance(function(g), list)
    assert isinstance(function(getcurrent()), list)
    assert isinstance(greenlet(lambda: function(getcurrent().parent)).switch(), list)
    finish(family)


def test_referents_name_what_a_new_greenlet_holds() -> None:
    def run() -> None: ...

    parent: Any = greenlet()
    g: Any = greenlet(run, parent)
    g.attribute = Watched()
    referents = gc.get_referents(g)
    assert any(item is run for item in referents)
    assert any(item is parent for item in referents)


def test_all_objects_can_be_listed_while_greenlets_are_suspended() -> None:
    family = in_every_state()
    objects = gc.get_objects()
    assert any(item is family["new"] for item in objects)
    del objects
    finish(family)


def test_referents_and_referrers_show_what_frames_hold() -> None:
    local, handled, argument, stacked = ([name] for name in "abcd")
    main = getcurrent()

    def run(argument: object) -> Any:
        mine = things.pop()
        return [things.pop(), main.switch(), mine]

    def work(argument: object) -> Any:
        try:
            raise ValueError(things.pop())
        except ValueError:
            return run(argument)

    things: list[object] = [stacked, local, handled]
    g = greenlet(work)
    g.switch(argument)
    referents = gc.get_referents(g)
    for expected in (local, argument, stacked):
        assert any(item is expected for item in referents)
        assert any(item is g for item in gc.get_referrers(expected))
    [exception] = [item for item in referents if isinstance(item, ValueError)]
    assert exception.args[0] is handled
    del exception, referents
    assert g.switch() == [stacked, None, local] or g.dead


def test_each_reference_is_shown_once() -> None:
    held = object()
    main = getcurrent()

    def run(things: list[object]) -> Any:
        one, two = things[0], things[0]
        return [things.pop(), main.switch(), one, two]

    g = greenlet(run)
    g.switch([held])
    assert sum(item is held for item in gc.get_referents(g)) == 3
    g.switch()


# --- traversals that are no collection ------------------------------------------------------------

FOREIGN = """
import ctypes, gc, sys
gc.disable()
from greenlet import getcurrent, greenlet

visitor_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)
visitor = visitor_type(lambda item, argument: 0)
get_slot = ctypes.pythonapi.PyType_GetSlot
get_slot.restype = ctypes.c_void_p
tp_traverse = get_slot(ctypes.py_object(greenlet), 71)
traverse = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.py_object, visitor_type, ctypes.c_void_p)(
    tp_traverse
)
main = getcurrent()
log = []

def body():
    itself = getcurrent()
    try:
        main.switch()
    finally:
        log.append(1)

def foreign(g):
    # Debuggers and memory tools do this. gc.get_referents() passes another argument.
    traverse(g, visitor, None)

if sys.argv[1] == "a new greenlet":
    foreign(greenlet(lambda: None))
elif sys.argv[1] == "a suspended greenlet":
    g = greenlet(main.switch)
    g.switch()
    foreign(g)
    del g
elif sys.argv[1] == "the main greenlet":
    foreign(main)
elif sys.argv[1] == "each greenlet in between":
    gc.collect()
for _ in range(10):
    g = greenlet(body)
    g.switch()
    if sys.argv[1] == "each greenlet in between":
        foreign(g)
    del g
for _ in range(3):
    gc.collect()
left = sum(isinstance(each, greenlet) for each in gc.get_objects())
print(len(log), left - 1)
"""


@pytest.mark.parametrize(
    "what",
    ["a new greenlet", "a suspended greenlet", "the main greenlet", "each greenlet in between"],
)
def test_a_traversal_by_other_code_is_not_taken_for_a_collection(what: str) -> None:
    assert run_clean(FOREIGN, args=[what]) == "10 0"


FAILING = ("{}[[]] = 1", "[][0] = 1", "{y for y in [[]]}", "{y: 1 for y in [[]]}")


@pytest.mark.parametrize("statement", FAILING)
@pytest.mark.parametrize("parameter", ["", "held"])
def test_a_frame_that_an_exception_leaves_shows_its_variables(
    statement: str, parameter: str
) -> None:
    # It is still at the instruction that raised the exception, but no operand is on its stack.
    namespace: dict[str, Any] = {}
    exec(f"def fails({parameter}):\n    {statement}", namespace)
    main = getcurrent()

    def profile(frame: FrameType, event: str, arg: object) -> None:
        if event == "return" and frame.f_code.co_name == "fails":
            main.switch("unwound")

    def run() -> str:
        sys.setprofile(profile)
        try:
            namespace["fails"](*([Canary(log, None)] if parameter else []))
        except (TypeError, IndexError):
            return "ended"
        finally:
            sys.setprofile(None)
        return "did not fail"

    for _ in range(5):
        log = Log()
        g = greenlet(run)
        assert g.switch() == "unwound"
        gc.collect()
        assert any(isinstance(one, Canary) for one in gc.get_referents(g)) == bool(parameter)
        assert log.died == []
        assert g.switch() == "ended"
        assert len(log.died) == bool(parameter)
