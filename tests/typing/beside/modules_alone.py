"""Beside the stubs of types-greenlet: what mypy and pyrefly know of our modules without more."""

from typing import assert_type

from greenlet import greenlet, inspect, stacks

assert_type(stacks.MIN_SIZE, int)
assert_type(stacks.get_default_size(), int)
assert_type(stacks.statistics().in_use, int)
assert_type(stacks.call_on_thread_stack(len, "text"), int)
assert_type(inspect.all_greenlets(), list[greenlet])
assert_type(inspect.describe(greenlet()).name, str)
stacks.set_size(greenlet(), 1 << 20)
stacks.set_size(1, 1 << 20)  # type: ignore
