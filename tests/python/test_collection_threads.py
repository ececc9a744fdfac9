"""A greenlet of one thread that a collection of another thread has found: what happens to it in
between, while other threads run."""

from __future__ import annotations

import pytest
from helpers import run_clean, run_script

# --- the window between the moment a greenlet is found and its own finalizer --------------------

# A collection has found all of the garbage when it calls the first finalizer. On free-threaded
# builds it no longer counts then what frames refer to; it frees functions and code that nothing
# else holds. So a greenlet that runs on has to hold them.
WINDOW = """
import gc, sys, threading
from greenlet import getcurrent, greenlet

place, way = sys.argv[1:]
gc.disable()
made, found, resumed, collected = (threading.Event() for _ in range(4))
published = []
log = []

SOURCE = '''
def work():
    n = 0
    for i in range(50_000):
        n += i % 7
    return n

def wait(to_parent):
    try:
        to_parent()
    finally:
        resumed.set()
        collected.wait(20)
        log.append(work())

def function(to_parent):
    wait(to_parent)

def values(to_parent):
    try:
        yield wait(to_parent)
    finally:
        log.append("closed")

def generator(to_parent):
    held = values(to_parent)
    for _ in held:
        pass

def delegating(to_parent):
    held = values(to_parent)
    yield from held

def delegating_generator(to_parent):
    held = delegating(to_parent)
    for _ in held:
        pass

async def inner(to_parent):
    try:
        wait(to_parent)
    finally:
        log.append("closed")

async def outer(to_parent):
    held = inner(to_parent)
    await held

def coroutine(to_parent):
    held = outer(to_parent)
    try:
        held.send(None)
    except StopIteration:
        pass

async def async_values(to_parent):
    try:
        yield wait(to_parent)
    finally:
        log.append("closed")

async def consume(to_parent):
    held = async_values(to_parent)
    async for _ in held:
        pass

def async_generator(to_parent):
    held = consume(to_parent)
    try:
        held.send(None)
    except StopIteration:
        pass
'''

class Service:
    # Garbage that takes its time to go. One is older and one younger than the greenlet, so that
    # one of them is finalized before it.
    def __del__(self):
        if found.is_set():
            return
        if way == "it is looked at, and its thread ends":
            gc.get_referents(self.greenlet, self)
        if way == "a finalizer publishes it":
            published.append(self.greenlet)
        found.set()
        resumed.wait(20)

def make():
    namespace = {"resumed": resumed, "collected": collected, "log": log}
    exec(SOURCE, namespace)
    first = Service()
    first.itself = first
    first.greenlet = g = greenlet(namespace[place])
    g.switch(getcurrent().switch)
    last = Service()
    last.itself = last
    last.greenlet = g
    # The only counted references to what its frames run, so that all of that is garbage, too.
    names = "wait values delegating inner outer async_values consume".split()
    first.functions = [namespace.pop(name) for name in names]

def own():
    make()
    made.set()
    found.wait(20)
    if way == "a finalizer publishes it":
        published.pop().switch()

thread = threading.Thread(target=own)
thread.start()
made.wait()
gc.collect()
junk = [bytearray(n) for n in range(100, 1000) for _ in range(20)]
functions = [eval(f"lambda: {i}") for i in range(500)]
collected.set()
thread.join()
print(*log)
"""

PLACES = {
    "function": False,
    "generator": True,
    "delegating_generator": True,
    "coroutine": True,
    "async_generator": True,
}


@pytest.mark.parametrize("malloc", ["", "debug"], ids=["", "debug allocator"])
@pytest.mark.parametrize(
    "way", ["its thread ends", "it is looked at, and its thread ends", "a finalizer publishes it"]
)
@pytest.mark.parametrize("place", PLACES)
def test_a_greenlet_that_is_resumed_while_it_is_collected_runs_to_its_end(
    place: str, way: str, malloc: str
) -> None:
    printed = run_clean(WINDOW, args=[place, way], env={"PYTHONMALLOC": malloc}, timeout=60)
    result = sum(i % 7 for i in range(50_000))
    assert printed == " ".join([str(result), *(["closed"] if PLACES[place] else [])])


# --- the recount ------------------------------------------------------------------------------


@pytest.mark.parametrize("collections", [1, 2])
def test_one_whose_finally_block_waits_while_its_holder_is_collected_is_ended(
    collections: int,
) -> None:
    # The collection ends the holder only, and finds the other one suspended: in use, although
    # nothing but the collection refers to it any more.
    outcome = run_script(
        """
        import gc, sys, threading, time
        from greenlet import getcurrent, greenlet, stacks

        gc.disable()
        ended = []

        def holder(home):
            itself = getcurrent()
            child = greenlet(body)
            child.switch(home)
            home.switch()

        def body(home):
            try:
                home.switch()
            finally:
                try:
                    home.switch()  # as gevent does where a finally block waits
                finally:
                    ended.append(1)

        class Slow:
            def __del__(self):
                time.sleep(0.2)  # the owner ends its greenlets in the middle of the collection

        def own(ready, done):
            home = getcurrent()
            greenlet(holder).switch(home)
            ready.set()
            while not done.wait(0.01):
                getcurrent()  # here it takes notice of what it is to end

        def collect(ready, done):
            ready.wait()
            for _ in range(5):
                slow = Slow()
                slow.itself = slow
            del slow
            for _ in range(int(sys.argv[1])):
                gc.collect()
            done.set()

        for _ in range(2):
            ready, done = threading.Event(), threading.Event()
            threads = [
                threading.Thread(target=target, args=(ready, done)) for target in (own, collect)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        gc.collect()
        left = sum(isinstance(each, greenlet) for each in gc.get_objects())
        print(len(ended), stacks.statistics().in_use, left - 1)  # the main greenlet
        """,
        args=[str(collections)],
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.strip() == "2 0 0"
    assert all(line.startswith("GreenletExit did not kill") for line in outcome.stderr.splitlines())


# --- which traversal is a collection's ------------------------------------------------------------

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
    # As debuggers and memory tools do; gc.get_referents() has another argument.
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
