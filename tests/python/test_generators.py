"""Generators, coroutines and asynchronous generators that switch while they run."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from helpers import Unraisable, collect, run_clean, to_parent


def test_a_generator_may_switch_between_its_yields() -> None:
    def generator() -> Iterator[Any]:
        yield to_parent("first")
        yield to_parent("second")

    g = greenlet(lambda: list(generator()))
    assert g.switch() == "first"
    assert g.switch(1) == "second"
    assert g.switch(2) == [1, 2]


def test_a_generator_may_be_resumed_by_different_greenlets() -> None:
    main = getcurrent()

    def generator() -> Iterator[greenlet]:
        while True:
            yield getcurrent()

    shared = generator()
    a = greenlet(lambda: (main.switch(next(shared)), next(shared))[1])
    b = greenlet(lambda: next(shared))
    assert a.switch() is a
    assert b.switch() is b
    assert next(shared) is main
    assert a.switch() is a


def test_a_generator_that_runs_in_a_suspended_greenlet_cannot_be_resumed_elsewhere() -> None:
    def generator() -> Iterator[int]:
        to_parent()
        yield 1

    shared = generator()
    g = greenlet(lambda: next(shared))
    g.switch()
    assert shared.gi_running  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="generator already executing"):
        next(shared)
    assert g.switch() == 1
    with pytest.raises(StopIteration):
        next(shared)


def test_a_generator_that_runs_in_a_suspended_greenlet_cannot_be_closed() -> None:
    def generator() -> Generator[int, None, None]:
        to_parent()
        yield 1

    shared = generator()
    g = greenlet(lambda: next(shared))
    g.switch()
    with pytest.raises(ValueError, match="generator already executing"):
        shared.close()
    assert g.switch() == 1
    shared.close()
    assert g.dead


def test_a_generator_that_was_under_way_during_a_collection_is_closed_when_it_goes() -> None:
    log: list[str] = []

    def values() -> Iterator[int]:
        try:
            to_parent()
            yield 1
        finally:
            log.append("closed")

    def run() -> None:
        assert next(values()) == 1
        log.append("dropped")

    g = greenlet(run)
    g.switch()
    gc.collect()
    g.switch()
    assert log == ["closed", "dropped"]


def test_a_generator_suspended_at_a_yield_may_be_closed_while_its_greenlet_is_suspended() -> None:
    log: list[str] = []

    def generator() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            log.append("closed")

    shared = generator()

    def run() -> list[int]:
        next(shared)
        to_parent()
        return list(shared)

    g = greenlet(run)
    g.switch()
    shared.close()
    assert log == ["closed"]
    assert g.switch() == []


def test_closing_a_generator_may_switch() -> None:
    log: list[str] = []

    def generator() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            to_parent("closing")
            log.append("closed")

    def run() -> str:
        running = generator()
        next(running)
        running.close()
        return "done"

    g = greenlet(run)
    assert g.switch() == "closing"
    assert log == []
    assert g.switch() == "done"
    assert log == ["closed"]


def test_a_generator_closed_by_collection_may_switch() -> None:
    log: list[str] = []

    def generator() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            to_parent("closing")
            log.append("closed")

    def run() -> str:
        next(generator())
        collect()
        return "done"

    g = greenlet(run)
    assert g.switch() == "closing"
    assert g.switch() == "done"
    assert log == ["closed"]


def test_values_sent_and_thrown_into_a_generator_pass_switches() -> None:
    def generator() -> Generator[Any, Any, str]:
        received = yield "ready"
        to_parent(received)
        try:
            yield "next"
        except KeyError as error:
            to_parent(repr(error))
        return "returned"

    def run() -> object:
        running = generator()
        next(running)
        running.send("sent")
        try:
            running.throw(KeyError("thrown"))
        except StopIteration as stop:
            return stop.value
        return None

    g = greenlet(run)
    assert g.switch() == "sent"
    assert g.switch() == "KeyError('thrown')"
    assert g.switch() == "returned"


def test_nested_generators_that_delegate_may_switch_at_any_depth() -> None:
    def generator(level: int) -> Iterator[int]:
        if level:
            yield from generator(level - 1)
        to_parent(level)
        yield level

    g = greenlet(lambda: list(generator(20)))
    assert [g.switch() for _ in range(21)] == list(range(21))
    assert g.switch() == list(range(21))


def test_many_greenlets_run_generators_of_their_own() -> None:
    def generator(index: int) -> Iterator[int]:
        for step in range(10):
            to_parent()
            yield index * 10 + step

    family = [greenlet(lambda index=index: sum(generator(index))) for index in range(50)]
    results: list[int] = []
    while family:
        for g in list(family):
            result = g.switch()
            if g.dead:
                family.remove(g)
                results.append(result)
    assert results == [index * 100 + 45 for index in range(50)]


def test_a_generator_expression_may_switch() -> None:
    g = greenlet(lambda: list(to_parent(n) for n in range(3)))  # noqa: C400 - a generator is meant
    assert [g.switch(), g.switch("a"), g.switch("b")] == [0, 1, 2]
    assert g.switch("c") == ["a", "b", "c"]


def test_a_context_manager_made_from_a_generator_may_switch() -> None:
    @contextlib.contextmanager
    def manager() -> Iterator[str]:
        to_parent("entering")
        try:
            yield "body"
        finally:
            to_parent("leaving")

    def run() -> str:
        with manager() as value:
            to_parent(value)
        return "done"

    g = greenlet(run)
    assert [g.switch() for _ in range(4)] == ["entering", "body", "leaving", "done"]


def test_greenlet_exit_ends_a_generator_that_runs_in_the_greenlet() -> None:
    log: list[str] = []

    def generator() -> Iterator[int]:
        try:
            to_parent()
            yield 1
        finally:
            log.append("generator")

    def run() -> None:
        try:
            next(generator())
        finally:
            log.append("greenlet")

    g = greenlet(run)
    g.switch()
    g.throw()
    assert log == ["generator", "greenlet"]


def test_a_dropped_greenlet_unwinds_the_generator_that_runs_in_it() -> None:
    log: list[str] = []

    def generator() -> Iterator[int]:
        try:
            to_parent()
            yield 1
        finally:
            log.append("generator")

    with Unraisable() as unraisable:
        g = greenlet(lambda: next(generator()))
        g.switch()
        del g
        collect()
    assert log == ["generator"]
    assert unraisable.messages == []


def test_collecting_while_a_generator_is_suspended_inside_a_greenlet_is_harmless() -> None:
    def generator() -> Iterator[object]:
        local = [object()]
        to_parent()
        yield local

    running = generator()
    g = greenlet(lambda: next(running))
    g.switch()
    for _ in range(5):
        gc.collect()
    assert running.gi_frame is not None  # type: ignore[attr-defined]
    assert isinstance(g.switch(), list)


def test_a_coroutine_may_switch_while_it_runs() -> None:
    async def inner() -> Any:
        return to_parent("in the coroutine")

    async def outer() -> Any:
        return await inner()

    def run() -> object:
        coroutine = outer()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        return None

    g = greenlet(run)
    assert g.switch() == "in the coroutine"
    assert g.switch("result") == "result"


def test_a_coroutine_that_runs_in_a_suspended_greenlet_is_running() -> None:
    async def body() -> None:
        to_parent()

    coroutine = body()

    def run() -> None:
        with contextlib.suppress(StopIteration):
            coroutine.send(None)

    g = greenlet(run)
    g.switch()
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_RUNNING
    with pytest.raises(ValueError, match="coroutine already executing"):
        coroutine.send(None)
    g.switch()
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_an_asynchronous_generator_may_switch_while_it_runs() -> None:
    async def generator() -> AsyncIterator[Any]:
        yield to_parent("first")
        yield to_parent("second")

    async def gather() -> list[Any]:
        return [item async for item in generator()]

    def run() -> object:
        coroutine = gather()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        return None

    g = greenlet(run)
    assert g.switch() == "first"
    assert g.switch(1) == "second"
    assert g.switch(2) == [1, 2]


def in_greenlet_awaiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make an async function of `function`, whose nested calls may await through `wait_for`."""

    async def call(*args: Any) -> Any:
        g = greenlet(function)
        result = g.switch(*args)
        while not g.dead:
            try:
                value = await result
            except BaseException as error:
                result = g.throw(error)
            else:
                result = g.switch(value)
        return result

    return call


def wait_for(awaitable: Awaitable[Any]) -> Any:
    return to_parent(awaitable)


def test_synchronous_code_awaits_from_nested_calls_under_asyncio() -> None:
    def nested(value: int) -> int:
        wait_for(asyncio.sleep(0))
        return value * 2

    def body(count: int) -> list[int]:
        return [nested(value) for value in range(count)]

    async def many() -> list[list[int]]:
        tasks = [in_greenlet_awaiting(body)(count) for count in range(20)]
        return list(await asyncio.gather(*tasks))

    assert asyncio.run(many()) == [[value * 2 for value in range(count)] for count in range(20)]


def test_an_exception_of_an_awaited_object_is_raised_in_the_synchronous_code() -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise KeyError("awaited")

    def body() -> str:
        try:
            wait_for(failing())
        except KeyError as error:
            return repr(error)
        return "not reached"

    assert asyncio.run(in_greenlet_awaiting(body)()) == "KeyError('awaited')"


def test_cancelling_a_task_reaches_the_synchronous_code() -> None:
    log: list[str] = []

    def body() -> None:
        try:
            wait_for(asyncio.sleep(3600))
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async def program() -> None:
        task = asyncio.ensure_future(in_greenlet_awaiting(body)())
        await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(program())
    assert log == ["cancelled"]


def test_an_event_loop_may_run_inside_a_greenlet() -> None:
    async def body() -> Any:
        await asyncio.sleep(0)
        value = to_parent("from the loop")
        await asyncio.sleep(0)
        return value

    g = greenlet(lambda: asyncio.run(body()))
    assert g.switch() == "from the loop"
    assert g.switch("result") == "result"


def test_generators_left_in_suspended_greenlets_at_exit_are_silent() -> None:
    run_clean(
        """
        from greenlet import getcurrent, greenlet

        main = getcurrent()

        def generator():
            try:
                yield main.switch()
            finally:
                pass

        async def coroutine():
            main.switch()

        def send():
            coroutine().send(None)

        kept = [greenlet(lambda: next(generator())), greenlet(send)]
        for g in kept:
            g.switch()
        """
    )


def test_a_generator_that_a_collected_greenlet_of_another_thread_resumes_is_not_reported() -> None:
    # A regression: the owner unwound the greenlet while the collection finalized what it used.
    run_clean(
        """
        import gc, threading
        from greenlet import getcurrent, greenlet

        gc.disable()
        ready, collecting, looked, end = (threading.Event() for _ in range(4))

        class Waits:
            def __del__(self):
                collecting.set()
                looked.wait(10)

        def owner():
            main = getcurrent()

            def generator():
                yield 1
                main.switch()
                yield 2

            def body(resumed, waits):
                try:
                    main.switch()
                finally:
                    ended.append(next(resumed, None))

            # On builds with the GIL they are finalized in this order.
            g = greenlet(body)
            waits = Waits()
            resumed = generator()
            next(resumed)
            g.cycle = g
            g.switch(resumed, waits)
            del g, resumed, waits
            ready.set()
            collecting.wait(10)
            getcurrent()  # ends the greenlets that were handed over
            looked.set()
            end.wait(10)
            getcurrent()

        ended = []
        thread = threading.Thread(target=owner)
        thread.start()
        ready.wait()
        gc.collect()
        end.set()
        thread.join()
        assert ended == [None], ended
        """
    )
