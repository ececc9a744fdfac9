"""What happens when a C stack is full: an exception or a fault at the guard, and no page beside it
is written. And greenlet.stacks.report_overflow(), which adds a sentence and changes nothing else.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
from greenlet import stacks
from helpers import ADDRESS_SANITIZER, TIME_SCALE, VERSION, Outcome, compile_extension
from recursion_cases import ALL_PROGRAMS, PROGRAMS

SENTENCE = re.compile(
    r"^greenlet: in thread (\d+) a greenlet has used up its C stack of (\d+) KiB; .*$", re.MULTILINE
)

without_signal_stacks_of_others = pytest.mark.skipif(
    ADDRESS_SANITIZER, reason="AddressSanitizer gives each thread a signal stack of its own"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Functions that no check of the interpreter sees: endless recursion, and a handler in C."""
    folder = tmp_path_factory.mktemp("overflow")
    (folder / "overflow.c").write_text(
        """
        #define _GNU_SOURCE
        #include <setjmp.h>
        #include <signal.h>
        #include <string.h>

        int descend(int level) {
          volatile char frame[1024];
          frame[level % 1024] = (char)level;
          return descend(level + 1) + frame[(level + 1) % 1024];
        }

        /* As a JVM does: faults are expected, and the handler goes on elsewhere. */
        static sigjmp_buf landing;
        static int faults;
        static void handler(int number, siginfo_t *info, void *context) {
          ++faults;
          siglongjmp(landing, 1);
        }
        void handle(void) {
          struct sigaction action;
          memset(&action, 0, sizeof action);
          action.sa_sigaction = handler;
          action.sa_flags = SA_SIGINFO | SA_ONSTACK;
          sigaction(SIGSEGV, &action, 0);
        }
        static void plain_handler(int number) {
          ++faults;
          siglongjmp(landing, 1);
        }
        void handle_once(void) {
          struct sigaction action;
          memset(&action, 0, sizeof action);
          action.sa_handler = plain_handler;
          action.sa_flags = SA_RESETHAND | SA_ONSTACK;
          sigaction(SIGSEGV, &action, 0);
        }
        int fault(void) {
          if (sigsetjmp(landing, 1) == 0) *(volatile int *)8 = 1;
          return faults;
        }
        /* Whether SIGSEGV calls a function. */
        int has_handler(void) {
          struct sigaction action;
          sigaction(SIGSEGV, 0, &action);
          return action.sa_handler != SIG_DFL;
        }
        int has_signal_stack(void) {
          stack_t now;
          sigaltstack(0, &now);
          return (now.ss_flags & SS_DISABLE) == 0;
        }
        """
    )
    subprocess.run(
        ["gcc", "-O0", "-shared", "-fPIC", "-w", "-o", "overflow.so", "overflow.c"],
        cwd=folder,
        check=True,
    )
    return str(folder / "overflow.so")


PRELUDE = """
import ctypes, faulthandler, os, resource, signal, sys, threading
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
library = ctypes.CDLL(sys.argv[1])
from greenlet import greenlet, stacks

def overflow():
    print(threading.get_native_id(), flush=True)
    library.descend(0)

def in_greenlet(function, size=512 << 10):
    g = greenlet(function)
    stacks.set_size(g, size)
    return g.switch()
"""


def run(source: str, library: str, env: dict[str, str] | None = None) -> Outcome:
    """Like run_script(), without faulthandler: that installs handlers and a signal stack, too."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + source, library],
        capture_output=True,
        text=True,
        timeout=30 * TIME_SCALE,
        env={**os.environ, **(env or {})},
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("stacks.report_overflow()\nin_greenlet(overflow)", id="main thread"),
        pytest.param(
            "stacks.report_overflow()\n"
            "t = threading.Thread(target=in_greenlet, args=(overflow,))\nt.start()\nt.join()",
            id="another thread",
        ),
        pytest.param(
            "stacks.report_overflow()\n"
            "if (child := os.fork()) == 0:\n"
            "    in_greenlet(overflow)\n"
            "os.kill(os.getpid(), os.WTERMSIG(os.waitpid(child, 0)[1]))",
            id="child of a fork",
        ),
        pytest.param(
            "stacks.report_overflow()\nstacks.report_overflow(False)\nstacks.report_overflow()\n"
            "stacks.report_overflow()\nin_greenlet(overflow)",
            id="enabled again",
        ),
    ],
)
def test_an_overflow_is_told_in_one_sentence_and_the_process_dies_by_sigsegv(
    source: str, library: str
) -> None:
    outcome = run(source, library)
    assert outcome.returncode == -signal.SIGSEGV
    found = SENTENCE.fullmatch(outcome.stderr.strip())
    assert found, outcome.stderr
    assert found[1] == outcome.stdout.strip()
    assert 512 <= int(found[2]) < 1024


def test_the_environment_can_ask_for_it(library: str) -> None:
    outcome = run("in_greenlet(overflow)", library, env={"GREENLET_REPORT_OVERFLOW": "1"})
    assert outcome.returncode == -signal.SIGSEGV
    assert SENTENCE.search(outcome.stderr)


@without_signal_stacks_of_others
@pytest.mark.parametrize("value", [None, "0", ""])
def test_it_is_off_by_default(value: str | None, library: str) -> None:
    env = {} if value is None else {"GREENLET_REPORT_OVERFLOW": value}
    outcome = run(
        "in_greenlet(int)\nassert not library.has_handler()\n"
        "assert not library.has_signal_stack()\nin_greenlet(overflow)",
        library,
        env=env,
    )
    assert (outcome.returncode, outcome.stderr) == (-signal.SIGSEGV, "")


def test_switched_off_it_leaves_no_handler(library: str) -> None:
    outcome = run(
        "stacks.report_overflow()\nassert library.has_handler()\nstacks.report_overflow(False)\n"
        "assert not library.has_handler()\nin_greenlet(overflow)",
        library,
    )
    assert (outcome.returncode, outcome.stderr) == (-signal.SIGSEGV, "")


def test_faulthandler_reports_the_overflow_after_the_sentence(library: str) -> None:
    outcome = run("faulthandler.enable()\nstacks.report_overflow()\nin_greenlet(overflow)", library)
    assert outcome.returncode == -signal.SIGSEGV
    sentence, _, rest = outcome.stderr.partition("\n")
    assert SENTENCE.fullmatch(sentence)
    assert rest.startswith("Fatal Python error: Segmentation fault")
    assert "in overflow" in rest


def test_faulthandler_enabled_later_reports_the_overflow(library: str) -> None:
    outcome = run("stacks.report_overflow()\nfaulthandler.enable()\nin_greenlet(overflow)", library)
    assert outcome.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in outcome.stderr
    assert "in overflow" in outcome.stderr


@pytest.mark.parametrize("handler", ["", "faulthandler.enable()"])
@pytest.mark.parametrize(
    "fault",
    [
        "ctypes.string_at(8)",
        "in_greenlet(lambda: ctypes.string_at(8))",
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "os.kill(os.getpid(), signal.SIGBUS)",
    ],
)
def test_other_faults_end_the_process_as_without_it(fault: str, handler: str, library: str) -> None:
    outcomes = [
        run(f"{handler}\n{enable}\n{fault}", library) for enable in ("", "stacks.report_overflow()")
    ]
    assert outcomes[0].returncode in (-signal.SIGSEGV, -signal.SIGBUS)
    assert outcomes[0].returncode == outcomes[1].returncode
    assert not SENTENCE.search(outcomes[1].stderr)
    said = [outcome.stderr.partition("\n")[0] for outcome in outcomes]
    assert said[0] == said[1]
    assert bool(said[1]) == bool(handler)


@pytest.mark.parametrize("order", ["library.handle()\nENABLE", "ENABLE\nlibrary.handle()"])
def test_a_handler_that_expects_faults_goes_on_handling_them(order: str, library: str) -> None:
    source = order.replace("ENABLE", "stacks.report_overflow()")
    outcome = run(
        source + "\nprint([library.fault() for _ in range(3)], in_greenlet(library.fault))"
        "\nstacks.report_overflow(False)\nprint(library.fault())",
        library,
    )
    assert outcome == (0, "[1, 2, 3] 4\n5\n", "")


def test_a_handler_for_one_fault_handles_one(library: str) -> None:
    outcome = run(
        "library.handle_once()\nstacks.report_overflow()\nprint(library.fault())"
        "\nassert not library.has_handler()",
        library,
    )
    assert outcome == (0, "1\n", "")


def test_signals_that_are_sent_and_ignored_stay_ignored(library: str) -> None:
    outcome = run(
        "for number in signal.SIGSEGV, signal.SIGBUS:\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "stacks.report_overflow()\n"
        "for number in signal.SIGSEGV, signal.SIGBUS:\n"
        "    os.kill(os.getpid(), number)\n"
        "print('goes on')",
        library,
    )
    assert outcome == (0, "goes on\n", "")


@without_signal_stacks_of_others
def test_a_thread_gives_its_signal_stack_back(library: str) -> None:
    outcome = run(
        """
stacks.report_overflow()

def mapped():
    with open("/proc/self/maps") as maps:
        return sum(1 for _ in maps)

def work():
    assert not library.has_signal_stack()
    in_greenlet(int)
    assert library.has_signal_stack()

def threads(count):
    for _ in range(count):
        t = threading.Thread(target=work)
        t.start()
        t.join()

threads(5)
before = mapped()
threads(100)
assert mapped() < before + 50
""",
        library,
    )
    assert outcome == (0, "", "")


# --- every way to go too deep ----------------------------------------------------------------

RUN = Path(__file__).with_name("overflow_run.py")
ERRORS = {"ended", "RecursionError", "RuntimeError", "MemoryError", "ValueError"}
SMALLEST = stacks.MIN_SIZE
# What overflow_run.py runs: the size of the stacks and the recursion limit; zero is the usual one.
USUAL_STACK, SMALL_STACK = "0/0", f"{SMALLEST}/0"
# 3.11 has only the recursion limit against overflows.
HIGH_LIMIT = [f"{SMALLEST}/20000"] if VERSION >= (3, 12) else []

# Nothing checks how deep these are, and they end at the guard of every stack.
END_AT_THE_GUARD = {
    "a chain of maps",
    "a C function with small frames",
    "a C function with usual frames",
    "a C function with large frames",
}
# CPython bounds these by a number of levels, or not at all, whatever the size of the stack.
MAY_END_AT_THE_GUARD_OF_A_SMALL_STACK = {
    "hash of nested tuples",
    "a set of nested tuples",
    "marshal.dumps of a nested list",
    "marshal.loads of a nested list",
    "release of a chain of generators",
}
# The parser before 3.14, too.
PARSER = {name for name in ALL_PROGRAMS if name.startswith(("ast", "compile"))}
PARSER.add("recursion through eval")


def may_fault(name: str, size: int) -> bool:
    """Return whether memory-and-limits.md warns of it."""
    if size == 0 or size >= 8 << 20:
        return False
    if name in MAY_END_AT_THE_GUARD_OF_A_SMALL_STACK:
        return True
    return size < 1 << 20 and (VERSION < (3, 12) or (name in PARSER and VERSION < (3, 14)))


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compile_extension("overflow.c", tmp_path_factory.mktemp("extensions")))


def check_rounds(name: str, extension: str, rounds: Collection[str]) -> None:
    """Run rounds of a program. One that ends by a fault is the last, so the others follow anew."""
    left = list(rounds)
    while left:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", RUN, extension, name, *left],
            capture_output=True,
            text=True,
            timeout=60 * TIME_SCALE,
            env={**os.environ, "GREENLET_REPORT_OVERFLOW": "1"},
            check=False,
        )
        for line in done.stdout.splitlines():
            of, _, end = line.partition(":")
            assert of == left.pop(0)
            if end.strip():
                assert set(end.split()) <= ERRORS, line
                assert name not in END_AT_THE_GUARD, line
                continue
            assert name in END_AT_THE_GUARD or may_fault(name, int(of.split("/")[0])), done.stderr
            assert done.returncode == -signal.SIGSEGV
            ours, sentence, faulthandler, *_ = done.stderr.splitlines()
            assert ours == "fault in the guard, 0 pages beside it changed"
            assert SENTENCE.fullmatch(sentence)
            assert faulthandler == "Fatal Python error: Segmentation fault"
            assert re.search(
                r"most recent call first\):\n(  Garbage-collecting\n)?  File ", done.stderr
            )
            break
        else:
            assert (done.returncode, done.stderr, left) == (0, "", [])


@pytest.mark.parametrize("name", ALL_PROGRAMS)
def test_too_deep_is_an_error_or_a_fault_at_the_guard_and_writes_nothing_beside_the_stack(
    name: str, extension: str
) -> None:
    # test_recursion.py has the first programs on usual stacks.
    rounds = [] if name in PROGRAMS else [USUAL_STACK]
    check_rounds(name, extension, [*rounds, *(HIGH_LIMIT or [SMALL_STACK])])


@pytest.mark.stress
@pytest.mark.parametrize("name", ALL_PROGRAMS)
def test_too_deep_in_each_round(name: str, extension: str) -> None:
    sizes = [size << 10 for size in (256, 300, 1024, 4096, 65536)]
    rounds = [
        f"{size}/{limit}" for size in sizes for limit in ([0, 100_000] if HIGH_LIMIT else [0])
    ]
    check_rounds(name, extension, [USUAL_STACK, *rounds])
