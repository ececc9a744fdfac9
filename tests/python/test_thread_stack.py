"""stacks.call_on_thread_stack(): a call of the running greenlet on the OS thread's own stack."""

from __future__ import annotations

import contextvars
import gc
import inspect
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from greenlet import GreenletExit, _greenlet, error, getcurrent, greenlet, settrace, stacks
from greenlet.stacks import call_on_thread_stack, on_thread_stack
from helpers import (
    DEBUG_BUILD,
    Unraisable,
    collect,
    in_thread,
    load_extension,
    parallelize,
    run_clean,
    since,
    to_parent,
)

TEXT = "cannot switch in a call on the thread's own stack"


@pytest.fixture(scope="module")
def positions(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The extension that compares its stack pointer with the thread's bounds."""
    return load_extension("positions.cpp", tmp_path_factory.mktemp("extensions"))


def in_greenlet(function: Callable[..., Any], *args: Any) -> Any:
    """Return function(*args), called by a greenlet on the thread's own stack."""
    return greenlet(lambda: call_on_thread_stack(function, *args)).switch()


# --- where it runs --------------------------------------------------------------------------------


def test_the_function_runs_between_the_bounds_of_the_threads_stack(positions: Any) -> None:
    assert positions.on_own_stack()
    assert not greenlet(positions.on_own_stack).switch()
    assert in_greenlet(positions.on_own_stack)


def test_the_function_runs_in_every_thread_on_the_stack_of_that_thread(positions: Any) -> None:
    def body(index: int) -> bool:
        assert not greenlet(positions.on_own_stack).switch()
        return all(in_greenlet(positions.on_own_stack) for _ in range(50))

    assert all(parallelize(body))


def test_the_caller_goes_on_where_it_called(positions: Any) -> None:
    def run() -> list[bool]:
        before = positions.position()
        seen = [call_on_thread_stack(positions.on_own_stack), positions.on_own_stack()]
        return [*seen, positions.position() == before]

    assert greenlet(run).switch() == [True, False, True]


def test_frames_that_wait_on_the_threads_stack_are_left_alone(positions: Any) -> None:
    g = greenlet(lambda: call_on_thread_stack(positions.fill, 100_000))
    assert positions.guarded(g.switch)


def test_a_call_in_a_main_greenlet_is_a_plain_one(positions: Any) -> None:
    assert call_on_thread_stack(positions.on_own_stack)
    g = greenlet(to_parent)
    call_on_thread_stack(g.switch)
    assert g
    call_on_thread_stack(g.switch)
    assert g.dead


def test_a_thread_without_greenlets_may_call_on_its_stack(positions: Any) -> None:
    before = _greenlet.get_total_main_greenlets()
    assert in_thread(
        lambda: (
            call_on_thread_stack(positions.on_own_stack),
            _greenlet.get_total_main_greenlets() == before,
        )
    ) == (True, True)


def test_calls_nest(positions: Any) -> None:
    def outer() -> list[Any]:
        with pytest.raises(error):
            to_parent()
        inner = call_on_thread_stack(positions.on_own_stack)
        with pytest.raises(error):
            to_parent()
        return [inner, positions.on_own_stack()]

    assert in_greenlet(outer) == [True, True]


# --- it is a call as any other --------------------------------------------------------------------


def test_arguments_and_the_result_pass_through() -> None:
    def function(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    def run() -> Any:
        return [
            call_on_thread_stack(function),
            call_on_thread_stack(function, 1, 2, function=3, x=4),
            call_on_thread_stack(function, *range(20)),
        ]

    assert greenlet(run).switch() == [
        ((), {}),
        ((1, 2), {"function": 3, "x": 4}),
        (tuple(range(20)), {}),
    ]


@pytest.mark.parametrize("kind", ["in main", "in a greenlet"])
def test_what_is_not_callable_and_no_function_at_all_are_type_errors(kind: str) -> None:
    anything: Any = call_on_thread_stack

    def run() -> None:
        with pytest.raises(TypeError, match="needs a function"):
            anything()
        with pytest.raises(TypeError, match="not callable"):
            anything(1)
        with pytest.raises(TypeError):
            anything(function=len)

    run() if kind == "in main" else greenlet(run).switch()


def test_an_exception_passes_through_with_no_entry_in_its_traceback() -> None:
    raised = KeyError("mine")

    def function() -> None:
        raise raised

    def run() -> None:
        call_on_thread_stack(function)

    with pytest.raises(KeyError) as caught:
        greenlet(run).switch()
    assert caught.value is raised
    names = [entry.name for entry in traceback.extract_tb(raised.__traceback__)]
    assert names[1:] == ["run", "function"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GreenletExit, StopIteration])
def test_exceptions_that_are_special_elsewhere_pass_through(kind: type[BaseException]) -> None:
    def function() -> None:
        raise kind

    def run() -> str:
        try:
            call_on_thread_stack(function)
        except kind as caught:
            return type(caught).__name__
        return "none"

    assert greenlet(run).switch() == kind.__name__


def test_the_running_greenlet_and_its_frames_are_the_same() -> None:
    def names(frame: FrameType | None) -> Iterator[str]:
        while frame is not None:
            yield frame.f_code.co_name
            frame = frame.f_back

    def function() -> Any:
        return getcurrent(), list(names(sys._getframe()))

    def run() -> Any:
        return call_on_thread_stack(function)

    g = greenlet(run)
    assert g.switch() == (g, ["function", "run"])


def test_the_context_and_the_handled_exception_are_the_same() -> None:
    variable = contextvars.ContextVar("variable", default=0)

    def function() -> Any:
        seen = variable.get(), type(sys.exc_info()[1])
        variable.set(2)
        return seen

    def run() -> Any:
        variable.set(1)
        try:
            raise KeyError
        except KeyError:
            seen = call_on_thread_stack(function)
            return seen, variable.get(), type(sys.exc_info()[1])

    assert greenlet(run).switch() == ((1, KeyError), 2, KeyError)
    assert variable.get() == 0


def test_tracers_and_profilers_see_the_same_as_of_a_plain_call() -> None:
    def function() -> None:
        len(())

    def calling(call: Callable[..., Any]) -> list[str]:
        seen: list[str] = []

        def tracer(frame: FrameType, event: str, arg: object) -> Any:
            if frame.f_code is function.__code__:
                seen.append(event)
            return tracer

        def run() -> None:
            sys.settrace(tracer)
            sys.setprofile(
                lambda frame, event, arg: tracer(frame, f"profile {event}", arg) and None
            )
            call(function)
            sys.setprofile(None)
            sys.settrace(None)

        greenlet(run).switch()
        return seen

    plain = calling(lambda called: called())
    assert calling(call_on_thread_stack) == plain
    assert "line" in plain and "profile c_call" in plain


def test_the_trace_callback_sees_nothing_of_the_call() -> None:
    seen: list[Any] = []
    settrace(lambda event, greenlets: seen.append(event))
    in_greenlet(lambda: None)
    settrace(None)
    assert seen == ["switch", "switch"]


def test_a_generator_goes_on_on_either_stack(positions: Any) -> None:
    def numbers() -> Iterator[bool]:
        while True:
            yield positions.on_own_stack()

    def run() -> list[bool]:
        generator = numbers()
        return [
            next(generator),
            call_on_thread_stack(next, generator),
            next(generator),
            call_on_thread_stack(next, generator),
        ]

    assert greenlet(run).switch() == [False, True, False, True]


def test_cpp_exceptions_are_thrown_and_caught_in_the_call(positions: Any) -> None:
    def run() -> list[Any]:
        return [
            call_on_thread_stack(positions.throw_and_catch, 20),
            call_on_thread_stack(positions.while_handling, lambda: positions.throw_and_catch(5)),
            positions.while_handling(lambda: call_on_thread_stack(positions.throw_and_catch, 5)),
        ]

    g = greenlet(lambda: (to_parent(), run())[1])
    positions.while_handling(g.switch)
    assert g.switch() == ["thrown", ("thrown", "thrown"), ("thrown", "thrown")]


def test_nothing_is_leaked() -> None:
    class Token:
        pass

    collect()
    in_use = stacks.statistics().in_use
    g = greenlet(lambda: [call_on_thread_stack(len, [Token()]) for _ in range(100)] and to_parent())
    g.switch()
    before = sys.getrefcount(g)
    g.switch()
    assert sys.getrefcount(g) == before
    gone = weakref.ref(g)
    del g
    collect()
    assert gone() is None
    assert stacks.statistics().in_use == in_use


# --- no switch ------------------------------------------------------------------------------------


def waiting() -> greenlet:
    g = greenlet(to_parent)
    g.switch()
    return g


def ended() -> greenlet:
    g = greenlet(lambda: None)
    g.switch()
    return g


TARGETS: dict[str, Callable[[], greenlet]] = {
    "the main greenlet": lambda: getcurrent().parent or getcurrent(),
    "a suspended one": waiting,
    "a new one": lambda: greenlet(lambda: None),
    "one that has ended": ended,
    "itself": getcurrent,
    "another thread's": lambda: in_thread(getcurrent),
    "one without a run": greenlet,
}

WAYS: dict[str, Callable[[greenlet, Any], Any]] = {
    "switch": lambda g, positions: g.switch(),
    "switch with a value": lambda g, positions: g.switch(1),
    "switch with arguments": lambda g, positions: g.switch(1, 2, x=3),
    "throw": lambda g, positions: g.throw(),
    "throw an instance": lambda g, positions: g.throw(KeyError()),
    "the C API's switch": lambda g, positions: positions.switch_by_c_api(g),
    "the C API's throw": lambda g, positions: positions.throw_by_c_api(g),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", TARGETS)
def test_no_switch_is_possible(target: str, way: str, positions: Any) -> None:
    def run() -> tuple[bool, bool]:
        g = TARGETS[target]()
        active = bool(g)

        def function() -> None:
            for _ in range(3):
                with pytest.raises(error, match=TEXT):
                    WAYS[way](g, positions)

        call_on_thread_stack(function)
        return active, bool(g)

    before, after = greenlet(run).switch()
    assert before == after
    collect()


def test_after_the_call_all_goes_on() -> None:
    main = getcurrent()

    def function(*others: greenlet) -> None:
        for g in (*others, main):
            with pytest.raises(error):
                g.switch()

    def run() -> Any:
        new, suspended = greenlet(lambda value: value), waiting()
        call_on_thread_stack(function, new, suspended)
        return new.switch(1), suspended.switch(2), main.switch(3)

    g = greenlet(run)
    assert g.switch() == 3
    assert g.switch(4) == (1, 2, 4)


def test_greenlets_may_be_made_and_looked_at_in_the_call() -> None:
    main = getcurrent()
    collect()
    in_use = stacks.statistics().in_use
    other = waiting()

    def function() -> Any:
        made = greenlet(lambda: 7)
        frame = other.gr_frame
        assert frame is not None and frame.f_code.co_name == "to_parent"
        assert main.gr_frame is not None
        assert main._stack_saved > 0 and other._stack_saved > 0
        assert getcurrent()._stack_saved == 0 and getcurrent().gr_frame is None
        assert made.parent is getcurrent() and not made and not made.dead
        assert stacks.statistics().in_use == in_use + 2
        assert _greenlet.get_pending_cleanup_count() == 0
        made.parent = main
        gc.collect()
        return made

    assert in_greenlet(function).switch() == 7


def test_a_signal_handler_that_switches_in_the_call_gets_the_error() -> None:
    main = getcurrent()

    def handler(number: int, frame: FrameType | None) -> None:
        main.switch()

    def function() -> None:
        with pytest.raises(error, match=TEXT):
            signal.raise_signal(signal.SIGUSR1)
            for _ in range(1000):
                pass

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        in_greenlet(function)
    finally:
        signal.signal(signal.SIGUSR1, previous)


# --- greenlets that have to end wait --------------------------------------------------------------


class WithDel(greenlet):
    def __del__(self) -> None:
        pass


class WithSlots(greenlet):
    __slots__ = ("mine",)


class WithDict(greenlet):
    pass


CLASSES = [greenlet, WithDel, WithSlots, WithDict]


def ending(kind: type[greenlet], log: list[Any]) -> Any:
    def run() -> None:
        me = id(getcurrent())
        try:
            to_parent()
        finally:
            current: Any = getcurrent()
            log.append(id(current) == me and current.mine)

    g: Any = kind(run)
    g.mine = 1  # in a slot or in its dict; must still be there when the greenlet ends
    g.switch()
    return g


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("way", ["dropped", "collected", "in another thread"])
def test_greenlets_dropped_in_the_call_end_when_it_is_over(kind: type[greenlet], way: str) -> None:
    log: list[Any] = []
    count = 5
    collect()
    in_use = stacks.statistics().in_use

    def run() -> Any:
        family = [ending(kind, log) for _ in range(count)]
        if way == "collected":
            for g in family:
                vars(g)["me"] = g
            del g

        def function() -> Any:
            if way == "in another thread":
                in_thread(family.clear)
            else:
                family.clear()
            collect()
            with pytest.raises(error):
                to_parent()
            return list(log)

        during = call_on_thread_stack(function)
        return during, list(log)

    with Unraisable() as unraisable:
        during, after = greenlet(run).switch()
        collect()
    assert during == []
    if way == "in another thread":
        assert len(after) in range(count + 1)  # free-threaded builds may end it later
    else:
        assert len(after) == count
    collect()
    getcurrent()
    collect()
    getcurrent()
    assert log == [1] * count
    assert unraisable.messages == []
    assert stacks.statistics().in_use == in_use
    assert _greenlet.get_pending_cleanup_count() == 0


def test_greenlets_dropped_in_the_call_leave_its_exception_or_result_intact() -> None:
    log: list[Any] = []

    def function(family: list[greenlet]) -> None:
        family.clear()
        raise KeyError("mine")

    def run() -> Any:
        try:
            call_on_thread_stack(function, [ending(greenlet, log)])
        except KeyError as caught:
            assert caught.__context__ is None
            return str(caught), len(log)
        return None

    assert greenlet(run).switch() == ("'mine'", 1)


def test_a_greenlet_dropped_in_the_call_may_switch_in_its_finally_block() -> None:
    main = getcurrent()
    log: list[str] = []
    seen: list[greenlet] = []

    def stubborn() -> None:
        try:
            to_parent()
        finally:
            seen.append(getcurrent())
            log.append(main.switch("from finally"))

    def run() -> str:
        family = [greenlet(stubborn)]
        family[0].switch()
        call_on_thread_stack(family.clear)
        return "end"

    g = greenlet(run)
    assert g.switch() == "from finally"
    (left,) = seen
    left.switch("back")
    assert log == ["back"]
    while not g.dead:
        g.switch()


def test_a_greenlet_that_is_being_killed_may_call_on_the_thread_stack(positions: Any) -> None:
    log: list[bool] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            log.append(call_on_thread_stack(positions.on_own_stack))

    g = greenlet(run)
    g.switch()
    del g
    collect()
    assert log == [True]


@pytest.mark.parametrize("call", [True, False], ids=["by the call", "plainly"])
def test_a_greenlet_that_calls_on_the_thread_stack_when_it_is_dropped_goes_at_once(
    call: bool,
) -> None:
    seen: list[object] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            call_on_thread_stack(seen.append, 1) if call else seen.append(1)

    g = greenlet(run)
    g.switch()
    reference = weakref.ref(g)
    del g
    assert (seen, reference()) == ([1], None)
    assert _greenlet.get_pending_cleanup_count() == 0


@pytest.mark.parametrize("call", [True, False], ids=["by the call", "plainly"])
def test_a_greenlet_that_calls_on_the_thread_stack_when_it_is_dropped_and_waits_again_is_kept(
    call: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """It gets GreenletExit once, as outside such a call."""
    seen: list[object] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            call_on_thread_stack(seen.append, 1) if call else seen.append(1)
            try:
                to_parent()
            except BaseException as raised:
                seen.append(raised)

    def make() -> weakref.ref[greenlet]:
        g = greenlet(run)
        g.switch()
        return weakref.ref(g)

    reference = make()
    getcurrent()  # ends the greenlets that other threads have dropped
    g = reference()
    assert g is not None and not g.dead
    assert seen == [1]
    assert capfd.readouterr().err.startswith("GreenletExit did not kill <greenlet")
    g.switch()


def test_many_calls_with_drops_by_other_threads_lose_nothing() -> None:
    log: list[int] = []
    count = 300
    collect()
    in_use = stacks.statistics().in_use

    def run() -> None:
        for index in range(count):
            g = ending_by_append(log, index)
            box = [g]
            del g
            thread = threading.Thread(target=box.clear)
            call_on_thread_stack(thread.start)
            call_on_thread_stack(thread.join)

    greenlet(run).switch()
    for _ in range(100):
        collect()
        getcurrent()
        if len(log) == count:
            break
    assert sorted(log) == list(range(count))
    assert stacks.statistics().in_use == in_use


def ending_by_append(log: list[int], index: int) -> greenlet:
    def run() -> None:
        try:
            to_parent()
        finally:
            log.append(index)

    g = greenlet(run)
    g.switch()
    return g


# --- recursion ------------------------------------------------------------------------------------

RECURSION = """
import sys
from greenlet import greenlet, stacks

def depth(call=None):
    # How deep calls from C code to Python code nest; each uses the C stack.
    deepest = 0
    def deeper(level):
        nonlocal deepest
        deepest = level
        list(map(deeper, [level + 1]))
    try:
        deeper(1)
    except RecursionError:
        return deepest

def under(frames, function):
    return function() if frames == 0 else list(map(lambda _: under(frames - 1, function), [0]))[0]

def in_greenlet():
    return greenlet(lambda: stacks.call_on_thread_stack(depth)).switch()
"""


@since("C recursion is bounded for itself")
@pytest.mark.parametrize("where", ["the main thread", "a thread", "a small thread"])
def test_recursion_in_the_call_goes_as_deep_as_in_the_main_greenlet(where: str) -> None:
    script = """
sys.setrecursionlimit(1_000_000)
def body():
    for frames in (0, 100, 300 if sys.argv[1] != "a small thread" else 100):
        for _ in range(3):
            main, call = under(frames, depth), under(frames, in_greenlet)
            assert abs(main - call) <= 5 + main // 20, (frames, main, call)
if sys.argv[1] == "the main thread":
    body()
else:
    import threading
    if sys.argv[1] == "a small thread":
        threading.stack_size(1 << 20 if sys.version_info >= (3, 14) else 16 << 20)
    failed = []
    threading.excepthook = lambda args: failed.append(args.exc_value)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert not failed, failed
"""
    run_clean(RECURSION + script, args=[where], timeout=90)


def test_the_depth_is_the_same_after_the_call() -> None:
    run_clean(
        RECURSION
        + """
def body():
    before = depth()
    for _ in range(20):
        stacks.call_on_thread_stack(depth)
    try:
        stacks.call_on_thread_stack(lambda: stacks.no_such_name)
    except AttributeError:
        pass
    assert abs(depth() - before) <= 3, (depth(), before)
    return "ok"
sys.setrecursionlimit(400)
assert under(50, lambda: greenlet(body).switch()) == "ok"
limit = sys.getrecursionlimit()
def lower():
    sys.setrecursionlimit(limit + 50)
under(50, lambda: greenlet(lambda: stacks.call_on_thread_stack(lower)).switch())
sys.setrecursionlimit(limit)
assert greenlet(body).switch() == "ok"
""",
        timeout=90,
    )


@pytest.mark.parametrize("limit", [300, 1000])
def test_a_main_greenlet_that_waits_at_its_limit_leaves_no_room_or_enough(limit: int) -> None:
    run_clean(
        RECURSION
        + """
def waits():
    while True:
        main.switch()
        try:
            stacks.call_on_thread_stack(sum, range(10))
            stacks.call_on_thread_stack(under, 5, lambda: 1)
            log.append("done")
        except RecursionError:
            log.append("too deep")
from greenlet import getcurrent
main, log = getcurrent(), []
sys.setrecursionlimit(int(sys.argv[1]))
g = greenlet(waits)
g.switch()
def deep():
    try:
        deep()
    except RecursionError:
        pass
    try:
        g.switch()
    except RecursionError:
        pass
deep()
g.switch()
assert len(log) > 10 and log[-1] == "done", log
""",
        args=[str(limit)],
    )


def test_a_call_from_deep_in_a_greenlet_has_the_whole_stack_of_the_thread() -> None:
    def deep(level: int) -> Any:
        if level:
            return next(iter(list(map(deep, [level - 1]))))
        return call_on_thread_stack(down, 50)

    def down(level: int) -> int:
        return 0 if level == 0 else 1 + next(iter(list(map(down, [level - 1]))))

    assert greenlet(deep).switch(60) == 50


# --- the ends of threads and processes ------------------------------------------------------------

PRELUDE = """
import os, sys, threading, time
from greenlet import error, getcurrent, greenlet, stacks
from greenlet.stacks import call_on_thread_stack
def in_greenlet(function, *args):
    return greenlet(lambda: call_on_thread_stack(function, *args)).switch()
"""


def test_sys_exit_in_the_call_ends_the_program() -> None:
    assert run_clean(PRELUDE + "in_greenlet(sys.exit, 0)\nprint('not reached')\n") == ""


def test_os_exit_in_the_call_ends_the_program() -> None:
    assert run_clean(PRELUDE + "in_greenlet(os._exit, 0)\nprint('not reached')\n") == ""


def test_sys_exit_in_the_call_ends_a_thread() -> None:
    run_clean(
        PRELUDE
        + """
thread = threading.Thread(target=in_greenlet, args=(sys.exit,))
thread.start()
thread.join()
assert in_greenlet(len, "abc") == 3
"""
    )


@pytest.mark.parametrize("waits", ["lock.acquire()", "while True: pass", "time.sleep(100)"])
def test_a_daemon_thread_may_be_in_the_call_when_the_program_ends(waits: str) -> None:
    run_clean(
        PRELUDE
        + f"""
lock = threading.Lock()
lock.acquire()
inside = threading.Event()
def function():
    inside.set()
    {waits}
for _ in range(3):
    inside.clear()
    threading.Thread(target=in_greenlet, args=(function,), daemon=True).start()
    inside.wait()
"""
    )


def test_a_child_forked_in_the_call_goes_on_there() -> None:
    run_clean(
        PRELUDE
        + """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
def fork():
    child = os.fork()
    try:
        getcurrent().parent.switch()
    except error:
        return child
    os._exit(3)

def body():
    main = getcurrent()
    other = greenlet(lambda: getcurrent().parent.switch())
    def run():
        other.switch()
        child = call_on_thread_stack(fork)
        return child, other.switch(1), main.switch("main")
    other.parent = task = greenlet(run)
    assert task.switch() == "main"
    child, one, two = task.switch(2)
    assert (one, two) == (1, 2)
    if child == 0:
        assert in_greenlet(sum, range(5)) == 10
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

body()
thread = threading.Thread(target=body)
thread.start()
thread.join()
"""
    )


def test_finally_blocks_at_the_end_of_a_thread_may_call_on_its_stack() -> None:
    assert (
        run_clean(
            PRELUDE
            + """
def run():
    try:
        getcurrent().parent.switch()
    finally:
        print(call_on_thread_stack(sum, [1, 2]))
def body():
    global kept
    kept = greenlet(run)
    kept.switch()
thread = threading.Thread(target=body)
thread.start()
thread.join()
"""
        )
        == "3"
    )


def test_faulthandler_shows_the_frames() -> None:
    outcome = run_clean(
        PRELUDE
        + """
import faulthandler
def function():
    faulthandler.dump_traceback(sys.stdout, all_threads=False)
def run():
    call_on_thread_stack(function)
greenlet(run).switch()
"""
    )
    assert "in function" in outcome and "in run" in outcome


# --- several thread states ------------------------------------------------------------------------


def test_another_thread_state_may_use_greenlets_in_the_call(positions: Any) -> None:
    seen: list[Any] = []

    def other() -> None:
        seen.append(positions.on_own_stack())
        seen.append(greenlet(positions.on_own_stack).switch())
        seen.append(in_greenlet(positions.on_own_stack))
        seen.append(positions.guarded(lambda: in_greenlet(positions.fill, 50_000)))

    def function() -> None:
        assert positions.guarded(lambda: positions.in_another_thread_state(other))
        with pytest.raises(error):
            to_parent()

    in_greenlet(function)
    assert seen == [True, False, True, True]


def test_a_thread_state_that_runs_on_the_stack_of_another_is_refused_the_call(
    positions: Any,
) -> None:
    seen: list[str] = []

    def attempt() -> None:
        try:
            call_on_thread_stack(len, ())
        except error as refused:
            seen.append(str(refused))

    def other() -> None:
        attempt()
        greenlet(attempt).switch()

    greenlet(positions.in_another_thread_state).switch(other)
    assert len(seen) == 2
    assert all("cannot call on the thread's own stack" in text for text in seen)


@since("concurrent.interpreters")
def test_other_interpreters_work_in_the_call() -> None:
    run_clean(
        PRELUDE
        + """
from concurrent import interpreters
source = '''
import sys
def deep(n):
    return n if n == 0 else 1 + list(map(deep, [n - 1]))[0]
assert deep(100) == 100
class Cycle: pass
for _ in range(1000):
    cycle = Cycle(); cycle.me = cycle
import gc; gc.collect()
from greenlet import greenlet, stacks
assert greenlet(lambda: stacks.call_on_thread_stack(deep, 50)).switch() == 50
'''
def function():
    interpreter = interpreters.create()
    interpreter.exec(source)
    interpreter.close()
for _ in range(3):
    in_greenlet(function)
"""
    )


# --- the decorator --------------------------------------------------------------------------------


def test_the_decorator_makes_each_call_one_on_the_threads_stack(positions: Any) -> None:
    @on_thread_stack
    def function(one: int, *, two: int) -> tuple[int, bool]:
        """What it does."""
        return one + two, positions.on_own_stack()

    class Class:
        @on_thread_stack
        def method(self) -> tuple[Class, bool]:
            return self, positions.on_own_stack()

    assert function.__name__ == "function" and function.__doc__ == "What it does."
    assert list(inspect.signature(function).parameters) == ["one", "two"]
    assert greenlet(lambda: function(1, two=2)).switch() == (3, True)
    instance = Class()
    assert greenlet(instance.method).switch() == (instance, True)
    with pytest.raises(TypeError):
        greenlet(lambda: function(1)).switch()  # type: ignore[call-arg]


def test_the_decorator_refuses_what_runs_later() -> None:
    async def coroutine() -> None: ...

    async def async_generator() -> Any:
        yield

    def generator() -> Any:
        yield

    for function in (coroutine, generator, async_generator):
        with pytest.raises(TypeError, match="does not run when it is called"):
            on_thread_stack(function)


def test_the_signature_and_the_docstring_are_there() -> None:
    parameters = inspect.signature(call_on_thread_stack).parameters
    assert list(parameters) == ["function", "args", "kwargs"]
    assert "OS thread" in (call_on_thread_stack.__doc__ or "")
    assert call_on_thread_stack.__name__ == "call_on_thread_stack"


# --- everything at random -------------------------------------------------------------------------

STORM = """
import gc, os, random, signal, sys, threading, time, weakref
from greenlet import GreenletExit, _greenlet, error, getcurrent, greenlet, settrace, stacks
from greenlet.stacks import call_on_thread_stack

seed, threads, rounds = (int(each) for each in sys.argv[1:4])
shared = []  # greenlets that any thread may drop
ended = [0] * threads
started = [0] * threads

class Mine(greenlet):
    __slots__ = ("extra",)
    def __del__(self):
        pass

def body(index):
    draw = random.Random(seed * 1000 + index)
    main = getcurrent()
    family = []
    refused = 0

    def recursion(level):
        return level and 1 + list(map(recursion, [level - 1]))[0]

    def generator():
        for each in range(3):
            yield act(1) if draw.random() < 0.2 else each

    def act(depth=0):
        # Does something at random, on a greenlet's stack or on the thread's.
        nonlocal refused
        what = draw.randrange(16)
        try:
            if what < 4 and depth < 6:
                return call_on_thread_stack(act, depth + 1)
            if what == 4 and depth < 6:
                return act(depth + 1)
            if what == 5:
                return recursion(draw.randrange(40))
            if what == 6:
                started[index] += 1
                g = draw.choice((greenlet, Mine))(worker)
                g.parent = main
                if draw.random() < 0.8:
                    family.append(g)
                return g.switch()
            if what == 7 and family:
                return draw.choice(family).switch(1)
            if what == 8 and family:
                return draw.choice(family).throw(KeyError("thrown"))
            if what == 9 and family:
                g = family.pop(draw.randrange(len(family)))
                if draw.random() < 0.3:
                    vars(g)["me"] = g
                if draw.random() < 0.3:
                    shared.append(g)
                return None
            if what == 10:
                while shared and draw.random() < 0.7:
                    try:
                        shared.pop()
                    except IndexError:
                        pass
            if what == 11:
                if draw.random() < 0.05:
                    gc.collect()
            if what == 12:
                return sum(1 for _ in generator())
            if what == 13:
                raise ValueError("raised")
            if what == 14 and getcurrent() is not main:
                return main.switch()
            if what == 15:
                for g in family[:3]:
                    g.gr_frame, g.dead, g._stack_saved, g.parent
        except error:
            refused += 1
        except (KeyError, ValueError):
            if draw.random() < 0.3:
                raise

    def worker(*args):
        try:
            for _ in range(draw.randrange(12)):
                try:
                    act()
                except (KeyError, ValueError):
                    pass
        finally:
            ended[index] += 1

    for _ in range(rounds):
        try:
            act()
        except (KeyError, ValueError):
            pass
        assert getcurrent() is main
        del family[60:]
    while family:
        family.pop()
    return refused

failures = []
def run(index):
    try:
        assert body(index) > 0
        gc.collect()
    except BaseException:
        import traceback
        failures.append(traceback.format_exc())

workers = [threading.Thread(target=run, args=(index,)) for index in range(1, threads)]
for worker in workers:
    worker.start()
run(0)
for worker in workers:
    worker.join()
shared.clear()
for _ in range(5):
    gc.collect()
    getcurrent()
assert not failures, failures[0]
assert _greenlet.get_pending_cleanup_count() == 0
# Some never ran, because their start was refused.
assert all(e <= s for s, e in zip(started, ended))
print(stacks.statistics().in_use)
"""


def storm(seed: int, threads: int, rounds: int) -> None:
    outcome = run_clean(STORM, args=[str(each) for each in (seed, threads, rounds)], timeout=120)
    assert outcome == "0"


@pytest.mark.parametrize("seed", range(3))
def test_calls_mixed_with_everything_at_random(seed: int) -> None:
    storm(seed, 1, 300 if DEBUG_BUILD else 1500)


@pytest.mark.parametrize("seed", range(2))
def test_calls_mixed_with_everything_at_random_in_threads(seed: int) -> None:
    storm(seed, 4, 150 if DEBUG_BUILD else 500)
