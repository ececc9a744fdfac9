"""Programs in C, C++ and Cython that use `greenlet.h`, compiled here: see tests/extensions."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
import sysconfig
import textwrap
import threading
import weakref
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import class_cases
import greenlet as library
import pytest
from greenlet import GreenletExit, _greenlet, getcurrent, greenlet
from helpers import (
    ADDRESS_SANITIZER,
    collect,
    in_thread,
    load_extension,
    run_clean,
    run_script,
    since,
    to_parent,
)

HEADERS = Path(library.__file__).parent.parent  # the header is beside the package
LOOPS = 500

NULL = ...  # stands for NULL as an argument and as a result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extensions")


@pytest.fixture(scope="module")
def entries(folder: Path) -> Any:
    return load_extension("entries.c", folder)


@pytest.fixture(scope="module")
def unwinding(folder: Path) -> Any:
    return load_extension("unwinding.cpp", folder)


@pytest.fixture(scope="module")
def classes(folder: Path) -> Any:
    return load_extension("classes.c", folder)


@pytest.fixture(scope="module", params=["static types", "heap types"])
def fields(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    specs = int(request.param == "heap types")
    folder = tmp_path_factory.mktemp("fields")
    return load_extension("fields.pyx", folder, f"-DCYTHON_USE_TYPE_SPECS={specs}")


def outcome(function: Callable[..., Any], *args: Any) -> str:
    """The result of the call, or what it raised."""
    try:
        return repr(function(*args))
    except BaseException as failure:
        return f"{type(failure).__name__}: {failure}"


def set_parent(child: greenlet, parent: greenlet) -> int:
    child.parent = parent
    return 0


def suspended() -> greenlet:
    g = greenlet(to_parent)
    g.switch()
    return g


def dead() -> greenlet:
    g = greenlet(int)
    g.switch()
    return g


# --- what the header says -------------------------------------------------------------------------


def test_the_header_agrees_with_the_module(entries: Any) -> None:
    kind, error, leave, version, size, weakreflist, dictionary, _ = entries.facts()
    assert (kind, error, leave) == (greenlet, library.error, GreenletExit)
    assert version == "1.0.0"
    assert (size, weakreflist, dictionary) == (
        greenlet.__basicsize__,
        greenlet.__weakrefoffset__,
        greenlet.__dictoffset__,
    )


def test_entries_are_values_too(entries: Any, unwinding: Any) -> None:
    assert entries.same_by_index() == 12
    assert entries.switch_in_parentheses(greenlet(lambda: 5)) == 5
    g = greenlet(lambda first: (first, to_parent()))
    assert unwinding.call_by_value(g) == (getcurrent(), None)


def test_check_tells_greenlets_from_others(entries: Any) -> None:
    class Special(greenlet):
        pass

    assert [entries.check(one) for one in (greenlet(), Special(), getcurrent())] == [True] * 3
    assert not any(entries.check(one) for one in (None, 5, greenlet, Special, object()))


@pytest.mark.parametrize("standard", ["c99", "c17", "c++11", "c++20"])
def test_the_header_is_valid_in(standard: str, tmp_path: Path) -> None:
    source = tmp_path / "includes.c"
    source.write_text("#include <greenlet/greenlet.h>\n#include <greenlet/greenlet.h>\n")
    language = "c++" if "+" in standard else "c"
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wunused", "-Werror"]
    command = ["g++", "-x", language, f"-std={standard}", *warnings, "-fsyntax-only"]
    done = subprocess.run(
        [*command, "-I", HEADERS, "-isystem", sysconfig.get_path("include"), source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- wrong arguments ------------------------------------------------------------------------------

WRONG = (NULL, None, 5, greenlet, "text", object())
WITH_A_TARGET: dict[str, Sequence[Any]] = {
    "throw": (KeyError, NULL, NULL),
    "switch": (NULL, NULL),
    "is_main": (),
    "is_started": (),
    "is_active": (),
    "get_parent": (),
    "get_parent_by_old_name": (),
}


@pytest.mark.parametrize("entry", [*WITH_A_TARGET, "set_parent"])
def test_no_entry_takes_what_is_no_greenlet(entry: str, entries: Any) -> None:
    more = WITH_A_TARGET.get(entry, [getcurrent()])
    for wrong in WRONG:
        with pytest.raises(TypeError):
            getattr(entries, entry)(wrong, *more)


@pytest.mark.parametrize("first", [True, False], ids=["first use", "later"])
def test_a_program_may_come_with_an_exception_set(first: bool, entries: Any) -> None:
    def work() -> tuple[object, object, bool]:
        if not first:
            getcurrent()
        made, current, still_set = entries.with_exception(ValueError("set before"))
        assert made.parent is current is getcurrent()
        return type(made), type(current), still_set

    assert in_thread(work) == (greenlet, greenlet, True)


def test_new_ends_greenlets_of_this_thread_that_other_threads_dropped(entries: Any) -> None:
    log: list[str] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            log.append("ended")

    holder = [greenlet(run)]
    holder[0].switch()
    in_thread(holder.clear)
    entries.create(run, NULL)
    assert log == ["ended"]


@pytest.mark.parametrize("entry", ["set_parent", "create"])
def test_no_parent_is_taken_that_is_no_greenlet(entry: str, entries: Any) -> None:
    child = greenlet()
    first = child if entry == "set_parent" else int
    for wrong in WRONG[1:] if entry == "set_parent" else WRONG[2:]:  # None is no parent given
        with pytest.raises(TypeError):
            getattr(entries, entry)(first, wrong)
    assert child.parent is getcurrent()


def test_a_wrong_argument_leaves_the_target_as_it_was(entries: Any) -> None:
    for args, kwargs in ((5, NULL), ([1], NULL), ((1,), 5), ((1,), [("a", 1)]), ("ab", NULL)):
        for g in (greenlet(to_parent), suspended()):
            before = g.dead, bool(g)
            with pytest.raises(TypeError):
                entries.switch(g, args, kwargs)
            assert (g.dead, bool(g)) == before
            g.throw()
    for typ, val, tb in ((NULL, NULL, NULL), (5, NULL, NULL), (KeyError, NULL, 5)):
        for g in (greenlet(to_parent), suspended()):
            before = g.dead, bool(g)
            with pytest.raises(TypeError):
                entries.throw(g, typ, val, tb)
            assert (g.dead, bool(g)) == before
            g.throw()


# --- None, and exceptions that are set ------------------------------------------------------------


def test_a_new_greenlet_whose_parent_is_none_has_the_running_one(entries: Any) -> None:
    assert entries.create(int, None).parent is getcurrent()
    inside = greenlet(lambda: entries.create(lambda: 7, None).parent is inside)
    assert inside.switch()


@pytest.mark.parametrize("kwargs", [NULL, None, {}], ids=["NULL", "None", "an empty dict"])
def test_none_for_all_arguments_delivers_none(kwargs: Any, entries: Any) -> None:
    g = greenlet(lambda: ("got", to_parent()))
    g.switch()
    assert entries.switch(g, None, kwargs) == ("got", None)
    assert entries.switch(g, None, kwargs) is None  # g is dead, so it comes back at once
    assert entries.switch(getcurrent(), None, kwargs) is None
    started = greenlet(lambda *args, **kwargs: (args, kwargs))
    assert entries.switch(started, None, kwargs) == ((), {})


def test_none_beside_keywords_stands_for_no_arguments(entries: Any) -> None:
    g = greenlet(to_parent)
    g.switch()
    assert entries.switch(g, None, {"a": 1}) == {"a": 1}
    started = greenlet(lambda *args, **kwargs: (args, kwargs))
    assert entries.switch(started, None, {"a": 1}) == ((), {"a": 1})


def test_keywords_arrive_as_a_dict_of_their_own(entries: Any) -> None:
    keywords = {"a": 1}
    g = greenlet(to_parent)
    g.switch()
    arrived = entries.switch(g, (), keywords)
    assert arrived == keywords and arrived is not keywords


def test_keywords_that_are_no_strings_are_for_switches_not_for_calls(entries: Any) -> None:
    waiting = greenlet(to_parent)
    waiting.switch()
    assert entries.switch(waiting, (), {1: 2}) == {1: 2}
    started = greenlet(lambda **kwargs: kwargs)
    with pytest.raises(TypeError, match="keywords must be strings"):
        entries.switch(started, (), {1: 2})
    assert started.dead


def test_an_exception_that_is_set_already_is_what_switch_returns(entries: Any) -> None:
    ran: list[str] = []
    waiting = suspended()
    unstarted = greenlet(lambda: ran.append("ran"))
    for g in (waiting, unstarted, dead(), getcurrent()):
        state = g.dead, bool(g)
        for exception in (KeyError, GreenletExit):
            with pytest.raises(exception):
                entries.switch_with_error(g, exception)
        assert (g.dead, bool(g)) == state
    assert ran == []
    assert waiting.switch("still waiting") == "still waiting"


# --- no thread state ------------------------------------------------------------------------------

PYTHONS_OWN = -1  # PyThreadState_Get(), for comparison: 3.12 crashes while it reports
DETACHED = """
import sys
sys.path.insert(0, sys.argv[1])
import greenlet, entries

used, number, where = map(int, sys.argv[2:])
target = greenlet.greenlet(greenlet.getcurrent().switch)
if used:
    target.switch()
if where == 2:
    entries.after_the_end(number, target)
else:
    entries.detached(number, where, target)
"""


@functools.cache
def detached(folder: Path, number: int, place: int, *, used: bool) -> tuple[int, str]:
    """How the process ended, and the first line of its report."""
    args = [str(folder), str(int(used)), str(number), str(place)]
    outcome = run_script(DETACHED, args=args)
    return outcome.returncode, outcome.stderr.partition("\n")[0]


@pytest.mark.parametrize("where", ["here", "in another thread", "after the end"])
@pytest.mark.parametrize("number", range(3, 12))
def test_an_entry_without_a_thread_state_says_what_is_wrong(
    number: int, where: str, entries: Any, folder: Path
) -> None:
    place = ["here", "in another thread", "after the end"].index(where)
    expected = detached(folder, PYTHONS_OWN, place, used=True)
    assert "Fatal Python error: PyThreadState_Get: the function must be" in expected[1]
    assert detached(folder, number, place, used=number % 2 == 0) == expected


# --- wrong threads --------------------------------------------------------------------------------


class Elsewhere:
    """Greenlets of a thread that waits, or that has ended."""

    def __init__(self, *, alive: bool) -> None:
        ready = threading.Event()
        self._done = threading.Event()

        def live() -> None:
            self.main = getcurrent()
            self.suspended = suspended()
            self.dead = dead()
            self.parented = greenlet(int)
            ready.set()
            if alive:
                self._done.wait()

        self._thread = threading.Thread(target=live)
        self._thread.start()
        ready.wait()
        if not alive:
            self._thread.join()

    def all(self) -> list[greenlet]:
        return [self.main, self.suspended, self.dead, self.parented]

    def end(self) -> None:
        self._done.set()
        self._thread.join()


@pytest.mark.parametrize("alive", [True, False], ids=["living", "ended"])
def test_each_entry_does_with_another_threads_greenlets_what_methods_do(
    alive: bool, entries: Any
) -> None:
    elsewhere = Elsewhere(alive=alive)
    try:
        for g in elsewhere.all():
            assert outcome(entries.switch, g, NULL, NULL) == outcome(g.switch)
            assert outcome(entries.throw, g, KeyError, NULL, NULL) == outcome(g.throw, KeyError)
            assert outcome(entries.is_active, g) == outcome(lambda g: int(bool(g)), g)
            assert entries.is_started(g) == (g is not elsewhere.parented)
            assert entries.is_main(g) == (g is elsewhere.main)
            assert outcome(entries.get_parent, g) == outcome(
                lambda g: NULL if g.parent is None else g.parent, g
            )
            for child in (greenlet(), suspended()):
                assert outcome(entries.set_parent, child, g) == outcome(set_parent, child, g)
    finally:
        elsewhere.end()


def test_a_switch_to_another_threads_greenlet_is_an_error(entries: Any) -> None:
    g = suspended()
    for attempt in (
        lambda: entries.switch(g, NULL, NULL),
        lambda: entries.throw(g, KeyError, NULL, NULL),
    ):
        assert in_thread(lambda attempt=attempt: outcome(attempt)).startswith(  # type: ignore[misc]
            "error: Cannot switch to a different thread"
        )
    assert g.switch("here") == "here"


@pytest.mark.parametrize("entry", ["create", "set_parent"])
def test_an_entry_that_gives_a_greenlet_to_another_as_its_parent_makes_it_a_scheduler(
    entry: str, entries: Any
) -> None:
    log: list[str] = []
    kept: list[greenlet] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            log.append("finally")

    def work() -> None:
        kept.append(greenlet(run))
        kept[0].switch()
        if entry == "create":
            kept.append(entries.create(run, kept[0]))
        else:
            kept.append(greenlet(run))
            entries.set_parent(kept[1], kept[0])

    in_thread(work)
    assert log == []  # its thread has ended and left it suspended
    assert kept[0].dead


def test_a_thread_that_python_did_not_make_may_use_every_entry(entries: Any) -> None:
    before = _greenlet.get_total_main_greenlets()
    assert entries.in_a_foreign_thread(50) == 50
    assert _greenlet.get_total_main_greenlets() == before


# --- reference counts -----------------------------------------------------------------------------


def counts(objects: Sequence[object]) -> list[int]:
    collect()
    gc.collect()  # free-threaded builds add up the counts of all threads at its start
    return [sys.getrefcount(one) for one in objects]


def assert_balanced(call: Callable[[], object], *objects: object) -> None:
    """Fail if many calls change how many references there are to an object, or to our types."""
    watched = [*objects, getcurrent(), GreenletExit, library.error]
    call()
    before = counts(watched)
    for _ in range(LOOPS):
        call()
    after = counts(watched)
    # Free-threaded builds count some references elsewhere. A leak would be LOOPS references.
    changes = {repr(o): a - b for o, a, b in zip(watched, after, before, strict=True)}
    assert {name: n for name, n in changes.items() if abs(n) > LOOPS // 5} == {}


def test_new_is_balanced(entries: Any) -> None:
    def run() -> None: ...

    parent = greenlet()
    assert_balanced(lambda: entries.create(run, parent), run, parent)
    assert_balanced(lambda: entries.create(run, NULL), run)
    assert_balanced(lambda: entries.create(NULL, NULL))
    assert_balanced(lambda: outcome(entries.create, run, run), run)


def test_get_current_is_balanced(entries: Any) -> None:
    assert_balanced(entries.get_current)
    inside = greenlet(lambda: assert_balanced(entries.get_current))
    inside.switch()


def test_switch_is_balanced(entries: Any) -> None:
    class Item: ...

    item, key = Item(), "keyword" * 20
    positional, keywords = (item,), {key: item}

    def echo() -> None:
        received: Any = None
        while True:
            received = to_parent(received)

    g = greenlet(echo)
    g.switch()
    watched = (g, item, key, positional, keywords)
    for args, kwargs in ((positional, NULL), (NULL, keywords), (positional, keywords)):
        assert_balanced(lambda a=args, k=kwargs: entries.switch(g, a, k), *watched)  # type: ignore[misc]

    def start() -> object:
        return entries.switch(greenlet(lambda *a, **k: a), positional, keywords)

    assert_balanced(start, *watched)
    ended = dead()
    assert_balanced(lambda: entries.switch(ended, positional, keywords), ended, *watched)
    assert_balanced(lambda: outcome(entries.switch, g, item, NULL), *watched)
    assert_balanced(lambda: outcome(entries.switch, g, positional, item), *watched)
    assert_balanced(lambda: outcome(entries.switch, item, positional, keywords), *watched)


def test_throw_is_balanced(entries: Any) -> None:
    class Problem(Exception): ...

    value = Problem("value")

    def catch() -> None:
        while True:
            try:
                to_parent()
            except Problem:
                pass

    g = greenlet(catch)
    g.switch()
    watched = (g, Problem, value)

    def throw(*args: Any) -> None:
        outcome(entries.throw, *args)
        value.__traceback__ = value.__context__ = None

    assert_balanced(lambda: throw(g, Problem, NULL, NULL), *watched)
    assert_balanced(lambda: throw(g, Problem, value, NULL), *watched)
    assert_balanced(lambda: throw(g, value, NULL, NULL), *watched)
    assert_balanced(lambda: throw(dead(), Problem, value, NULL), *watched)
    assert_balanced(lambda: throw(greenlet(), GreenletExit, value, NULL), *watched)
    assert_balanced(lambda: throw(g, value, value, NULL), *watched)
    assert_balanced(lambda: throw(g, Problem, NULL, value), *watched)
    assert_balanced(lambda: throw(value, Problem, value, NULL), *watched)


def test_the_other_entries_are_balanced(entries: Any) -> None:
    parents, child, wrong = (greenlet(), greenlet()), greenlet(), "w" * 20
    watched = (*parents, child, wrong)

    def set_parents() -> None:
        for parent in parents:
            entries.set_parent(child, parent)

    assert_balanced(set_parents, *watched)
    assert_balanced(lambda: outcome(entries.set_parent, child, wrong), *watched)
    assert_balanced(lambda: outcome(entries.set_parent, child, child), *watched)
    assert_balanced(lambda: outcome(entries.set_parent, getcurrent(), child), *watched)
    for name in ("get_parent", "get_parent_by_old_name", "is_main", "is_started", "is_active"):
        entry = getattr(entries, name)
        for target in (child, getcurrent(), wrong):
            assert_balanced(lambda e=entry, t=target: outcome(e, t), *watched)  # type: ignore[misc]


# --- late callers ---------------------------------------------------------------------------------

LATE = """
import sys
sys.path.insert(0, sys.argv[1])
import greenlet, entries

def late():
    main = greenlet.getcurrent()
    started = greenlet.greenlet(main.switch)
    started.switch()
    return entries.late_caller(started, greenlet.greenlet(), main)

"""


@pytest.mark.parametrize(
    "keep",
    [
        "import atexit; atexit.register(lambda kept=late(): None)",
        "kept = late()",
        "sys.kept = late()",
        "import builtins; builtins.kept = late()",
        "greenlet._greenlet.kept = late()",
        "class Cycle: pass\ncycle = Cycle(); cycle.itself, cycle.kept = cycle, late()",
        "import threading; local = threading.local(); local.kept = late()",
        "g = greenlet.greenlet(lambda kept: g.parent.switch()); g.switch(late())",
        "entries.keep_to_the_end(late())",
    ],
)
def test_every_entry_answers_or_raises_when_called_at_interpreter_exit(
    keep: str, entries: Any, folder: Path
) -> None:
    said = run_clean(LATE + keep, args=[str(folder)], env={"PYTHONMALLOC": "debug"})
    assert said == "late"


@since("concurrent.interpreters")
def test_a_table_outlives_its_interpreter(entries: Any, folder: Path) -> None:
    """The extension's static pointer points to the table of the interpreter that imported last."""
    said = run_clean(
        LATE
        + """
from concurrent import interpreters
other = interpreters.create()
other.exec(f"import sys; sys.path.insert(0, {sys.argv[1]!r}); import greenlet, entries")
other.close()
assert entries.get_current() is greenlet.getcurrent()
assert entries.switch(entries.create(lambda *args: args, ...), (1,), ...) == (1,)
assert not entries.check(5)
kept = late()
del kept
""",
        args=[str(folder)],
        env={"PYTHONMALLOC": "debug"},
    )
    assert said == "late"


# --- C++ ------------------------------------------------------------------------------------------


def test_exceptions_of_cpp_programs_interleave(unwinding: Any) -> None:
    """Each greenlet has its own stack of C++ exceptions that are being handled."""
    greenlets = [greenlet(unwinding.handle) for _ in range(3)]
    results: dict[int, list[str]] = {}
    for index, g in enumerate(greenlets):
        g.switch(str(index), index + 1)
    while len(results) < 3:
        for index, g in enumerate(greenlets):
            if index not in results:
                result = g.switch()
                if g.dead:
                    results[index] = result
    assert results == {
        0: ["0", "0/0", "0/0/1"],
        1: ["1", "1/0", "1/0/1", "1/0/1/2"],
        2: ["2", "2/0", "2/0/1", "2/0/1/2", "2/0/1/2/3"],
    }
    assert unwinding.count_living() == 0


@pytest.mark.skipif(
    ADDRESS_SANITIZER, reason="the sanitizer needs the C++ runtime from the start of the process"
)
def test_a_cpp_runtime_may_be_loaded_when_greenlets_have_switched_already(
    unwinding: Any, folder: Path
) -> None:
    """The first switch already tells them apart; no new greenlet has to start first."""
    missing = folder / "missing"
    missing.mkdir()
    for name in ("libstdc++.so.6", "libc++abi.so.1"):
        (missing / name).touch()  # the loader finds this file first, and cannot load it
    with open("/proc/self/maps") as maps:
        (runtime,) = {line.split()[-1] for line in maps if "/libstdc++.so" in line}
    assert (
        run_clean(
            """
            import ctypes, importlib.util, sys
            from greenlet import getcurrent, greenlet

            def runtimes():
                with open("/proc/self/maps") as maps:
                    return {line.split()[-1] for line in maps if "/libstdc++.so" in line}

            handle = None

            def work(name, depth):
                while handle is None:
                    main.switch()
                return handle(name, depth)

            main = getcurrent()
            greenlets = [greenlet(work) for _ in range(3)]
            for index, g in enumerate(greenlets):
                g.switch(str(index), index + 1)
            if runtimes():
                sys.exit("the process has had a C++ runtime from the beginning")
            ctypes.CDLL(sys.argv[1], ctypes.RTLD_LOCAL)
            spec = importlib.util.spec_from_file_location("unwinding", sys.argv[2])
            unwinding = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(unwinding)
            handle = unwinding.handle
            while greenlets:
                for g in list(greenlets):
                    result = g.switch()
                    if g.dead:
                        print(result)
                        greenlets.remove(g)
            """,
            args=[runtime, unwinding.__file__],
            env={"LD_LIBRARY_PATH": str(missing)},
        )
        == "['0', '0/0', '0/0/1']\n['1', '1/0', '1/0/1', '1/0/1/2']\n"
        "['2', '2/0', '2/0/1', '2/0/1/2', '2/0/1/2/3']"
    )


@pytest.mark.parametrize("pauses", range(8))
def test_a_python_exception_unwinds_cpp_frames(pauses: int, unwinding: Any) -> None:
    g = greenlet(unwinding.handle)
    g.switch("x", 3)
    for _ in range(pauses):
        g.switch()
    assert unwinding.count_living() > 0
    with pytest.raises(KeyError):
        g.throw(KeyError)
    assert unwinding.count_living() == 0


def test_a_dropped_greenlet_destroys_what_is_on_its_cpp_stack(unwinding: Any) -> None:
    g = greenlet(unwinding.handle)
    g.switch("x", 5)
    g.switch()
    assert unwinding.count_living() == 2
    del g
    assert unwinding.count_living() == 0


def test_a_cpp_class_over_greenlet_has_members(unwinding: Any) -> None:
    g = unwinding.Task(to_parent)
    g.switch()
    assert g.name.startswith("a name too long")
    assert unwinding.count_living() == 1
    g.extra = 1
    reference = weakref.ref(g)
    del g
    assert unwinding.count_living() == 0
    assert reference() is None


# Before 3.3 Cython's tp_dealloc does not drop the reference of an object to its heap type if the
# base class comes from another module. So each object leaks one reference, with either greenlet.
FORGETS_HEAP_TYPES = tuple(map(int, version("cython").split(".")[:2])) < (3, 3)


@pytest.mark.parametrize("python_subclass", [False, True])
def test_compiled_classes_are_counted_right(
    python_subclass: bool, unwinding: Any, fields: Any
) -> None:
    """One tp_dealloc drops an object's reference to its heap type: the class's own, or ours."""
    for kind in (unwinding.Task, unwinding.Visiting, fields.Task, fields.Named, fields.Bare):
        cls = type("Python", (kind,), {}) if python_subclass else kind

        def use(cls: Any = cls) -> None:
            g = cls()
            if python_subclass:
                g.cycle = g

        is_heap_type = cls.__flags__ >> 9 & 1  # Py_TPFLAGS_HEAPTYPE
        if not (kind.__module__ == "fields" and kind.__flags__ >> 9 & 1 and FORGETS_HEAP_TYPES):
            assert_balanced(use, cls)
        visits = gc.get_referents(cls()).count(cls)
        assert visits <= is_heap_type
        if not (kind.__module__ == "fields" and kind.__flags__ >> 9 & 1):
            assert visits == is_heap_type  # Cython's tp_traverse leaves some heap types out


@pytest.mark.parametrize("brings_back", [False, True])
def test_a_finalizer_that_leaves_out_ours_leaves_the_greenlet_to_its_thread(
    unwinding: Any, brings_back: bool
) -> None:
    """Only its thread ends it, and what it uses stays until it has ended."""
    log: list[object] = []
    saved: list[Any] = []
    source = """
        def helper():
            try:
                getcurrent().parent.switch()
            finally:
                log.append(name)

        def run():
            me = getcurrent()
            helper()
    """

    def use() -> None:
        # What the frames use is garbage together with the greenlet, code objects included.
        namespace: dict[str, Any] = {"getcurrent": getcurrent, "log": log, "name": "unwound"}
        exec(textwrap.dedent(source), namespace)
        g = unwinding.Finalizing(namespace["run"])
        namespace["itself"] = g
        g.switch()
        frame = g.gr_frame
        unwinding.save_finalized(saved if brings_back else None)
        del g, namespace
        collect()
        unwinding.save_finalized(None)
        made = [compile(f"x = {i}", "", "exec") for i in range(200)]  # takes memory that was freed
        assert frame.f_code.co_name == "helper"
        assert sorted(frame.f_back.f_locals) == ["me"]
        for g in saved:
            assert g and not g.dead
            del g.gr_frame.f_globals["helper"], g.gr_frame.f_globals["run"]
            del g
        collect()
        assert log == []
        del made, frame
        saved.clear()
        collect()
        assert log == []

    in_thread(use)
    assert log == ["unwound"]
    collect()
    assert not any(type(each) is unwinding.Finalizing for each in gc.get_objects())


def test_the_attributes_of_a_suspended_greenlet_stay_where_its_class_hides_them(
    unwinding: Any,
) -> None:
    """A collection clears the cycle that its tp_traverse shows, and only then its stack ends."""
    log: list[str] = []

    def waits() -> None:
        try:
            to_parent()
        finally:
            log.append(vars(getcurrent())["mark"])

    g = unwinding.Blind(waits)
    g.mark = "mark"
    g.switch()
    g.hold_itself()
    del g
    collect()
    assert log == ["mark"]


# --- kinds of compiled classes --------------------------------------------------------------------


@pytest.mark.parametrize("shape", class_cases.SHAPES)
@pytest.mark.parametrize("kind", class_cases.KINDS)
def test_a_compiled_class_and_its_references_hold(
    kind: str, shape: str, classes: Any, folder: Path
) -> None:
    # In a child process, which has few objects: the checks collect hundreds of times.
    run_clean(
        f"""
        import sys
        sys.path.append(sys.argv[1])
        import class_cases, classes
        class_cases.check(classes, {kind!r}, {shape!r})
        """,
        args=[str(folder)],
        timeout=60,
    )


OTHER_INTERPRETER = """
import sys
sys.path.append(sys.argv[1])
import greenlet  # in the main interpreter, too
from child import Interpreter

other = Interpreter()

def run(source):
    other.run(f"import sys; sys.path[:] = {sys.path!r}; " + source)
"""


def test_compiled_heap_types_hold_in_other_interpreters(classes: Any, folder: Path) -> None:
    said = run_clean(
        OTHER_INTERPRETER
        + """
run('''
import class_cases, classes, greenlet
assert greenlet.greenlet.__flags__ & class_cases.HEAP_TYPE
for shape in class_cases.SHAPES:
    class_cases.check(classes, "heap", shape)
''')
assert not greenlet.greenlet.__flags__ >> 9 & 1
other.close()
print("done")
""",
        args=[str(folder)],
        timeout=60,
    )
    assert said == "done"


def test_other_interpreters_share_no_static_type(classes: Any, folder: Path) -> None:
    said = run_clean(
        OTHER_INTERPRETER
        + """
run('''
import classes
try:
    classes.make("static", "")
except TypeError as refusal:
    assert "not dynamically allocated" in str(refusal)
else:
    raise AssertionError
''')
other.close()
print("done")
""",
        args=[str(folder)],
    )
    assert said == "done"


def test_a_static_class_stays_a_greenlet_when_the_module_is_imported_again(
    classes: Any, folder: Path
) -> None:
    said = run_clean(
        """
import importlib, importlib.util, sys
sys.path.insert(0, sys.argv[1])
import classes, greenlet
Task = classes.make("static", "")
first, task = greenlet.greenlet, Task(lambda: greenlet.getcurrent())
for name in [name for name in sys.modules if name.partition(".")[0] == "greenlet"]:
    del sys.modules[name]
import greenlet, greenlet._greenlet
assert greenlet.greenlet is first and first.getcurrent is greenlet.getcurrent
importlib.reload(greenlet)
importlib.reload(greenlet._greenlet)
spec = importlib.util.find_spec("greenlet._greenlet")
for _ in range(3):
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert again.greenlet is first
assert isinstance(task, greenlet.greenlet)
assert task.switch() is task
assert classes.make("static", "t")(lambda: 5).switch() == 5
print("done")
""",
        args=[str(folder)],
    )
    assert said == "done"


# --- Cython ---------------------------------------------------------------------------------------


def test_a_cython_class_keeps_its_fields_through_switches(fields: Any) -> None:
    log: list[Any] = []
    tasks = [fields.Task() for _ in range(3)]
    for task in tasks:
        task.kept = log
    for count in range(1, 4):
        for task in tasks:
            item = object()
            assert task.switch(item) is item
            assert (task.received, task.sum_of_squares(), task.active) == (count, 140.0, True)
    for task in tasks:
        with pytest.raises(KeyError):
            fields.end(task, KeyError)
    assert log == [("ended", 3, 140.0)] * 3


def test_a_dropped_cython_instance_has_its_fields_while_it_ends(fields: Any) -> None:
    log: list[Any] = []
    task = fields.Task()
    task.kept = log
    task.switch(1)
    task.switch(2)
    del task
    collect()  # its method had it as an argument
    assert log == [("ended", 2, 140.0)]


@pytest.mark.parametrize("python_subclass", [False, True])
def test_a_cycle_through_a_cython_field_is_collected(python_subclass: bool, fields: Any) -> None:
    cls = type("Python", (fields.Named,), {}) if python_subclass else fields.Named

    class Log(list[Any]): ...

    log = Log()
    ended: list[Any] = []
    weakref.finalize(log, ended.append, "log")
    task = cls()
    task.name = "named"
    task.kept = log
    task.switch(1)
    log.append(task)
    reference = weakref.ref(task)
    del task, log
    assert reference() is not None
    collect()
    assert reference() is None
    assert ended == ["log"]


def test_python_classes_over_cython_ones_override_their_methods(fields: Any) -> None:
    class Python(fields.Task):  # type: ignore[misc]
        def run(self, *args: Any) -> Any:
            return args, self.received, fields.current() is self

    assert Python().switch(1, 2) == ((1, 2), 0, True)
    assert fields.call_in_greenlet(lambda a: a + 1, 2) == 3


def test_cython_sets_parents_and_raises_what_that_raises(fields: Any) -> None:
    child, parent = fields.Task(), fields.Named()
    fields.adopt(child, parent)
    assert child.parent is parent
    with pytest.raises(ValueError, match="cyclic parent chain"):
        fields.adopt(parent, child)
    for wrong in (None, 5):
        with pytest.raises(TypeError):
            fields.adopt(child, wrong)


def test_cython_generators_and_with_blocks_switch(fields: Any) -> None:
    log: list[Any] = []

    def body() -> str:
        with fields.Guard(log):
            for number in fields.numbers(3):
                log.append(number)
        return "done"

    greenlets = [greenlet(body) for _ in range(2)]
    results = [g.switch() for _ in range(6) for g in greenlets]
    assert results == [()] * 10 + ["done"] * 2
    assert log == [item for item in ("enter", 0, 1, 2, "exit") for _ in range(2)]
