"""The cycle collector beside greenlets: sound at any moment, and cycles are collected."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from helpers import Unraisable, collect, collect_until, run_clean, to_parent


class Canary:
    """Something whose death can be watched."""


def in_every_state() -> dict[str, greenlet]:
    """Greenlets of every state, suspended in several kinds of places."""
    main = getcurrent()

    def in_a_call(*args: Any, **kwargs: Any) -> Any:
        local = [Canary() for _ in range(5)]
        return main.switch(local)

    def in_an_inlined_call() -> Any:
        return in_a_call(Canary(), key=Canary())

    def in_a_generator() -> Any:
        def generator() -> Any:
            yield main.switch()

        return list(generator())

    def in_a_handler() -> Any:
        try:
            raise KeyError(Canary())
        except KeyError:
            return main.switch()

    def in_a_finally() -> Any:
        try:
            return Canary()
        finally:
            main.switch()

    def in_a_c_call() -> Any:
        return sorted([Canary(), Canary()], key=lambda item: main.switch() or 0)

    def in_a_loop() -> Any:
        for item in iter([Canary(), Canary()]):
            main.switch(item)

    def in_an_expression() -> Any:
        return [Canary(), {Canary(): Canary()}, (Canary(), main.switch())]

    def with_unpacked_arguments() -> Any:
        return in_a_call(*[Canary()], **{"key": Canary()})  # noqa: PIE804 - the call form matters

    def with_unbound_locals() -> Any:
        bound = Canary()
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
    local = [Canary()]
    alive = weakref.ref(local[0])
    greenlet(gc.collect).switch()
    assert local[0] is alive()


def test_collecting_after_every_switch_disturbs_nothing() -> None:
    def run() -> list[int]:
        local = []
        for value in range(20):
            local.append([value])
            to_parent()
            gc.collect(0)
        return [item for [item] in local]

    family = [greenlet(run) for _ in range(5)]
    while not family[-1].dead:
        results = [g.switch() for g in family]
        gc.collect()
    assert results == [list(range(20))] * 5


def test_collections_in_another_thread_disturb_no_greenlet() -> None:
    stop = threading.Event()

    thread = threading.Thread(target=collect_until, args=[stop])
    thread.start()
    try:
        for _ in range(20):
            finish(in_every_state())
    finally:
        stop.set()
        thread.join()


def test_what_a_suspended_greenlet_uses_survives_a_collection() -> None:
    main = getcurrent()

    def run() -> list[bool]:
        local = Canary()
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
    canary = Canary()
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
            self.canary = Canary()

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
    g.canary = Canary()
    g.canary.cycle = g.canary
    g.switch()
    alive = weakref.ref(g.canary)
    collect()
    assert alive() is g.canary
    g.switch()


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
    g.attribute = Canary()
    referents = gc.get_referents(g)
    assert any(item is run for item in referents)
    assert any(item is parent for item in referents)


def test_all_objects_can_be_listed_while_greenlets_are_suspended() -> None:
    family = in_every_state()
    objects = gc.get_objects()
    assert any(item is family["new"] for item in objects)
    del objects
    finish(family)


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
        import gc, threading
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

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """,
        timeout=60,
    )


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


def test_functions_and_classes_only_a_suspended_greenlet_knows_survive_collections() -> None:
    # Free-threaded builds do not count such references on a frame's stack.
    run_clean(
        """
        import gc, types
        from greenlet import getcurrent, greenlet

        main = getcurrent()

        def make(index):
            module = types.ModuleType(f"module{index}")
            source = f'''
        class Kind:
            value = {index}
            def method(self):
                return main.switch(self.value) or self.value
        def function(kind):
            return kind().method() + helper({index})
        def helper(value):
            return value
        '''
            import textwrap
            module.main = main
            exec(textwrap.dedent(source), module.__dict__)
            return greenlet(module.function), module.Kind

        family = []
        for index in range(200):
            g, kind = make(index)
            assert g.switch(kind) == index
            family.append(g)
            del g, kind
        for _ in range(3):
            gc.collect()
        assert [g.switch() for g in family] == [index * 2 for index in range(200)]
        """
    )
