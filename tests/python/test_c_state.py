"""Switches inside C callers: what C code holds on its stack is there when it goes on."""

from __future__ import annotations

import bisect
import collections
import ctypes
import functools
import heapq
import io
import itertools
import json
import locale
import operator
import pickle
import platform
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from child import c_library
from greenlet import getcurrent, greenlet
from helpers import VERSION, run_clean, to_parent


class Switching:
    """A value whose special methods leave the greenlet before they answer."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __hash__(self) -> int:
        to_parent()
        return 7  # all have the same hash, so a table has to compare them

    def __eq__(self, other: object) -> bool:
        to_parent()
        return isinstance(other, Switching) and self.value == other.value

    def __lt__(self, other: Switching) -> bool:
        to_parent()
        return self.value < other.value

    def __add__(self, other: Switching) -> Switching:
        to_parent()
        return Switching(self.value + other.value)

    def __radd__(self, other: int) -> Switching:
        to_parent()
        return Switching(self.value + other)

    def __index__(self) -> int:
        to_parent()
        return self.value

    def __repr__(self) -> str:
        to_parent()
        return f"S{self.value}"

    def __bool__(self) -> bool:
        to_parent()
        return self.value % 2 == 1

    def __call__(self, argument: int) -> int:
        to_parent()
        return self.value + argument

    def __iter__(self) -> Iterator[int]:
        to_parent()
        for item in range(self.value):
            to_parent()
            yield item

    def __getitem__(self, index: int) -> int:
        to_parent()
        if index >= self.value:
            raise IndexError(index)
        return index

    def __len__(self) -> int:
        to_parent()
        return self.value

    def __contains__(self, item: object) -> bool:
        to_parent()
        return item == self.value

    def __enter__(self) -> int:
        to_parent()
        return self.value

    def __exit__(self, *exc_info: object) -> None:
        to_parent()

    def __getattr__(self, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        to_parent()
        return name


def identity(value: Any) -> Any:
    to_parent()
    return value


def difference(left: int, right: int) -> int:
    to_parent()
    return left - right


def defaulted() -> Any:
    table: collections.defaultdict[str, list[int]] = collections.defaultdict(lambda: identity([1]))
    return table["missing"]


def with_block() -> int:
    with Switching(3) as value:
        return value


def dict_operations() -> list[Any]:
    table = {Switching(1): "one", Switching(2): "two"}
    table[Switching(3)] = "three"
    table.setdefault(Switching(4), "four")
    table.update({Switching(1): "uno"})
    removed = table.pop(Switching(2))
    found = Switching(3) in table
    return [removed, found, sorted(table.values())]


def set_operations() -> list[Any]:
    left = {Switching(1), Switching(2)}
    left.add(Switching(2))
    left |= {Switching(3)}
    left.discard(Switching(1))
    return sorted(item.value for item in left)


def ordered_dict() -> list[Any]:
    table: collections.OrderedDict[Any, int] = collections.OrderedDict()
    table[Switching(1)] = 1
    table[Switching(2)] = 2
    table.move_to_end(Switching(1))
    return list(table.values())


def heap() -> list[int]:
    items = [Switching(value) for value in (5, 3, 4, 1, 2)]
    heapq.heapify(items)
    return [heapq.heappop(items).value for _ in range(5)]


def reader() -> list[str]:
    class Raw(io.RawIOBase):
        lines = iter([b"one\ntw", b"o\nthree", b""])

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            to_parent()
            data = next(self.lines)
            buffer[: len(data)] = data
            return len(data)

    return io.TextIOWrapper(io.BufferedReader(Raw())).read().splitlines()


def cached() -> list[int]:
    @functools.lru_cache(maxsize=2)
    def function(value: int) -> int:
        to_parent()
        return value * 2

    return [function(1), function(1), function(2), function(3), function(1)]


def unpickled() -> Any:
    return pickle.loads(pickle.dumps([Reduced(1), Reduced(2)]))


class Reduced:
    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        to_parent()
        return identity, (self.value,)


# Each calls C code that calls Python code that switches. With the result that it must return.
CALLERS: dict[str, tuple[Callable[[], Any], Any]] = {
    "sorted with a key": (lambda: sorted([3, 1, 2], key=identity), [1, 2, 3]),
    "list.sort with __lt__": (
        lambda: [item.value for item in sorted(map(Switching, [3, 1, 2]))],
        [1, 2, 3],
    ),
    "min with a key": (lambda: min([3, 1, 2], key=identity), 1),
    "max with a key": (lambda: max([3, 1, 2], key=identity), 3),
    "sum with __radd__": (lambda: sum(map(Switching, [1, 2, 3])).value, 6),  # type: ignore[union-attr]
    "map": (lambda: list(map(identity, range(5))), [0, 1, 2, 3, 4]),
    "filter": (lambda: len(list(filter(None, map(Switching, range(6))))), 3),
    "any": (lambda: any(map(identity, [0, 0, 1, 0])), True),
    "functools.reduce": (
        lambda: functools.reduce(lambda a, b: identity(a) + b, range(5)),
        10,
    ),
    "functools.partial": (lambda: functools.partial(identity, 5)(), 5),
    "functools.lru_cache": (cached, [2, 2, 4, 6, 2]),
    "functools.cmp_to_key": (
        lambda: sorted([3, 1, 2], key=functools.cmp_to_key(difference)),
        [1, 2, 3],
    ),
    "re.sub with a function": (
        lambda: re.sub("[a-c]", lambda match: identity(match.group()).upper(), "abcd"),
        "ABCd",
    ),
    "dict operations": (dict_operations, ["two", True, ["four", "three", "uno"]]),
    "set operations": (set_operations, [2, 3]),
    "OrderedDict operations": (ordered_dict, [2, 1]),
    "defaultdict factory": (defaulted, [1]),
    "Counter of values": (
        lambda: sorted(collections.Counter(map(Switching, [1, 2, 1])).values()),
        [1, 2],
    ),
    "list.index": (lambda: [Switching(1), Switching(2)].index(Switching(2)), 1),
    "list.count": (lambda: [Switching(1), Switching(1)].count(Switching(1)), 2),
    "list.extend of an iterator": (lambda: [*[0], *Switching(3)], [0, 0, 1, 2]),
    "list comparison": (lambda: [Switching(1)] == [Switching(1)], True),
    "tuple of an iterator": (lambda: tuple(Switching(4)), (0, 1, 2, 3)),
    "deque of an iterator": (lambda: list(collections.deque(Switching(3))), [0, 1, 2]),
    "itertools.chain": (
        lambda: list(itertools.chain(Switching(2), Switching(2))),
        [0, 1, 0, 1],
    ),
    "itertools.groupby": (
        lambda: [(key, len(list(items))) for key, items in itertools.groupby([1, 1, 2], identity)],
        [(1, 2), (2, 1)],
    ),
    "itertools.accumulate": (
        lambda: list(itertools.accumulate([1, 2, 3], lambda a, b: identity(a + b))),
        [1, 3, 6],
    ),
    "zip": (lambda: list(zip(Switching(2), Switching(2), strict=True)), [(0, 0), (1, 1)]),
    "repr of a list": (lambda: repr([Switching(1), Switching(2)]), "[S1, S2]"),
    "format of a string": (lambda: f"{Switching(1)!r} {Switching(2)!r}", "S1 S2"),
    "operator.add": (lambda: operator.add(Switching(1), Switching(2)).value, 3),
    "int with __index__": (lambda: "abcd"[Switching(2)], "c"),
    "range with __index__": (lambda: list(range(Switching(3))), [0, 1, 2]),
    "getattr": (lambda: getattr(Switching(1), "name"), "name"),  # noqa: B009
    "operator.attrgetter": (lambda: operator.attrgetter("name")(Switching(1)), "name"),
    "a with block": (with_block, 3),
    "reversed sequence": (lambda: list(reversed(Switching(3))), [2, 1, 0]),
    "unpacking": (lambda: (lambda a, b: [a, b])(*Switching(2)), [0, 1]),
    "in": (lambda: 3 in Switching(3), True),
    "heapq": (heap, [1, 2, 3, 4, 5]),
    "bisect": (lambda: bisect.bisect([1, 3, 5], 4, key=identity), 2),
    "json.dumps with a default": (
        lambda: json.dumps({"a": Switching(1)}, default=lambda item: identity(item.value)),
        '{"a": 1}',
    ),
    "json.loads with a hook": (
        lambda: json.loads('[{"a": 1}, {"b": {}}]', object_hook=lambda table: identity(len(table))),
        [1, 1],
    ),
    "pickle": (unpickled, [1, 2]),
    "a reader": (reader, ["one", "two", "three"]),
    "eval": (lambda: eval("identity(1) + identity(2)"), 3),
    "type with a metaclass": (
        lambda: type.__call__(identity(type), "Made", (), {}).__name__,
        "Made",
    ),
}


def drive(family: list[greenlet]) -> list[Any]:
    """Switch greenlets in turn until all have ended; return their results in order."""
    results: dict[int, Any] = {}
    while len(results) < len(family):
        for index, g in enumerate(family):
            if not g.dead:
                value = g.switch()
                if g.dead:
                    results[index] = value
    return [results[index] for index in range(len(family))]


@pytest.mark.parametrize("name", CALLERS)
def test_a_c_caller_goes_on_where_its_callback_left(name: str) -> None:
    function, expected = CALLERS[name]
    assert drive([greenlet(function)]) == [expected]


@pytest.mark.parametrize("name", CALLERS)
def test_the_same_c_caller_runs_in_several_greenlets_in_turns(name: str) -> None:
    function, expected = CALLERS[name]
    assert drive([greenlet(function) for _ in range(5)]) == [expected] * 5


def test_all_c_callers_run_in_turns() -> None:
    results = drive([greenlet(function) for function, _ in CALLERS.values()])
    assert dict(zip(CALLERS, results, strict=True)) == {
        name: expected for name, (_, expected) in CALLERS.items()
    }


@pytest.mark.parametrize("name", CALLERS)
def test_a_greenlet_dropped_inside_a_c_caller_is_unwound(name: str) -> None:
    log: list[str] = []
    function, _ = CALLERS[name]

    def run() -> None:
        try:
            function()
        finally:
            log.append("finally")

    g = greenlet(run)
    g.switch()
    assert not g.dead
    del g
    assert log == ["finally"]


def nested(level: int, function: Callable[[], Any]) -> Any:
    """Call function below `level` C calls."""
    if level == 0:
        return function()
    return next(nested(level - 1, function) for _ in [0])


@pytest.mark.parametrize("depth", [1, 10, 100])
def test_both_sides_of_a_switch_may_be_deep_in_c_calls(depth: int) -> None:
    def worker() -> list[Any]:
        return [nested(depth, to_parent) for _ in range(5)]

    g = greenlet(worker)
    g.switch()
    for value in range(4):
        nested(depth, functools.partial(g.switch, value))
    assert nested(depth, lambda: g.switch(4)) == [0, 1, 2, 3, 4]


def test_greenlets_started_deep_in_c_calls_of_others_return_to_them() -> None:
    def starter(level: int) -> int:
        if level == 0:
            return 0
        return 1 + int(nested(5, lambda: greenlet(starter).switch(level - 1)))

    assert greenlet(starter).switch(30) == 30


def test_a_starter_may_end_before_the_greenlet_it_started_deep_in_c() -> None:
    children: list[greenlet] = []
    main = getcurrent()

    def starter() -> str:
        child = greenlet(lambda: nested(10, main.switch), main)
        children.append(child)
        nested(10, child.switch)
        return "starter done"

    first = greenlet(starter)
    first.switch()
    assert first.switch() == "starter done"
    assert first.dead
    assert children[0].switch("value") == "value"


# The rounding mode for "upward" of fesetround, per machine.
FE_UPWARD = {
    **dict.fromkeys(("x86_64", "i686"), 0x800),
    **dict.fromkeys(("aarch64", "armv7l"), 0x400000),
    **dict.fromkeys(("ppc64le", "s390x"), 2),
    "riscv64": 3,
    "loongarch64": 0x200,
    "AMD64": 0x200,  # Microsoft's C library
}


@pytest.mark.skipif(
    platform.machine() not in FE_UPWARD, reason="knows no rounding constant of this machine"
)
def test_the_rounding_mode_belongs_to_a_greenlet() -> None:
    upward = FE_UPWARD[platform.machine()]
    run_clean(
        f"""
        from child import c_library
        from greenlet import getcurrent, greenlet

        libm = c_library()  # CPython has loaded libm, under whatever name
        main = getcurrent()

        def third():
            one, three = 1.0, 3.0
            return one / three

        nearest = third()

        def run():
            assert libm.fesetround({upward}) == 0
            up = third()
            for _ in range(3):
                main.switch(up)
                assert libm.fegetround() == {upward}
                assert third() == up
            return up

        g = greenlet(run)
        up = g.switch()
        assert up > nearest, (up, nearest)
        for _ in range(3):
            assert libm.fegetround() == 0
            assert third() == nearest
            g.switch()
        assert libm.fegetround() == 0
        assert third() == nearest
        """
    )


def test_floating_point_results_survive_switches() -> None:
    def series(scale: float) -> float:
        total = 0.0
        for n in range(1, 200):
            total += scale / n
            to_parent()
        return total

    expected = [sum(scale / n for n in range(1, 200)) for scale in (1.0, 2.5, 1e-300)]
    results = drive([greenlet(functools.partial(series, scale)) for scale in (1.0, 2.5, 1e-300)])
    assert results == pytest.approx(expected, rel=1e-12)


def test_a_ctypes_callback_may_switch() -> None:
    compare_type = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
    )
    libc = c_library()

    def run(values: list[int]) -> list[int]:
        array = (ctypes.c_int * len(values))(*values)

        def compare(left: Any, right: Any) -> int:
            to_parent()
            return int(left[0]) - int(right[0])

        libc.qsort(array, len(values), ctypes.sizeof(ctypes.c_int), compare_type(compare))
        return list(array)

    values = [5, 3, 9, 1, 7]
    family = [greenlet(functools.partial(run, values[index:])) for index in range(5)]
    assert drive(family) == [sorted(values[index:]) for index in range(5)]


def test_the_locale_is_that_of_the_process() -> None:
    assert greenlet(lambda: locale.setlocale(locale.LC_ALL)).switch() == locale.setlocale(
        locale.LC_ALL
    )


def test_sleeping_and_input_output_work_in_a_greenlet() -> None:
    def run() -> str:
        time.sleep(0.001)
        to_parent()
        with open(__file__) as file:
            return file.readline()

    assert drive([greenlet(run)])[0].startswith('"""Switches inside C callers')


def test_a_deallocation_that_was_put_off_goes_on_in_the_greenlet_that_put_it_off() -> None:
    """CPython puts off deallocations that nest too deep, and makes up for them further out."""
    run_clean(
        """
        from greenlet import getcurrent, greenlet, stacks

        main = getcurrent()
        deallocated_in = []

        class Link:
            def __del__(self):
                deallocated_in.append(getcurrent())
                if len(deallocated_in) == 1:
                    main.switch()

        def nested(make):
            chain = None
            for _ in range(5_000):
                chain = [make(), chain]
            return chain

        def run():
            nested(Link)  # the innermost lists are put off, and then a Link goes

        g = greenlet(run)
        stacks.set_size(g, 256 << 10)
        g.switch()
        assert deallocated_in == [g]
        nested(Link)
        assert deallocated_in == [g] + [main] * 5_000
        g.switch()
        assert deallocated_in == [g] + [main] * 5_000 + [g] * 4_999
        assert g.dead
        """
    )


@pytest.mark.skipif(VERSION < (3, 13), reason="before, what is put off ends with its outermost one")
def test_a_deallocation_that_was_put_off_does_not_outlive_its_greenlet() -> None:
    """CPython makes up for it at the next deallocation further out. There may be none."""
    run_clean(
        """
        import functools, sys
        from greenlet import greenlet, stacks

        class Dropped:
            def __del__(self):
                finalized.append(self.number)

        def level(depth):
            if depth:
                next_level(depth - 1)
            else:
                dropped.clear()
                put_off.append(not finalized)

        next_level = functools.partial(level)  # so that calls nest in C
        put_off = []
        sys.setrecursionlimit(100_000)
        for depth in range(0, 100_000, 10):
            dropped, finalized = [Dropped()], []
            dropped[0].number = depth
            g = greenlet(level)
            stacks.set_size(g, 256 << 10)
            try:
                g.switch(depth)
            except RecursionError:
                break
            assert finalized == [depth]
        assert True in put_off
        """
    )
