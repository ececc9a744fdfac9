"""Containers whose elements act when they are hashed, compared, added or iterated over.

A task works on containers of its own, and then they must have what a container of plain numbers
has; or on containers that all greenlets and threads share, where others may change them in the
middle. In the end each of those must be free: no critical section may have been left locked.
"""

from __future__ import annotations

import array
import bisect
import builtins
import copy
import functools
import heapq
import itertools
import json
import pickle
import random
import re
import sys
import weakref
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from storms.common import Crew, Storm, Task, Thrown, act, acts, run_crews

NUMBERS = 6
# An operation on a container may raise these if another greenlet or thread changes it.
CHANGED = (RuntimeError, KeyError, IndexError, ValueError)


@functools.total_ordering
class Key:
    """A number that acts."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        act()
        return isinstance(other, Key) and self.number == other.number

    def __lt__(self, other: Any) -> bool:
        act()
        return self.number < int(other.number)

    def __hash__(self) -> int:
        act()
        return self.number % 3

    def __index__(self) -> int:
        act()
        return self.number

    def __add__(self, other: Any) -> Key:
        act()
        return Key(self.number + (other.number if isinstance(other, Key) else other))

    __radd__ = __add__

    def __reduce__(self) -> Any:
        act()
        return Key, (self.number,)

    def __repr__(self) -> str:
        act()
        return str(self.number)


class Failed(Exception):
    """A container of our own has something else than it should have."""


def check(found: object, expected: object) -> None:
    if found != expected:
        raise Failed(f"{found} in place of {expected}")


def numbers(keys: Iterable[Key]) -> list[int]:
    return [key.number for key in keys]


def draw(crew: Crew, count: int = NUMBERS) -> list[int]:
    return [crew.chance.randrange(NUMBERS) for _ in range(count)]


def keys(some: Iterable[int]) -> list[Key]:
    return [Key(number) for number in some]


def acting(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        act()
        yield item


# --- containers of one greenlet -----------------------------------------------------------------


def own_list(crew: Crew) -> None:
    some = draw(crew)
    own = keys(some)
    try:
        step = crew.chance.randrange(4)
        if step == 0:
            own.sort()
            check(numbers(own), sorted(some))
        elif step == 1:
            own.sort(key=lambda key: acts(key.number), reverse=True)
            check(numbers(own), sorted(some, reverse=True))
        elif step == 2:
            own.extend(acting(keys(some)))
            check((own.index(Key(some[0])), own.count(Key(some[0]))), (0, 2 * some.count(some[0])))
        else:
            own.remove(Key(some[-1]))
            some.remove(some[-1])
            check((numbers(own), own == keys(some), own < keys(some)), (some, True, False))
    finally:  # an exception may leave a list that is half sorted, but nothing may be lost
        left = numbers(own)
        if not set(left) <= set(some) or len(left) < NUMBERS - 1:
            raise Failed(f"{left} is left of {some}")


def own_functions(crew: Crew) -> None:
    some = draw(crew)
    check(numbers(sorted(keys(some))), sorted(some))
    check((min(keys(some)).number, max(keys(some)).number), (min(some), max(some)))
    check(sum(keys(some), Key(0)).number, sum(some))
    groups = [(key.number, len(list(group))) for key, group in itertools.groupby(keys(some))]
    check(groups, [(number, len(list(group))) for number, group in itertools.groupby(some)])
    check(bytes(keys(some)), bytes(some))
    check(",".join(map(repr, keys(some))), ",".join(map(str, some)))
    check(tuple(keys(some)) == tuple(keys(some)), True)
    check(list(zip(acting(some), map(acts, some), strict=True)), [(n, n) for n in some])
    check(numbers(itertools.accumulate(keys(some))), list(itertools.accumulate(some)))
    check(functools.reduce(lambda a, b: a + b, keys(some)).number, sum(some))
    check(list(range(10))[Key(2) : Key(5)], [2, 3, 4])


def own_heap(crew: Crew) -> None:
    some = draw(crew)
    heap = keys(some)
    heapq.heapify(heap)
    heapq.heappush(heap, Key(3))
    check(heapq.heappop(heap).number, min([*some, 3]))
    check(heapq.heappushpop(heap, Key(0)).number, 0)
    check(numbers(heapq.nsmallest(2, keys(some))), sorted(some)[:2])
    check(numbers(heapq.merge(keys(sorted(some)), keys([1, 2]))), sorted([*some, 1, 2]))
    ordered = keys(sorted(some))
    check(bisect.bisect_right(ordered, Key(3)), bisect.bisect_right(sorted(some), 3))
    bisect.insort(ordered, Key(3))
    check(numbers(ordered), sorted([*some, 3]))


def own_dict(crew: Crew) -> None:
    some, more = draw(crew), draw(crew)
    kind = crew.chance.choice(DICTS)
    own = kind()
    model: dict[int, int] = {}
    try:
        for number in some:
            own[Key(number)] = number
            model[number] = number
        own.update({Key(number): -number for number in more})
        model.update({number: -number for number in more})
        check({key.number: value for key, value in own.items()}, model)
        check(list(numbers(own)), list(model))
        check(own.pop(Key(more[0]), None), model.pop(more[0]))
        check(own.setdefault(Key(0), 7), model.setdefault(0, 7))
        check(own == {Key(number): value for number, value in model.items()}, True)
        check(Key(1) in own, 1 in model)
        joined = own | {Key(1): 0}
        check({key.number: value for key, value in joined.items()}, model | {1: 0})
        check({key.number for key in own.keys() & set(keys(some))}, set(model) & set(some))
        if isinstance(own, OrderedDict):
            own.move_to_end(Key(0))
            check(numbers(own)[-1], 0)
        check(copy.copy(own) == own, True)
    except KeyError as hidden:
        if not isinstance(own, OrderedDict) or sys.version_info >= (3, 14):
            raise
        raise Thrown from hidden  # CPython has put the KeyError in its place
    finally:
        # After an exception in a comparison an OrderedDict may have an order with keys that it does
        # not have (a fault of CPython's). So the keys of the dict are looked at.
        left = list(dict.keys(own))
        if len({key.number for key in left}) != len(left) or len(own) != len(left):
            raise Failed(f"a {kind} has {left}, and says that it has {len(own)}")


DICTS: tuple[Callable[..., Any], ...] = (
    dict,
    dict,
    OrderedDict,
    functools.partial(defaultdict, int),
)


def own_set(crew: Crew) -> None:
    some, more = draw(crew), draw(crew)
    own = set(keys(some))
    check(sorted(numbers(own)), sorted(set(some)))
    for operation in (set.union, set.intersection, set.difference, set.symmetric_difference):
        found = operation(own, set(keys(more)))
        check(sorted(numbers(found)), sorted(operation(set(some), set(more))))
    own.update(acting(keys(more)))
    own.discard(Key(some[0]))
    check(sorted(numbers(own)), sorted((set(some) | set(more)) - {some[0]}))
    check(own.issuperset(keys(more)), some[0] not in more)
    check(own == set(own), True)
    check(frozenset(keys(some)) == frozenset(keys(some)), True)


def own_deque(crew: Crew) -> None:
    some = draw(crew)
    own = deque(acting(keys(some)))
    check(own.count(Key(some[0])), some.count(some[0]))
    check(own.index(Key(some[0])), 0)
    own.remove(Key(some[0]))
    own.extendleft(acting(keys([1])))
    check(numbers(own), [1, *some[1:]])
    check((own == deque(keys([1, *some[1:]])), Key(NUMBERS) in own), (True, False))


def own_others(crew: Crew) -> None:
    some = draw(crew)
    counted = Counter(keys(some))
    check({key.number: count for key, count in counted.items()}, dict(Counter(some)))
    made: defaultdict[Key, list[int]] = defaultdict(lambda: acts([1]))
    check(made[Key(1)] + made[Key(1)], [1, 1])
    chain = ChainMap({Key(1): 1}, {Key(2): 2})
    check((chain[Key(2)], len(chain)), (2, 2))
    numbers_of = array.array("i", acting(some))
    numbers_of.extend(acting(some))
    check(list(numbers_of), some * 2)
    living = keys(some)
    weak = weakref.WeakKeyDictionary({key: key.number for key in living})
    check(sorted(weak.values()), sorted(set(some)))
    check(len(weakref.WeakSet(living)), len(set(some)))
    # Keys whose comparison raises or switches corrupt an lru_cache and end the process, in plain
    # CPython, too.
    cached = functools.lru_cache(3)(lambda number: acts(number))
    check([cached(number) for number in some], some)
    check(re.sub("x", lambda match: acts("y"), "axbxc"), "aybyc")
    check(json.dumps(living, default=lambda key: acts(key.number)), json.dumps(some))
    check(numbers(pickle.loads(pickle.dumps(living))), some)
    check(numbers(copy.deepcopy(living)), some)
    if (frozen := getattr(builtins, "frozendict", None)) is not None:
        check(frozen({Key(1): 1}) == {Key(1): 1}, True)


# --- containers of all ---------------------------------------------------------------------------


class Shared:
    """What all threads share."""

    def __init__(self) -> None:
        self.list: list[Any] = []
        self.heap: list[Any] = []
        self.dict: dict[Any, Any] = {}
        self.ordered: OrderedDict[Any, Any] = OrderedDict()
        self.set: set[Any] = set()
        self.deque: deque[Any] = deque()
        self.other: list[Any] = []
        self.other_set: set[Any] = set()

    def all(self) -> tuple[Any, ...]:
        return (self.list, self.heap, self.dict, self.set, self.deque, self.other, self.other_set)

    def limit(self) -> None:
        """Keep them small."""
        for container in self.all():
            if len(container) > 3 * NUMBERS:
                container.clear()


SHARED: tuple[Callable[[Shared, Key], object], ...] = (
    lambda all, key: all.list.append(key),
    lambda all, key: all.list.sort(),
    lambda all, key: all.list.sort(key=lambda one: acts(one.number)),
    lambda all, key: all.list.remove(key),
    lambda all, key: all.list.index(key),
    lambda all, key: all.list.extend(acting([key])),
    lambda all, key: all.list.extend(all.other),
    lambda all, key: all.other.extend(all.list),
    lambda all, key: all.list == all.other,
    lambda all, key: bisect.insort(all.list, key),
    lambda all, key: all.list.__setitem__(slice(0, 2), acting([key])),
    lambda all, key: sorted(all.list),
    lambda all, key: heapq.heappush(all.heap, key),
    lambda all, key: heapq.heappush(all.heap, key),
    lambda all, key: heapq.heappop(all.heap),
    lambda all, key: heapq.heapify(all.heap),
    lambda all, key: heapq.heapreplace(all.heap, key),
    lambda all, key: all.dict.__setitem__(key, key),
    lambda all, key: all.dict.pop(key),
    lambda all, key: all.dict.get(key),
    lambda all, key: all.dict.setdefault(key, key),
    lambda all, key: all.dict.update({key: key}),
    lambda all, key: {key: 1}.update(all.dict),
    lambda all, key: all.dict == {key: key},
    lambda all, key: all.dict | {key: key},
    lambda all, key: all.dict.keys() & all.set,
    lambda all, key: all.set.add(key),
    lambda all, key: all.set.discard(key),
    lambda all, key: all.set.intersection_update(all.other_set),
    lambda all, key: all.set ^ all.other_set,
    lambda all, key: all.set == all.other_set,
    lambda all, key: all.deque.append(key),
    lambda all, key: all.deque.index(key),
    lambda all, key: all.deque.remove(key),
    lambda all, key: all.deque.count(key),
    lambda all, key: all.deque.extend(acting([key])),
    lambda all, key: all.deque == deque([key]),
)
if sys.version_info >= (3, 13):  # before, it uses keys that another thread has removed and freed
    SHARED += (
        lambda all, key: all.set.update(all.other_set),
        lambda all, key: all.other_set.update(all.set, [key]),
    )


def run(storm: Storm) -> None:
    shared = Shared()

    def on_shared(crew: Crew) -> None:
        for operation in crew.chance.sample(SHARED, 5):
            try:
                operation(shared, Key(crew.chance.randrange(NUMBERS)))
            except CHANGED:
                pass
        shared.limit()

    def checked(task: Task) -> Task:
        @functools.wraps(task)
        def run_task(crew: Crew) -> None:
            try:
                task(crew)
            except Failed as failure:
                storm.fault(f"{task.__name__}: {failure}")
            except Thrown:
                pass

        return run_task

    own = (own_list, own_functions, own_heap, own_dict, own_set, own_deque, own_others)
    run_crews(storm, [*map(checked, own), *[on_shared] * 4])

    def use(chance: random.Random) -> None:
        for operation in SHARED:
            try:
                operation(shared, Key(1))
            except CHANGED:
                pass

    storm.in_threads(use, 1)  # a lock that was left locked is a hang
