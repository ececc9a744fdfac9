"""What only frames of suspended greenlets refer to survives: functions, classes, modules, code.

Free-threaded builds do not count such references of a frame. Only a visit by the collector keeps
their objects alive. The tests run on all builds.
"""

from __future__ import annotations

import pytest
from helpers import (
    FREE_THREADED,
    run_clean,
)


def test_functions_and_classes_only_a_suspended_greenlet_knows_survive_collections() -> None:
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


DEFERRED = """
import functools, gc, sys, threading, types
from greenlet import getcurrent, greenlet

SOURCE = '''
import types
class Base:
    constant = ("constant", {index}, (1.5, "nested"))
    def method(self, value):
        return self.wait(value) + helper(value)
    @classmethod
    def class_method(cls, value):
        return cls().method(value)
    @staticmethod
    def wait(value):
        local = Base.constant, types, helper
        assert suspend() == "go on"
        assert local[0] == ("constant", {index}, (1.5, "nested")) and local[1].ModuleType
        return value
    @property
    def value(self):
        return self.method({index})
class Kind(Base):
    def __getattr__(self, name):
        return self.value
def helper(value):
    return value
def decorated(function):
    def wrapper(*args):
        return function(*args)
    return wrapper
@decorated
def by_call():
    return Kind.class_method({index})
def by_attribute():
    return Kind().missing
def by_sort():
    return sorted([1], key=lambda _: by_call())[0] * 2 * {index}
def by_generator():
    def values():
        yield by_call()
    for value in values():
        return value
def by_lambda():
    return (lambda method: method({index}))(Kind().method)
'''
NAMES = ["by_call", "by_attribute", "by_sort", "by_generator", "by_lambda"]

compiled = {}

def start(index):
    module = types.ModuleType(f"module{index}")
    module.suspend = getcurrent().switch
    code = compiled.get(index) or compile(SOURCE.format(index=index), "made", "exec")
    compiled[index] = code
    exec(code, module.__dict__)
    run = getattr(module, NAMES[index % len(NAMES)])
    if index % 2:
        # Then only the frames refer to the functions.
        vanish = dict(module.__dict__)
        run = types.FunctionType(run.__code__, vanish, run.__name__, None, run.__closure__)
    g = greenlet(run)
    g.switch()
    return g

def forget(g):
    # Removes from the frames' globals what the frames use. They must go on all the same.
    frame = g.gr_frame
    while frame is not None:
        for name in ("Kind", "by_call", "decorated", *NAMES):
            frame.f_globals.pop(name, None)
        frame = frame.f_back if frame.f_globals.get("suspend") else None
"""


def deferred(body: str, env: dict[str, str]) -> None:
    run_clean(DEFERRED + body, timeout=60, env=env)


tlbc = pytest.mark.parametrize(
    "env",
    [
        pytest.param({}, id="thread-local bytecode"),
        pytest.param(
            {"PYTHON_TLBC": "0"},
            id="no thread-local bytecode",
            marks=pytest.mark.skipif(not FREE_THREADED, reason="a switch of free-threaded builds"),
        ),
    ],
)


@tlbc
def test_what_only_suspended_frames_know_outlives_collections_of_other_threads(
    env: dict[str, str],
) -> None:
    deferred(
        """
stop = threading.Event()

def collector():
    while not stop.wait(0.0005):  # as in collect_until()
        gc.collect()

def work():
    for turn in range(3):
        family = [start(index) for index in range(1, 26)]
        compiled.clear()
        for g in family:
            forget(g)
        del g
        gc.collect()
        results = [g.switch("go on") for g in family]
        assert len(results) == 25 and all(g.dead for g in family)

def guarded():
    try:
        work()
    except BaseException as error:
        failures.append(error)
        raise

failures = []
collectors = [threading.Thread(target=collector) for _ in range(2)]
workers = [threading.Thread(target=guarded) for _ in range(2)]
for thread in collectors + workers:
    thread.start()
for thread in workers:
    thread.join()
stop.set()
for thread in collectors:
    thread.join()
assert not failures
""",
        env,
    )


EXIT = """
import os

def work(daemon):
    kept.append([start(index % 30) for index in range(300)])
    done.release()
    if daemon:
        forever.acquire()

kept = []
done, forever = threading.Semaphore(0), threading.Lock()
forever.acquire()
threads = [
    threading.Thread(target=work, args=(daemon,), daemon=daemon)
    for daemon in (False, True, False, True)
]
for thread in threads:
    thread.start()
for thread in threads:
    done.acquire()
family = [start(index % 30) for index in range(300)]
compiled.clear()  # now only the frames refer to the code objects
for g in family[::2]:
    forget(g)
g = None
if int(sys.argv[1]) % 2:
    gc.collect()
"""


@tlbc
@pytest.mark.parametrize("run", range(2))
def test_the_process_ends_with_suspended_greenlets_of_several_threads(
    env: dict[str, str], run: int
) -> None:
    run_clean(DEFERRED + EXIT, args=[str(run)], env=env, timeout=60)


@pytest.mark.stress
def test_a_thousand_processes_end_with_suspended_greenlets() -> None:
    for run in range(1_000):
        run_clean(DEFERRED + EXIT.replace("range(300)", "range(60)"), args=[str(run)], timeout=60)


BROUGHT_BACK = """
import gc, threading, types
from greenlet import GreenletExit, getcurrent, greenlet

SOURCE = '''
def function():
    try:
        suspend()
    except GreenletExit:
        if survivors is not None:
            survivors.append(getcurrent())
            suspend()
    return "unwound"
def body():
    log.append(function())
'''

log = []

# Leaves a greenlet as garbage. Only a frame of the greenlet refers to its function.
def leave(survivors=None, make=greenlet):
    scope = dict(suspend=getcurrent().switch, GreenletExit=GreenletExit, getcurrent=getcurrent,
                 survivors=survivors, log=log)
    exec(SOURCE, scope)
    g = make(scope["body"])
    g.itself = g
    g.switch()
    del scope["function"]

# Not by a weak reference, which the collection clears in any case.
def is_there():
    return any(type(o) is types.FunctionType and o.__name__ == "function"
               for o in gc.get_objects())

def check(resume):
    assert is_there()
    assert is_there()  # again: the first look has taken a counted reference and released it
    resume()
    assert log == ["unwound"], log
    assert not is_there()
"""


def test_what_the_frames_of_a_greenlet_of_another_thread_use_outlives_its_collection() -> None:
    run_clean(
        BROUGHT_BACK
        + """
def owner():
    leave()
    left.set()
    collected.wait()
    greenlet(lambda: None).switch()  # ends what another thread has collected

left, collected = threading.Event(), threading.Event()
thread = threading.Thread(target=owner, daemon=True)
gc.disable()
thread.start()
left.wait()
gc.collect()

def resume():
    collected.set()
    thread.join()

check(resume)
"""
    )


def test_what_the_frames_of_a_greenlet_use_outlives_the_collection_that_it_survives() -> None:
    run_clean(
        BROUGHT_BACK
        + """
survivors = []
leave(survivors)
gc.collect()

def resume():
    g = survivors.pop()
    del g.itself
    g.switch()

check(resume)
"""
    )


@pytest.mark.parametrize("comes", ["with its class", "later"])
def test_what_the_frames_of_a_greenlet_use_outlives_the_collection_in_which_del_saves_it(
    comes: str,
) -> None:
    run_clean(
        BROUGHT_BACK
        + f"""
class Saved(greenlet):
    pass

saved = []
if {comes == "later"}:
    leave(make=Saved)
Saved.__del__ = lambda self: saved.append(self)
if {comes != "later"}:
    leave(make=Saved)
gc.collect()

def resume():
    g = saved.pop()
    del g.itself
    g.switch()

check(resume)
"""
    )


def test_what_the_frames_of_a_greenlet_use_outlives_its_thread() -> None:
    run_clean(
        BROUGHT_BACK
        + """
def stubborn():
    while True:
        try:
            suspend()
        except GreenletExit:
            pass

def owner():
    global suspend
    suspend = getcurrent().switch
    scope = dict(stubborn=stubborn)
    exec("def function(): stubborn()\\ndef body(): function()", scope)
    g = greenlet(scope["body"])
    g.switch()
    del scope["function"]
    kept.append(g)
    frames.append(g.gr_frame.f_back)

kept, frames = [], []
thread = threading.Thread(target=owner)
thread.start()
thread.join()
gc.collect()
assert frames[0].f_code.co_name == "function"
assert is_there()
assert is_there()
"""
    )


def test_what_the_frames_of_a_greenlet_use_outlives_the_modules_of_the_program() -> None:
    # The interpreter clears the module while sys still refers to the greenlet. The debug allocator
    # overwrites memory that is freed.
    run_clean(
        """
        import sys
        from greenlet import getcurrent, greenlet

        def function():
            getcurrent().parent.switch()

        def body():
            function()

        sys.suspended = greenlet(body)
        sys.suspended.switch()
        sys.keeps_this_module = sys.modules[__name__]
        """,
        env={"PYTHONMALLOC": "debug"},
    )
