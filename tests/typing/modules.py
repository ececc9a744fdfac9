"""The functions and constants of the package, of `greenlet.stacks` and of `greenlet.inspect`."""

import threading
from collections.abc import Callable
from typing import Any, Literal, assert_type

import greenlet
from greenlet import inspect, stacks

Event = Literal["switch", "throw"]


def trace(event: Event, pair: tuple[greenlet.greenlet, greenlet.greenlet]) -> None:
    origin, target = pair
    assert_type(origin, greenlet.greenlet)
    assert_type(target, greenlet.greenlet)
    assert_type(event, Event)


def trace_as_programs_do(event: str, args: Any) -> object:
    return event, args


def wrong_trace(event: int) -> None: ...


greenlet.settrace(trace)
greenlet.settrace(trace_as_programs_do, all_threads=True)
old = greenlet.settrace(None)
greenlet.settrace(old)
greenlet.settrace(greenlet.gettrace())
greenlet.greenlet.settrace(None)
greenlet.settrace(wrong_trace)  # type: ignore
greenlet.settrace(callback=None)  # type: ignore
greenlet.settrace()  # type: ignore

assert_type(greenlet.getcurrent(), greenlet.greenlet)
assert_type(greenlet.__version__, str)
assert_type(greenlet.GREENLET_USE_GC, int)
assert_type(greenlet.GREENLET_USE_TRACING, int)
assert_type(greenlet.GREENLET_USE_CONTEXT_VARS, int)
assert_type(greenlet.GREENLET_USE_STANDARD_THREADING, int)
assert_type(greenlet.CLOCKS_PER_SEC, int)
assert_type(greenlet.get_clocks_used_doing_optional_cleanup(), int | None)
greenlet.enable_optional_cleanup(True)
label: str = greenlet.__implementation__
greenlet.missing  # type: ignore

# --- greenlet.stacks, also without an import of its own ---

assert_type(greenlet.stacks.get_default_size(), int)
assert_type(stacks.MIN_SIZE, int)
assert_type(stacks.MAX_SIZE, int)
assert_type(stacks.set_default_size(1 << 20), int | None)
assert_type(stacks.set_default_size(None), int | None)
stacks.set_size(greenlet.greenlet(), 1 << 20)
stacks.set_size(greenlet.greenlet(), None)
assert_type(stacks.set_pool_bound(stacks.get_pool_bound()), int)
assert_type(stacks.statistics(), stacks.StackStatistics)
assert_type(stacks.statistics().in_use, int)
assert_type(stacks.resident_bytes(), int)
assert_type(stacks.trim(), int)
stacks.report_overflow(enable=False)
stacks.set_default_size("1M")  # type: ignore
stacks.set_size(1, 1 << 20)  # type: ignore


def join(first: str, *, times: int) -> list[str]:
    return [first] * times


# Here the types of arguments and result are known: the call happens at once.
assert_type(stacks.call_on_thread_stack(join, "a", times=2), list[str])
stacks.call_on_thread_stack(join, "a", times="2")  # type: ignore
stacks.call_on_thread_stack(join)  # type: ignore


@stacks.on_thread_stack
def measure(text: str) -> int:
    return len(text)


assert_type(measure("text"), int)
measure(1)  # type: ignore

# --- greenlet.inspect ---

task = greenlet.greenlet(measure)
assert_type(inspect.all_greenlets(), list[greenlet.greenlet])
assert_type(inspect.all_greenlets(threading.current_thread()), list[greenlet.greenlet])
assert_type(inspect.describe(task), inspect.Description)
assert_type(inspect.describe(task).run, Callable[..., object] | None)
assert_type(inspect.describe(task).thread, int | None)
assert_type(inspect.count().alive, int)
assert_type(inspect.get_name(task), str)
assert_type(inspect.collected(), int)
inspect.set_name(task, "measure")
inspect.set_name(task, None)
inspect.print_tree()
greenlet.inspect.dump_on_signal(10, chain=True)
inspect.all_greenlets(1.5)  # type: ignore
inspect.describe("task")  # type: ignore
inspect.set_name(task)  # type: ignore


def report(held_up: inspect.HeldUp) -> None:
    assert_type(held_up.greenlet, greenlet.greenlet)
    assert_type(held_up.seconds, float)


assert_type(inspect.watch(0.5, report), inspect.Watch)
inspect.watch(0.5, print)
inspect.watch("0.5", report)  # type: ignore
