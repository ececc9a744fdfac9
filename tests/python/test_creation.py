"""The extension module works as soon as it is created, before it is executed.

importlib creates a module, puts it into sys.modules and then executes it. In between, memory
profilers call its functions (memray calls settrace()), and so may any profile function, import hook
or other thread.
"""

from __future__ import annotations

import textwrap

import pytest
from helpers import FREE_THREADED, run_clean, since

# What the scripts start with. create() makes the module from its file, and does not execute it.
PRELUDE = """
    import gc, importlib.machinery, importlib.util, sys, sysconfig, threading, _imp
    from pathlib import Path

    (package,) = importlib.util.find_spec("greenlet").submodule_search_locations
    PATH = str(Path(package) / ("_greenlet" + sysconfig.get_config_var("EXT_SUFFIX")))

    def spec_of(package):
        name = f"{package}._greenlet"  # CPython finds the initialization function by the last part
        loader = importlib.machinery.ExtensionFileLoader(name, PATH)
        return importlib.util.spec_from_file_location(name, PATH, loader=loader)

    def create(package="greenlet"):
        return importlib.util.module_from_spec(spec_of(package))

    def use(module):
        main = module.getcurrent()
        assert isinstance(main, module.greenlet)
        child = module.greenlet(lambda: main.switch("first"))
        assert child.switch() == "first"
        try:
            child.throw(module.error("thrown"))
        except module.error:
            assert child.dead
        else:
            raise AssertionError
        assert module.settrace(print) is None
        assert module.settrace(None) is print
"""

# Each function with arguments, and what its first call returns.
CALLS = {
    "getcurrent()": "module.greenlet.getcurrent()",
    "settrace(None)": "None",
    "settrace(print)": "None",
    "gettrace()": "None",
    "get_pending_cleanup_count()": "0",
    "get_total_main_greenlets()": "1",
    "enable_optional_cleanup(True)": "None",
    "get_clocks_used_doing_optional_cleanup()": "0",
    "_stack_default_size()": "module._stack_default_size()",
    "_set_stack_default_size(1 << 20)": "None",
    "_stack_pool_bound()": "module._stack_pool_bound()",
    "_set_stack_pool_bound(3)": "None",
    "_set_stack_size(module.greenlet(), 1 << 20)": "None",
    "_stack_statistics()": "(0, 0, 0, 0)",
    "_stack_resident_bytes()": "0",
    "_trim_stacks()": "0",
    "_is_freezing_on()": "module._is_freezing_on()",
    "_set_freezing(False)": "None",
    "_freezing_bound()": "module._freezing_bound()",
    "_set_freezing_bound(1000)": "None",
    "_allow_freezing('module')": "None",
    "_freeze_stacks()": "0",
    "_report_overflow(False)": "None",
    "call_on_thread_stack(int)": "0",
    "_list_threads()": "module._list_threads()",
    "_watch_threads()": "module._watch_threads()",
    "_list_greenlets(0)": "(module.getcurrent(),)",
    "_list_frames(module.greenlet())": "None",
    "_describe(module.greenlet(), int, int)": "module._describe(module.greenlet(), int, int)",
    "_set_name(module.greenlet(), 'name')": "None",
    "_track_origin(1)": "0",
    "_on_collected(None)": "None",
    "_count_collected()": "0",
    "_dump_on_signal(10, 2, False)": "None",
    "_no_dump_on_signal(10)": "False",
    "_dump(1)": "None",
    "_timeline_is_recording()": "False",
    "_timeline_discard()": "None",
    "_timeline_start(9, int, int)": "None",
    "_timeline_stop()": "result",
}


def run(source: str, *, timeout: float = 30.0) -> str:
    """Run a script of this file; return what it printed."""
    return run_clean(textwrap.dedent(PRELUDE) + textwrap.dedent(source), timeout=timeout)


@pytest.mark.parametrize("call", CALLS)
def test_each_function_works_once_the_module_is_created(call: str) -> None:
    run(f"""
        module = create()
        if "{call}" == "_timeline_stop()":
            module._timeline_start(9, int, int)
        result = module.{call}
        assert result == {CALLS[call]}, result
        module.settrace(None)
        use(module)
    """)


def test_no_function_is_missing_in_the_test_above() -> None:
    functions = run("""
        from types import BuiltinFunctionType
        for name, value in vars(create()).items():
            if isinstance(value, BuiltinFunctionType):
                print(name)
    """)
    assert {call.partition("(")[0] for call in CALLS} == set(functions.split())


def test_execution_adds_nothing_and_may_be_repeated() -> None:
    run("""
        module = create()
        before = dict(vars(module))
        assert {"greenlet", "error", "GreenletExit", "_C_API", "__version__"} <= set(before)
        use(module)
        for _ in range(3):
            module.__loader__.exec_module(module)
            _imp.exec_dynamic(module)
        sys.modules["greenlet._greenlet"] = module
        import greenlet
        assert greenlet.greenlet is module.greenlet
        assert importlib.reload(module) is module
        changed = {name for name, value in vars(module).items() if before.get(name) is not value}
        assert changed <= {"__spec__", "__loader__", "__file__", "__package__"}, changed
        use(module)
    """)


def test_a_profile_function_may_call_the_module_as_soon_as_it_is_in_sys_modules() -> None:
    """memray does this at each event of each thread until it has found the module."""
    run("""
        seen = []

        def profile(frame, event, argument):
            module = sys.modules.get("greenlet._greenlet")
            if module is not None:
                seen.append(hasattr(module.__spec__, "_initializing"))
                module.settrace(lambda event, pair: None)
                module.getcurrent()

        sys.setprofile(profile)
        import greenlet
        sys.setprofile(None)
        assert True in seen, seen  # before its execution has ended
        assert greenlet.gettrace() is not None
    """)


def test_an_import_hook_may_use_a_module_that_is_never_executed() -> None:
    run("""
        import gc, weakref
        gone = []
        for package in ("a", "b.c", "greenlet"):
            module = create(package)
            assert module.__name__ == module.__spec__.name == f"{package}._greenlet"
            use(module)
            gone.append(weakref.ref(module))
            getcurrent = module.getcurrent
            del module
            gc.collect()
        assert [each() for each in gone] == [None] * 3
        import greenlet
        assert greenlet.getcurrent() is getcurrent()
    """)


def test_all_modules_created_from_the_file_have_the_same_names() -> None:
    run("""
        import pickle
        first, second = create("first"), create("second")
        own = {"__name__", "__spec__", "__loader__", "__doc__", "__package__", "__file__"}
        for name, value in vars(first).items():
            assert name in own or getattr(second, name) is value, name
        second.settrace = None
        assert first.settrace is create("third").settrace
        import greenlet
        assert pickle.loads(pickle.dumps(greenlet.getcurrent)) is greenlet.getcurrent
    """)


def test_the_capsule_is_there_once_the_module_is_created() -> None:
    run("""
        import ctypes
        module = create()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype = ctypes.POINTER(ctypes.c_void_p * 12)
        pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        table = pointer(module._C_API, b"greenlet._C_API").contents
        assert table[0] == id(module.greenlet)
        get_current = ctypes.PYFUNCTYPE(ctypes.py_object)(table[4])
        assert get_current() is module.getcurrent()
    """)


CREATE_IN_THREADS = """
    from functools import partial
    from child import run_threads

    def work(number):
        barrier.wait()
        module = make(f"view{number}")
        use(module)
        found.append((module.greenlet, module.error, module._C_API, module.greenlet.getcurrent))

    for _ in range(THREADS_START):
        found = []
        barrier = threading.Barrier(8)
        run_threads(*[partial(work, number) for number in range(8)])
        assert len(found) == 8 and len(set(found)) == 1, found
"""


def test_threads_that_create_the_module_at_once_get_the_same_types() -> None:
    run("make, THREADS_START = create, 3" + textwrap.dedent(CREATE_IN_THREADS), timeout=60)


# importlib locks while it creates a module, on free-threaded builds, too. C code that calls the
# initialization function itself does not. Each attempt has a process of its own, because the
# interpreter does not know of such modules.
@pytest.mark.parametrize("attempt", range(8 if FREE_THREADED else 1))
def test_threads_that_create_the_module_at_once_without_importlib_get_the_same_types(
    attempt: int,
) -> None:
    start = """
        import ctypes
        library = ctypes.PyDLL(PATH)
        library.PyInit__greenlet.restype = ctypes.c_void_p
        definition = library.PyInit__greenlet()
        from_definition = ctypes.pythonapi.PyModule_FromDefAndSpec2
        from_definition.restype = ctypes.py_object
        from_definition.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.c_int]

        def make(name):
            return from_definition(definition, spec_of(name), 1013)

        THREADS_START = 1
        sys.setswitchinterval(1e-6)
    """
    run(textwrap.dedent(start) + textwrap.dedent(CREATE_IN_THREADS), timeout=60)


def test_a_finalizer_that_runs_during_the_creation_may_create_and_use_the_module() -> None:
    """On 3.11 any allocation of an object may collect, and a collection calls finalizers."""
    run("""
        calls = []

        class Cycle:
            def __init__(self):
                self.me = self
            def __del__(self):
                module = create(f"in finalizer {len(calls)}")
                use(module)
                calls.append(module.greenlet)

        spec = spec_of("greenlet")
        for _ in range(500):
            Cycle()
        gc.set_threshold(1, 1, 1)
        module = importlib.util.module_from_spec(spec)
        use(module)
        gc.collect()
        assert gc.isenabled()
        assert set(calls) == {module.greenlet}, set(calls)
    """)


def test_the_collector_stays_off_if_it_was_off() -> None:
    run("""
        gc.disable()
        create()
        assert not gc.isenabled()
        gc.enable()
        create("another")
        assert gc.isenabled()
    """)


OTHERS = """
    from functools import partial
    from child import Interpreter, run_threads
    PRELUDE = '''{prelude}'''
"""


def run_with_others(source: str, *, timeout: float = 60.0) -> str:
    """Run a script that has Interpreter, and PRELUDE for the sources of Interpreter.run()."""
    others = textwrap.dedent(OTHERS).replace("{prelude}", textwrap.dedent(PRELUDE))
    return run(others + textwrap.dedent(source), timeout=timeout)


@pytest.mark.parametrize("own_gil", [True, False])
def test_the_module_works_in_another_interpreter_once_it_is_created_there(own_gil: bool) -> None:
    run_with_others(f"""
        for _ in range(3):
            other = Interpreter({own_gil})
            other.run(PRELUDE + "use(create()); use(create('another'))")
            other.run("import greenlet; greenlet.greenlet(greenlet.getcurrent).switch()")
            other.close()
        use(create())
    """)


@pytest.mark.parametrize("own_gil", [True, False])
def test_what_the_creation_imports_may_create_and_use_the_module(own_gil: bool) -> None:
    """In a subinterpreter, creation registers a function with atexit."""
    printed = run_with_others(f"""
        import textwrap
        other = Interpreter({own_gil})
        other.run(PRELUDE + textwrap.dedent('''
            import builtins, os
            spec = spec_of("greenlet")
            original, imported = builtins.__import__, []

            def hook(name, *arguments):
                builtins.__import__ = original
                imported.append(name)
                use(create("from the hook"))
                builtins.__import__ = hook
                return original(name, *arguments)

            builtins.__import__ = hook
            module = _imp.create_dynamic(spec)
            builtins.__import__ = original
            use(module)
            os.write(1, ascii(imported).encode())
        '''))
        other.close()
    """)
    assert printed == str(["atexit"])


@since("concurrent.interpreters")
def test_interpreters_that_create_the_module_at_once_have_one_each() -> None:
    run_with_others(
        """
        def work(number):
            other = Interpreter(True)
            barrier.wait()
            other.run(PRELUDE + "module = create(); use(module); import greenlet; use(greenlet)")
            other.close()
            done.append(number)

        done = []
        barrier = threading.Barrier(4)
        run_threads(*[partial(work, number) for number in range(4)])
        assert len(done) == 4
        """
    )


def test_a_process_forked_while_another_thread_creates_the_module_can_import_it() -> None:
    run("""
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        spec = spec_of("greenlet")
        for _ in range(20):
            if (child := os.fork()) == 0:
                # The child has not imported the module; a thread of the child creates it.
                thread = threading.Thread(target=importlib.util.module_from_spec, args=(spec,))
                thread.start()
                if (grandchild := os.fork()) == 0:
                    module = create("grandchild")
                    use(module)
                    os._exit(0)
                _, status = os.waitpid(grandchild, 0)
                thread.join()
                os._exit(os.waitstatus_to_exitcode(status))
            _, status = os.waitpid(child, 0)
            assert status == 0, status
    """)
