"""Operations that run Python code while they lock an object, as data; and a program that runs them.

Free-threaded builds lock the list, dict, type… that a C function works on ("critical sections").
In each case `first` pauses inside such an operation, and `second` works on the same object.
test_critical_sections.py runs this file as a program in child processes, because it might hang.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ctypes
import faulthandler
import functools
import heapq
import io
import itertools
import operator
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

from child import run_threads
from greenlet import getcurrent, greenlet

TOOL = 3  # an id of sys.monitoring's that nobody else uses
ROUNDS = 50  # how often each operation is tried while another thread is at the same object


def pause(value: Any = None) -> Any:
    """Switch to the main greenlet, unless it is the running one; return the argument."""
    parent = getcurrent().parent
    if parent is not None:
        parent.switch()
    return value


class Key:
    """All have the same hash, so containers must compare them; pauses when compared."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        pause()
        return isinstance(other, Key) and self.value == other.value

    def __lt__(self, other: Key) -> bool:
        pause()
        return self.value < other.value


class Pausing:
    """An iterator over numbers that pauses before each. Unlike a generator it allows re-entry."""

    def __init__(self, stop: int) -> None:
        self.numbers = iter(range(stop))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        pause()
        return next(self.numbers)


class Case:
    """Two operations on one object. A subclass's docstring is its name."""

    # What `first` raises because `second` came between, and what `second` raises, if anything.
    refused: ClassVar[tuple[type[Exception], str] | None] = None
    second_refused: ClassVar[tuple[type[Exception], str] | None] = None
    # What else both may raise when two threads repeat them at the same time.
    tolerated: ClassVar[tuple[type[Exception], ...]] = ()
    # The first free-threaded release in which two threads may do this without greenlets.
    sound_since: ClassVar[tuple[int, int]] = (3, 14)

    thing: Any

    def first(self) -> object:
        raise NotImplementedError

    def second(self) -> object:
        raise NotImplementedError

    def check(self) -> None:
        """Assert that the thing is as interleaved threads could have left it."""

    def close(self) -> None:
        """Release what the collector must not find."""


CASES: dict[str, type[Case]] = {}


def case(cls: type[Case]) -> type[Case]:
    assert cls.__doc__ is not None
    CASES[cls.__doc__] = cls
    return cls


# --- lists ----------------------------------------------------------------------------------


@case
class SortByKey(Case):
    """list.sort with a key, then append"""

    refused = (ValueError, "list modified during sort")

    def __init__(self) -> None:
        self.thing = [3, 1, 2]

    def first(self) -> None:
        self.thing.sort(key=pause)

    def second(self) -> None:
        self.thing.append(0)

    def check(self) -> None:
        assert self.thing == [1, 2, 3]


@case
class SortByComparison(Case):
    """list.sort with __lt__, then reads"""

    def __init__(self) -> None:
        self.thing = [Key(2), Key(1)]

    def first(self) -> None:
        self.thing.sort()

    def second(self) -> None:
        assert len(list(self.thing)) in (0, 2)

    def check(self) -> None:
        assert [key.value for key in self.thing] == [1, 2]


@case
class Extend(Case):
    """list.extend from an iterator, then append"""

    def __init__(self) -> None:
        self.thing: list[Any] = []

    def first(self) -> None:
        self.thing.extend(Pausing(3))

    def second(self) -> None:
        self.thing.append("new")

    def check(self) -> None:
        assert self.thing.count("new") == 1
        assert [item for item in self.thing if item != "new"] == [0, 1, 2]


@case
class AssignSlice(Case):
    """list slice from an iterator, then insert"""

    def __init__(self) -> None:
        self.thing: list[Any] = [9]

    def first(self) -> None:
        self.thing[:] = Pausing(3)

    def second(self) -> None:
        self.thing.insert(0, "new")

    def check(self) -> None:
        # Before 3.13 list computes the bounds of the slice before it reads the iterator.
        assert self.thing in ([0, 1, 2], [0, 1, 2, 9])


@case
class RemoveFromList(Case):
    """list.remove with __eq__, then append"""

    tolerated = (ValueError,)  # gone already

    def __init__(self) -> None:
        self.thing = [Key(1), Key(2)]

    def first(self) -> None:
        self.thing.remove(Key(2))

    def second(self) -> None:
        self.thing.append(Key(3))

    def check(self) -> None:
        assert [key.value for key in self.thing] == [1, 3]


@case
class CompareLists(Case):
    """list == list (locks both), then append to both"""

    def __init__(self) -> None:
        self.thing = [Key(1), Key(2)]
        self.other = [Key(1), Key(2)]

    def first(self) -> object:
        return (
            self.thing == self.other
        )  # true or false: the other one may change the object at any moment

    def second(self) -> None:
        self.thing.append(self.thing[0])
        self.other.append(self.thing[0])

    def check(self) -> None:
        assert len(self.thing) == len(self.other) == 3


@case
class PushHeap(Case):
    """heapq.heappush with __lt__, then append"""

    refused = (RuntimeError, "list changed size during iteration")

    def __init__(self) -> None:
        self.thing = [Key(1)]

    def first(self) -> None:
        heapq.heappush(self.thing, Key(0))

    def second(self) -> None:
        self.thing.append(Key(5))

    def check(self) -> None:
        assert sorted(key.value for key in self.thing) == [0, 1, 5]


# --- dicts ----------------------------------------------------------------------------------


@case
class InsertIntoDict(Case):
    """dict insert with __eq__, then insert"""

    def __init__(self) -> None:
        self.thing: dict[Any, int] = {Key(1): 1}

    def first(self) -> None:
        self.thing[Key(2)] = 2

    def second(self) -> None:
        self.thing["new"] = 3

    def check(self) -> None:
        assert sorted(self.thing.values()) == [1, 2, 3]


@case
class SetDefault(Case):
    """dict.setdefault with __eq__, then pop"""

    def __init__(self) -> None:
        self.thing: dict[Any, int] = {Key(1): 1, "other": 2}

    def first(self) -> None:
        assert self.thing.setdefault(Key(2), 3) == 3

    def second(self) -> None:
        self.thing.pop("other", None)

    def check(self) -> None:
        assert sorted(self.thing.values()) == [1, 3]


@case
class SetDefaultOfOneKey(Case):
    """dict.setdefault of one key by both, with __eq__"""

    def __init__(self) -> None:
        self.thing: dict[Any, int] = {Key(1): 1}
        self.got: list[int] = []

    def first(self) -> None:
        self.got.append(self.thing.setdefault(Key(2), 2))

    def second(self) -> None:
        self.got.append(self.thing.setdefault(Key(2), 3))

    def check(self) -> None:
        assert len(set(self.got)) == 1, "both must have got the one value that is there"
        assert sorted(self.thing.values()) == [1, self.got[0]]


@case
class UpdateDict(Case):
    """dict.update (locks both) with __eq__, then insert into both"""

    refused = (RuntimeError, "dict mutated during update")

    def __init__(self) -> None:
        self.thing: dict[Any, int] = {Key(1): 1}
        self.other: dict[Any, int] = {Key(2): 2, "last": 9}

    def first(self) -> None:
        self.thing.update(self.other)

    def second(self) -> None:
        self.thing["new"] = 3
        self.other["new"] = 3

    def check(self) -> None:
        assert {1, 2, 3} <= set(self.thing.values())
        assert len(self.other) == 3


@case
class UpdateFromIterator(Case):
    """dict.update from an iterator of pairs, then pop"""

    def __init__(self) -> None:
        self.thing: dict[Any, int] = {"old": 1}

    def first(self) -> None:
        self.thing.update(zip("abc", Pausing(3), strict=False))

    def second(self) -> None:
        self.thing.pop("old", None)

    def check(self) -> None:
        assert self.thing == {"a": 0, "b": 1, "c": 2}


@case
class PopFromDict(Case):
    """dict.pop with __eq__, then insert"""

    def __init__(self) -> None:
        self.thing: dict[Any, int] = {Key(1): 1, Key(2): 2}

    def first(self) -> None:
        self.thing.pop(Key(2), None)

    def second(self) -> None:
        self.thing["new"] = 3

    def check(self) -> None:
        assert sorted(self.thing.values()) == [1, 3]


@case
class PopOneKey(Case):
    """dict.pop of one key by both, with __eq__"""

    def __init__(self) -> None:
        self.thing: dict[Any, int] = {Key(1): 1, Key(2): 2}
        self.got: list[int | None] = []

    def first(self) -> None:
        self.got.append(self.thing.pop(Key(2), None))

    def second(self) -> None:
        self.got.append(self.thing.pop(Key(2), None))

    def check(self) -> None:
        assert set(self.got) == {2, None}, "one of them must have got it"
        assert list(self.thing.values()) == [1]


@case
class CompareDicts(Case):
    """dict == dict (locks both) with __eq__, then insert into both"""

    def __init__(self) -> None:
        self.thing: dict[Any, Any] = {"key": Key(1)}
        self.other: dict[Any, Any] = {"key": Key(1)}

    def first(self) -> object:
        return (
            self.thing == self.other
        )  # true or false: the other one may change the object at any moment

    def second(self) -> None:
        self.thing["new"] = self.other["new"] = 1

    def check(self) -> None:
        assert len(self.thing) == len(self.other) == 2


@case
class UniteDicts(Case):
    """dict |= dict with __eq__, then clear"""

    tolerated = (RuntimeError,)  # dict mutated during update

    def __init__(self) -> None:
        self.thing: dict[Any, int] = {Key(1): 1}
        self.other: dict[Any, int] = {Key(2): 2}

    def first(self) -> None:
        self.thing |= self.other

    def second(self) -> None:
        self.thing.clear()

    def check(self) -> None:
        assert 2 in self.thing.values()


@case
class InsertIntoOrderedDict(Case):
    """OrderedDict insert with __eq__, then move_to_end"""

    def __init__(self) -> None:
        self.thing: collections.OrderedDict[Any, int] = collections.OrderedDict({Key(1): 1, "b": 2})

    def first(self) -> None:
        self.thing[Key(3)] = 3

    def second(self) -> None:
        self.thing.move_to_end("b", last=False)

    def check(self) -> None:
        assert list(self.thing.values()) == [2, 1, 3]


@case
class CompareOrderedDicts(Case):
    """OrderedDict == OrderedDict (locks both) with __eq__, then setdefault"""

    tolerated = (RuntimeError,)  # OrderedDict mutated during iteration

    def __init__(self) -> None:
        self.thing: Any = collections.OrderedDict({"a": Key(1), "b": Key(2)})
        self.other: Any = collections.OrderedDict({"a": Key(1), "b": Key(2)})

    def first(self) -> object:
        return self.thing == self.other

    def second(self) -> None:
        self.thing.setdefault("c", 3)
        self.other.setdefault("c", 3)

    def check(self) -> None:
        assert list(self.thing) == list(self.other) == ["a", "b", "c"]


@case
class PopFromOrderedDict(Case):
    """OrderedDict.pop with __eq__, then insert"""

    def __init__(self) -> None:
        self.thing: collections.OrderedDict[Any, int] = collections.OrderedDict(
            {Key(1): 1, Key(2): 2}
        )

    def first(self) -> None:
        self.thing.pop(Key(2), None)

    def second(self) -> None:
        self.thing["new"] = 3

    def check(self) -> None:
        assert list(self.thing.values()) == [1, 3]


# --- sets and deques ------------------------------------------------------------------------


@case
class AddToSet(Case):
    """set.add with __eq__, then add"""

    def __init__(self) -> None:
        self.thing: set[Any] = {Key(1)}

    def first(self) -> None:
        self.thing.add(Key(2))

    def second(self) -> None:
        self.thing.add("new")

    def check(self) -> None:
        assert len(self.thing) == 3


@case
class AddOneElement(Case):
    """set.add of one element by both, with __eq__"""

    def __init__(self) -> None:
        self.thing = {Key(1)}

    def first(self) -> None:
        self.thing.add(Key(2))

    def second(self) -> None:
        self.thing.add(Key(2))

    def check(self) -> None:
        assert sorted(key.value for key in self.thing) == [1, 2]


class SetFromIterator(Case):
    """A set takes from an iterator that pauses, and the other one changes the set then."""

    operation: ClassVar[Callable[[set[Any], Iterable[Any]], Any]]

    def __init__(self) -> None:
        self.thing: set[Any] = {"old"}

    def first(self) -> None:
        result = type(self).operation(self.thing, Pausing(3))
        assert result is None or {0, 1, 2} <= result

    def second(self) -> None:
        self.thing.add("new")

    def check(self) -> None:
        assert {"old", "new"} <= self.thing <= {"old", "new", 0, 1, 2}


for name in ("update", "union"):
    case(
        type(
            f"Set_{name}",
            (SetFromIterator,),
            {
                "__doc__": f"set.{name} with an iterator, then add",
                "operation": staticmethod(getattr(set, name)),
            },
        )
    )


class OfTwoSets(Case):
    operation: ClassVar[Callable[[Any, Any], Any]]
    tolerated = (RuntimeError,)  # Set changed size during iteration

    def __init__(self) -> None:
        self.thing: set[Any] = {Key(1)}
        self.other: set[Any] = {Key(2)}

    def first(self) -> object:
        return type(self).operation(self.thing, self.other)

    def second(self) -> None:
        for shared in (self.thing, self.other):
            shared.add("new")
            shared.discard("new")

    def check(self) -> None:
        assert len(self.thing) in (0, 1, 2)
        assert [key.value for key in self.other] == [2]


for symbol, name in {
    "|": "or_",
    "|=": "ior",
    "&": "and_",
    "&=": "iand",
    "-": "sub",
    "-=": "isub",
    "^": "xor",
    "^=": "ixor",
    "==": "eq",
    "<=": "le",
}.items():
    case(
        type(
            f"Sets_{name}",
            (OfTwoSets,),
            {
                "__doc__": f"set {symbol} set (locks both) with __eq__, then add and discard",
                "operation": staticmethod(getattr(operator, name)),
            },
        )
    )


@case
class RemoveFromDeque(Case):
    """deque.remove with __eq__, then append"""

    refused = (IndexError, "deque mutated during iteration")
    tolerated = (ValueError,)  # gone already

    def __init__(self) -> None:
        self.thing = collections.deque([Key(1), Key(2)])

    def first(self) -> None:
        self.thing.remove(Key(2))

    def second(self) -> None:
        self.thing.append(Key(3))

    def check(self) -> None:
        assert [key.value for key in self.thing] == [1, 2, 3]


@case
class ExtendDeque(Case):
    """deque.extend from an iterator, then appendleft"""

    def __init__(self) -> None:
        self.thing: collections.deque[Any] = collections.deque()

    def first(self) -> None:
        self.thing.extend(Pausing(3))

    def second(self) -> None:
        self.thing.appendleft("new")

    def check(self) -> None:
        assert list(self.thing) == ["new", 0, 1, 2]


@case
class CountDeque(Case):
    """deque.count with __eq__, then rotate"""

    refused = (RuntimeError, "deque mutated during iteration")

    def __init__(self) -> None:
        self.thing = collections.deque([Key(1), Key(2)])

    def first(self) -> object:
        return self.thing.count(Key(2))

    def second(self) -> None:
        self.thing.append(self.thing.popleft())

    def check(self) -> None:
        assert sorted(key.value for key in self.thing) == [1, 2]


# --- iterators ------------------------------------------------------------------------------


class OfIterator(Case):
    """Both take from one iterator, whose source pauses."""

    make: ClassVar[Callable[[], Iterator[Any]]]
    # Two threads that take at the same time may skip items or end early. Some iterators refuse it.
    tolerated = (StopIteration, RuntimeError, ValueError)

    def __init__(self) -> None:
        self.thing = type(self).make()
        self.got: list[Any] = []

    def take(self) -> None:
        for item in itertools.islice(self.thing, 2):
            self.got.append(item)

    def first(self) -> None:
        self.take()

    def second(self) -> None:
        self.take()

    def check(self) -> None:
        assert 1 <= len(self.got) <= 4


def iterator(make: Callable[[], Iterator[Any]], name: str, **options: Any) -> None:
    namespace = {"__doc__": f"{name}, taken from twice", "make": staticmethod(make), **options}
    case(type(f"Iterator_{name}", (OfIterator,), namespace))


MANY = 8 * ROUNDS


class Step:
    """Of itertools.count: pauses when it is added."""

    def __radd__(self, number: int) -> int:
        pause()
        return number + 1

    def __index__(self) -> int:
        return 1


def dropped() -> Callable[[object], bool]:
    """A predicate for itertools.dropwhile: pauses, and is true for the first two."""
    numbers = itertools.count()
    return lambda _: pause(next(numbers) < 2)


iterator(lambda: iter(itertools.chain(Pausing(MANY), Pausing(MANY))), "itertools.chain")
iterator(lambda: itertools.islice(Pausing(MANY), 0, None), "itertools.islice")
iterator(lambda: itertools.accumulate(Pausing(MANY)), "itertools.accumulate")
iterator(lambda: itertools.cycle(Pausing(MANY)), "itertools.cycle")
iterator(lambda: itertools.pairwise(Pausing(MANY)), "itertools.pairwise")
iterator(lambda: itertools.zip_longest(Pausing(MANY), range(MANY)), "itertools.zip_longest")
iterator(lambda: itertools.filterfalse(pause, itertools.repeat(0, MANY)), "itertools.filterfalse")
iterator(lambda: itertools.takewhile(lambda _: not pause(), range(MANY)), "itertools.takewhile")
iterator(lambda: itertools.starmap(pause, itertools.repeat((1,), MANY)), "itertools.starmap")
iterator(lambda: itertools.groupby(Pausing(MANY)), "itertools.groupby")
iterator(lambda: itertools.compress(Pausing(MANY), itertools.repeat(1)), "itertools.compress")
iterator(lambda: itertools.dropwhile(dropped(), range(MANY)), "itertools.dropwhile")
iterator(lambda: itertools.count(0, Step()), "itertools.count")
iterator(lambda: map(pause, range(MANY)), "map")
iterator(lambda: zip(Pausing(MANY), Pausing(MANY), strict=False), "zip")
iterator(lambda: enumerate(Pausing(MANY)), "enumerate")
iterator(
    lambda: itertools.tee(Pausing(MANY))[0],
    "itertools.tee",
    second_refused=(RuntimeError, "cannot re-enter the tee iterator"),
)
iterator(
    lambda: (number for number in Pausing(MANY)),
    "a generator",
    second_refused=(ValueError, "generator already executing"),
    sound_since=(3, 15),
)
if sys.version_info >= (3, 12):
    iterator(lambda: itertools.batched(Pausing(MANY), 2), "itertools.batched")


# --- files ----------------------------------------------------------------------------------


class Lines(io.StringIO):
    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        pause()
        return super().readline(-1 if size is None else size)


@case
class IterateStringIO(Case):
    """io.StringIO iteration with readline, then write"""

    def __init__(self) -> None:
        self.thing = Lines("one\ntwo\n")

    def first(self) -> None:
        next(self.thing, None)

    def second(self) -> None:
        self.thing.seek(0, io.SEEK_END)
        self.thing.write("new")
        self.thing.seek(0)

    def check(self) -> None:
        assert self.thing.getvalue() == "one\ntwo\nnew"


class Position:
    def __index__(self) -> int:
        pause()
        return 3


@case
class TruncateStringIO(Case):
    """io.StringIO.truncate with __index__, then write"""

    def __init__(self) -> None:
        self.thing = io.StringIO("text and more")

    def first(self) -> None:
        self.thing.truncate(Position())

    def second(self) -> None:
        self.thing.write("n")

    def check(self) -> None:
        assert self.thing.getvalue() == "nex"


@case
class WriteLines(Case):
    """io.BytesIO.writelines from an iterator, then write"""

    def __init__(self) -> None:
        self.thing = io.BytesIO()

    def first(self) -> None:
        self.thing.writelines(bytes([ord("a") + number]) for number in Pausing(3))

    def second(self) -> None:
        self.thing.write(b"n")

    def check(self) -> None:
        assert sorted(self.thing.getvalue()) == sorted(b"abcn")


class Sink(io.RawIOBase):
    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        pause()
        self.written += data
        return len(data)


@case
class FlushText(Case):
    """io.TextIOWrapper.flush with a Python stream below, then write"""

    def __init__(self) -> None:
        self.sink = Sink()
        self.thing = io.TextIOWrapper(self.sink, encoding="ascii")
        self.thing.write("a")

    def first(self) -> None:
        self.thing.write("b")
        self.thing.flush()

    def second(self) -> None:
        self.thing.write("n")

    def check(self) -> None:
        self.thing.flush()
        assert sorted(self.sink.written) == sorted(b"abn")


# --- weak references, types, and others ------------------------------------------------------


@case
class WeakKeys(Case):
    """WeakKeyDictionary insert with __eq__, then insert"""

    def __init__(self) -> None:
        self.keys = [Key(number) for number in range(3)]
        self.thing = weakref.WeakKeyDictionary({self.keys[0]: 0})

    def first(self) -> None:
        self.thing[self.keys[1]] = 1

    def second(self) -> None:
        self.thing[self.keys[2]] = 2

    def check(self) -> None:
        assert sorted(self.thing.values()) == [0, 1, 2]


@case
class WeakElements(Case):
    """WeakSet.add with __eq__, then discard"""

    def __init__(self) -> None:
        self.keys = [Key(number) for number in range(3)]
        self.thing = weakref.WeakSet(self.keys[:2])

    def first(self) -> None:
        self.thing.add(self.keys[2])

    def second(self) -> None:
        self.thing.discard(self.keys[0])

    def check(self) -> None:
        assert sorted(key.value for key in self.thing) == [1, 2]


@case
class WeakValues(Case):
    """WeakValueDictionary.setdefault with __eq__, then pop"""

    def __init__(self) -> None:
        self.values = [Key(number) for number in range(3)]
        self.thing: Any = weakref.WeakValueDictionary({Key(0): self.values[0]})

    def first(self) -> None:
        assert self.thing.setdefault(Key(1), self.values[1]) is self.values[1]

    def second(self) -> None:
        self.thing.pop(Key(0), None)

    def check(self) -> None:
        assert [value.value for value in self.thing.values()] == [1]


class Hooked(type):
    def __setattr__(cls, name: str, value: object) -> None:
        pause()
        super().__setattr__(name, value)


@case
class SetTypeAttribute(Case):
    """type attribute with a metaclass hook, then another"""

    def __init__(self) -> None:
        self.thing: Any = Hooked("thing", (), {})

    def first(self) -> None:
        self.thing.a = 1

    def second(self) -> None:
        type.__setattr__(self.thing, "b", 2)

    def check(self) -> None:
        assert (self.thing.a, self.thing.b) == (1, 2)


class Ordered(type):
    def mro(cls) -> list[type]:
        pause()
        return super().mro()


@case
class SetBases(Case):
    """type.__bases__ with a metaclass's mro(), then an attribute of a base"""

    def __init__(self) -> None:
        self.base: Any = type("base", (), {})
        self.thing: Any = Ordered("thing", (type("empty", (), {}),), {})

    def first(self) -> None:
        self.thing.__bases__ = (self.base,)

    def second(self) -> None:
        self.base.attribute = 1

    def check(self) -> None:
        assert self.thing.attribute == 1
        assert self.thing.__mro__ == (self.thing, self.base, object)


@case
class CallCached(Case):
    """functools.lru_cache of a function, then another call of it"""

    def __init__(self) -> None:
        self.thing = functools.lru_cache(maxsize=2)(pause)

    def first(self) -> None:
        assert self.thing(1) == 1

    def second(self) -> None:
        assert self.thing(2) == 2

    def check(self) -> None:
        assert self.thing.cache_info().currsize == 2


class Named:
    name = ""


class CriticalSection2(ctypes.Structure):
    """PyCriticalSection2 of the C API: what extensions lock two objects by."""

    _fields_: ClassVar = [("words", ctypes.c_void_p * 3)]


class LockTwo(Case):
    """two objects locked by an extension (PyCriticalSection2), then their attributes"""

    begin: ClassVar[Any]
    end: ClassVar[Any]

    def __init__(self) -> None:
        self.thing, self.other = Named(), Named()

    def locked(self, one: Named, two: Named) -> None:
        section = CriticalSection2()
        self.begin(ctypes.byref(section), ctypes.py_object(one), ctypes.py_object(two))
        try:
            pause()
        finally:
            self.end(ctypes.byref(section))

    def first(self) -> None:
        self.locked(self.thing, self.other)
        self.thing.name = self.other.name = "first"

    def second(self) -> None:
        self.locked(self.other, self.thing)
        self.thing.name = self.other.name = "second"

    def check(self) -> None:
        assert {self.thing.name, self.other.name} <= {"first", "second"}


if sys.version_info >= (3, 13):
    LockTwo.begin = ctypes.pythonapi.PyCriticalSection2_Begin
    LockTwo.end = ctypes.pythonapi.PyCriticalSection2_End
    LockTwo.begin.restype = LockTwo.end.restype = None
    case(LockTwo)


class PausingLoop(asyncio.SelectorEventLoop):
    def call_soon(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        pause()
        return super().call_soon(*args, **kwargs)

    def get_debug(self) -> bool:
        return False


@case
class AddDoneCallback(Case):
    """asyncio.Future.add_done_callback with a Python loop, then result"""

    def __init__(self) -> None:
        self.loop = PausingLoop()
        self.thing = self.loop.create_future()
        self.thing.set_result(1)

    def first(self) -> None:
        self.thing.add_done_callback(id)

    def second(self) -> None:
        assert self.thing.result() == 1

    def check(self) -> None:
        assert self.thing.done()

    def close(self) -> None:
        self.loop.close()


@case
class Nested(Case):
    """a sort inside a dict insert inside list.extend, then each of them"""

    refused = (ValueError, "list modified during sort")

    def __init__(self) -> None:
        self.numbers = [2, 1]
        self.table: dict[Any, int] = {}
        self.thing: list[Any] = []
        case = self

        class Sorting(Key):
            def __eq__(self, other: object) -> bool:
                case.numbers.sort(key=pause)
                return False

            __hash__ = Key.__hash__

        self.key = Sorting
        self.table[Sorting(1)] = 1

    def items(self) -> Iterable[int]:
        self.table[self.key(2)] = 2
        yield 1

    def first(self) -> None:
        self.thing.extend(self.items())

    def second(self) -> None:
        self.thing.append("new")
        self.table["new"] = 3
        self.numbers.append(3)

    def check(self) -> None:
        assert self.thing == ["new"]
        assert sorted(self.table.values()) == [1, 3]
        assert self.numbers == [1, 2]


# --- the program ----------------------------------------------------------------------------


def attempt(operation: Callable[[], object], refused: tuple[type[Exception], str] | None) -> None:
    """Run an operation that CPython has to refuse with one of these exceptions."""
    try:
        operation()
    except Exception as exception:
        if refused is None or not isinstance(exception, refused[0]) or str(exception) != refused[1]:
            raise
    else:
        assert refused is None, f"not refused: {refused}"


def resume(g: greenlet) -> None:
    """Let a greenlet that paused go on to its end."""
    for _ in range(1_000):
        if g.dead:
            return
        g.switch()
    raise AssertionError("it pauses for ever")


def start_first(case: Case) -> greenlet:
    g = greenlet(lambda: attempt(case.first, case.refused))
    g.switch()
    assert not g.dead, "it was to pause"
    return g


def against_greenlet(case: Case) -> None:
    sleeper = start_first(case)
    resume(greenlet(lambda: attempt(case.second, case.second_refused)))
    resume(sleeper)
    case.check()


def against_thread(case: Case) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            attempt(case.second, case.second_refused)
        except BaseException as failure:
            failures.append(failure)

    sleeper = start_first(case)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures, failures
    resume(sleeper)
    case.check()


def against_monitoring(case: Case) -> None:
    """A tool comes or goes at each pause, so CPython instruments the frames when they go on."""
    sleeper = start_first(case)
    resume(greenlet(lambda: attempt(case.second, case.second_refused)))
    for change in itertools.cycle(tool_changes()):
        change()
        if sleeper.dead:
            break
        sleeper.switch()
    case.check()
    sys.settrace(None)
    sys.setprofile(None)
    if hasattr(sys, "monitoring"):
        sys.monitoring.free_tool_id(TOOL)


def tool_changes() -> Iterator[Callable[[], object]]:
    """Yield ways to change what CPython tells debuggers, profilers and coverage tools."""

    def ignore(*event: object) -> None:
        pass

    yield lambda: sys.settrace(ignore)
    yield lambda: sys.settrace(None)
    yield lambda: sys.setprofile(ignore)
    yield lambda: sys.setprofile(None)
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is not None:
        yield lambda: monitoring.use_tool_id(TOOL, "test")
        yield lambda: monitoring.set_events(TOOL, monitoring.events.LINE)
        yield lambda: monitoring.set_events(TOOL, monitoring.events.INSTRUCTION)
        yield lambda: monitoring.free_tool_id(TOOL)


def at_once(case: Case) -> None:
    """Repeat both in two threads, each in a greenlet of its own, with pauses all the time."""
    started = threading.Barrier(2)
    failures: list[BaseException] = []
    refusals = [refused for refused in (case.refused, case.second_refused) if refused is not None]
    permitted = (*case.tolerated, *(kind for kind, _ in refusals))

    def work(operation: Callable[[], object]) -> None:
        def body() -> None:
            for _ in range(ROUNDS):
                with contextlib.suppress(*permitted):
                    operation()

        try:
            started.wait()
            resume_all = greenlet(body)
            while not resume_all.dead:
                resume_all.switch()
        except BaseException as failure:
            failures.append(failure)

    run_threads(lambda: work(case.first), lambda: work(case.second))
    assert not failures, failures


MONITORED = "itself when tools that monitor it come and go"
AT_ONCE = "another thread at once"
VARIANTS: Mapping[str, Callable[[Case], None]] = {
    "a greenlet of the same thread": against_greenlet,
    "another thread": against_thread,
    MONITORED: against_monitoring,
    AT_ONCE: at_once,
}


def main(variant: str, seconds: float, names: list[str]) -> None:
    """Run the cases. Print the name of each before it runs, and its outcome afterwards."""
    for name in names:
        print(name, flush=True)
        faulthandler.dump_traceback_later(seconds, exit=True)
        case = CASES[name]()
        try:
            VARIANTS[variant](case)
        except Exception as failure:
            print(f"{type(failure).__name__}: {failure}".replace("\n", " "), flush=True)
        else:
            print("ended", flush=True)
        case.close()
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3:] or list(CASES))
