"""What can be done with this checkout: each command that `make help` lists is a session here.

Sessions on an interpreter share its environment, .venvs/NAME; the others have one of their own. The
last line of a session that tests is `N passed, N failed`.
"""

import atexit
import functools
import importlib
import logging
import os
import shutil
import signal
import sys
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent / "tools"))
import environments
import interpreters
import suites

nox.options.envdir = ".venvs"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
logging.getLogger("nox").setLevel(logging.WARNING)

NAME = os.environ.get("NAME") or interpreters.default()[0]
RESULTS = Path("benchmarks/results")
REPORT = suites.Report()
atexit.register(REPORT.finish)
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # with the suite that runs

# Decorates a session that uses environments of tools/environments.py.
shared = functools.partial(nox.session, venv_backend="none")


def ours(name: str = NAME) -> str:
    """Return the python of the environment with greenlet as it is in this checkout."""
    return str(environments.ours(name, environments.base(name)))


def end(session: nox.Session) -> None:
    """Let the session fail if a test has."""
    if REPORT.total.failed or not REPORT.total.passed:
        session.error("tests failed")


def run_native(preset: str, tools: str | Path) -> None:
    """Configure, build and test a preset of CMakePresets.json, with the CMake of that folder."""
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    suites.test(REPORT, preset, ["cmake", "--workflow", "--preset", preset], PATH=path)


def run_suites(name: str, names: Iterable[str], kind: str = "", echo: bool = True) -> None:
    """Run folders of tests on an interpreter; `kind` is part of the names of their logs."""
    with environments.required(REPORT, name):
        base = environments.base(name)
        python = environments.ours(name, base)
        for suite in names:
            if suite == "native":
                run_native(suite, python.parent)
                continue
            # Without a published wheel for the interpreter, there is nothing to compare with.
            with environments.required(REPORT, f"{name}-{suite}", "no wheels with a matching"):
                if suite == "contract":
                    environments.published(name, base)
                label = f"{name}{kind}-{suite}"
                suites.pytest(REPORT, label, [python], f"tests/{suite}", echo=echo)


@shared(name="demo")
def demo(session: nox.Session) -> None:
    """the main job: an echo server and thousands of clients, all of them greenlets"""
    session.run(ours(), "examples/echo_server.py")


@shared(name="test")
def test(session: nox.Session) -> None:
    """every test on one interpreter: native, Python, contract, interop (NAME=3.15t; or python3)"""
    run_suites(NAME, session.posargs or ("native", "python", "contract", "interop"))
    end(session)


@shared(name="test-all")
def test_all(session: nox.Session, kind: str = "") -> None:
    """Python and contract tests on every supported interpreter (WHAT="3.13 3.15t": on these)"""
    tested = os.environ.get("SUITES", "python contract").split()
    found = interpreters.provide(session.posargs or interpreters.STANDARD)
    # The suites of free-threaded and newer interpreters take longest. None of them is to run alone.
    longest_first = sorted(found, key=lambda name: ("t" in name, name), reverse=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: run_suites(name, tested, kind, echo=False), longest_first))
    end(session)


@shared(name="debug-tests")
def debug_tests(session: nox.Session) -> None:
    """Python tests on debug builds, at each allocation a collection"""
    options = "--gc-threshold 1 --timeout 900 -o faulthandler_timeout=930"
    os.environ |= {"PYTEST_ADDOPTS": options, "SUITES": "python", "SUITE_MINUTES": "90"}
    session.posargs[:] = session.posargs or ["3.14t-debug", "3.15-debug", "3.15t-debug"]
    test_all(session)


@shared(name="test-freezing")
def test_freezing(session: nox.Session) -> None:
    """Python tests with every suspended stack frozen (WHAT="3.14 3.15t"; MODE=1 keeps memory)"""
    mode = os.environ.get("MODE") or "drop"
    os.environ |= {"GREENLET_TEST_FREEZING": mode}
    os.environ.setdefault("SUITES", "python")
    session.posargs[:] = session.posargs or ["3.14", "3.14t"]
    test_all(session, f"-freezing-{mode}")


@shared(name="pytest")
def pytest(session: nox.Session) -> None:
    """some tests (WHAT="tests/python/test_switch.py -k parent" NAME=3.14t)"""
    session.run(ours(), "-m", "pytest", *session.posargs)


@shared(name="test-compilers")
def test_compilers(session: nox.Session) -> None:
    """builds by each gcc and clang of this machine (WHAT="g++-11 clang++-13")"""
    importlib.import_module("compilers_test").run(REPORT, NAME, session.posargs)
    end(session)


@shared(name="stress")
def stress(session: nox.Session) -> None:
    """the long stress tests (NAME=3.15t)"""
    limits = ("--timeout", "3600", "-o", "faulthandler_timeout=3660")
    session.run(ours(), "-m", "pytest", "-m", "stress", *limits, "tests/python", "tests/interop")


@shared(name="storm")
def storm(session: nox.Session) -> None:
    """storms of greenlets and threads, for SECONDS=60 each (SEED=1 ON=3.14t WHAT=containers)"""
    options = [os.environ.get("SECONDS") or "60", *session.posargs]
    if seed := os.environ.get("SEED"):
        options += ["--seed", seed]
    if "tsan" in os.environ.get("ON", ""):
        environments.keep_addresses()
    for name in (os.environ.get("ON") or NAME).split():
        print(name, flush=True)
        # Threads that end leave schedulers behind, and CPython leaves much at its exit.
        environment = {"PYTHONPATH": "tests/python", "ASAN_OPTIONS": "detect_leaks=0"}
        session.run(ours(name), "-m", "storms", *options, env=environment)


@shared(name="soak")
def soak(session: nox.Session) -> None:
    """gevent, SQLAlchemy and the echo server for long: nothing grows (MINUTES=30 ON=3.14)"""
    options = ["--minutes", os.environ.get("MINUTES") or "30"]
    if seed := os.environ.get("SEED"):
        options += ["--seed", seed]
    session.run(
        ours(os.environ.get("ON") or NAME), "tests/interop/soak.py", *options, *session.posargs
    )


@shared(name="test-engines")
def test_engines(session: nox.Session) -> None:
    """the JVM, R, V8, Qt's JavaScript and others in greenlets (NAME=3.14)"""
    session.run(ours(), "-m", "pytest", "-m", "engines", "tests/interop")


@shared(name="test-building")
def test_building(session: nox.Session) -> None:
    """programs that use greenlet.h, built as users do, in environments of their own (NAME=3.14)"""
    options = ("-m", "building", *session.posargs, "tests/python/test_building.py")
    suites.pytest(REPORT, f"{NAME}-building", [ours()], *options)
    end(session)


@shared(name="fuzz")
def fuzz(session: nox.Session) -> None:
    """random programs, compared with a model (SECONDS=60 SEED=1 ON="3.14 3.15t")"""
    options = ["--seconds", os.environ.get("SECONDS") or "60"]
    if seed := os.environ.get("SEED"):
        options += ["--seed", seed]
    if on := os.environ.get("ON"):
        options += ["--interpreters", *on.split()]
    session.run(sys.executable, "-B", "tools/fuzz.py", *options, *session.posargs)


def run_on_each(session: nox.Session, program: str, *options: str) -> None:
    """Run a program on all supported interpreters, or on those that ON names."""
    names = os.environ.get("ON", "").split() or interpreters.STANDARD
    failed = []
    for name in (found := interpreters.provide(names)):
        print(name, flush=True)
        command = [ours(name), "-B", "-X", "faulthandler", program, *options]
        if suites.run(command, suites.LOGS / f"{session.name}-{name}.log", limit=8 * 3600):
            failed.append(name)
    if failed or len(found) < len(names):
        session.error(f"failed on: {failed}, not found: {set(names) - set(found)}")


@shared(name="inject")
def inject(session: nox.Session) -> None:
    """each allocation fails, in a hundred operations (ON="3.11 3.14t" WHAT="--only throw")"""
    run_on_each(session, "tests/python/failures.py", *session.posargs)


@shared(name="drive")
def drive(session: nox.Session) -> None:
    """the C API with random arguments, from several threads (SECONDS=60 SEED=1 ON="3.11 3.14t")"""
    options = ["--seconds", os.environ.get("SECONDS") or "60"]
    if seed := os.environ.get("SEED"):
        options += ["--seed", seed]
    run_on_each(session, "tests/python/capi_driver.py", *options, *session.posargs)


@shared(name="exact-visits")
def exact_visits(session: nox.Session) -> None:
    """visits of the collector against references, at each opcode (WHAT="3.11 3.14t")"""
    session.run(sys.executable, "-B", "tools/visit_report.py", *session.posargs)


@shared(name="test-layout")
def test_layout(session: nox.Session) -> None:
    """wheels on interpreters with other structures than they were built with (WHAT="3.14 3.15t")"""
    importlib.import_module("layout_test").run(REPORT, session.posargs)
    end(session)


@shared(name="test-tsan")
def test_tsan(session: nox.Session) -> None:
    """the tests about threads under ThreadSanitizer, on 3.15t-tsan (WHAT=test_threads)"""
    importlib.import_module("tsan_test").run(REPORT, session.posargs)
    end(session)


@shared(name="test-asan")
def test_asan(session: nox.Session) -> None:
    """the Python suite under AddressSanitizer and UndefinedBehaviorSanitizer, on 3.15-asan"""
    importlib.import_module("asan_test").run(REPORT, session.posargs)
    end(session)


@shared(name="test-jit")
def test_jit(session: nox.Session) -> None:
    """the Python suite under CPython's JIT, in a Debian system of its own (as root)"""
    importlib.import_module("jit_test").run(REPORT, session.posargs)
    end(session)


@shared(name="test-arch")
def test_arch(session: nox.Session) -> None:
    """native and some Python tests on another architecture (ARCH=riscv64), emulated (as root)"""
    name = os.environ.get("ARCH", "riscv64")
    importlib.import_module("arch_test").run(REPORT, name, session.posargs)
    end(session)


@shared(name="test-windows")
def test_windows(session: nox.Session) -> None:
    """the Python suite on CPython for Windows, under Wine in a Debian system (as root)"""
    names = os.environ.get("ON", "").split()
    importlib.import_module("windows_test").run(REPORT, names, session.posargs)
    end(session)


@shared(name="build-macos")
def build_macos(session: nox.Session) -> None:
    """greenlet for macOS, compiled and linked for both architectures (WHAT="3.14")"""
    importlib.import_module("macos_build").run(REPORT, session.posargs)
    end(session)


@shared(name="test-builds")
def test_builds(session: nox.Session) -> None:
    """the Python suite on interpreters as people have them (WHAT="3.14-tail-call 3.15-debian")"""
    importlib.import_module("builds_test").run(REPORT, session.posargs)
    end(session)


@nox.session(name="native")
def native(session: nox.Session) -> None:
    """native tests in other ways (WHAT="asan tsan valgrind aarch64 riscv64": in these)"""
    session.install("--group=build")
    for preset in session.posargs or ("native", "asan", "tsan", "valgrind", "aarch64"):
        run_native(preset, session.bin)
    end(session)


@nox.session(name="coverage")
def coverage(session: nox.Session) -> None:
    """lines and branches of src/ that the tests reach, on all interpreters (WHAT="3.14 native")"""
    session.install("--group=build", "--group=coverage")
    importlib.import_module("coverage_report").run(session, REPORT, run_native)
    end(session)


@shared(name="mutants")
def mutants(session: nox.Session) -> None:
    """deliberate faults, each caught by a test (WHAT="3.14 native" SAMPLE=2)"""
    given = {option: os.environ.get(option.upper()) for option in ("sample", "seed")}
    chosen = [f"--{option}={value}" for option, value in given.items() if value]
    session.run(sys.executable, "-B", "tests/mutants/run.py", *chosen, *session.posargs)


@nox.session(name="wheels")
def wheels(session: nox.Session) -> None:
    """sdist and wheels into dist/, checked (WHAT="3.14 3.15t": for these alone)"""
    session.install("--group=wheels")
    importlib.import_module("wheels").make(session, REPORT, session.posargs)
    end(session)


def build_docs(session: nox.Session, builder: str) -> None:
    """Build the documentation; whatever Sphinx warns of is an error."""
    folder = "build/docs" if builder == "html" else f"build/docs-{builder}"
    shutil.rmtree(folder, ignore_errors=True)
    strict = ("--fail-on-warning", "--nitpicky", "--keep-going", "--quiet")
    cache = ("--doctree-dir", "build/doctrees", "--jobs", "auto")
    session.run("sphinx-build", *strict, *cache, "--builder", builder, "docs", folder)
    print(f"{folder}/index.html" if builder == "html" else folder)


@nox.session(name="docs")
def docs(session: nox.Session) -> None:
    """the documentation as a site, into build/docs (WHAT=linkcheck: dead links elsewhere)"""
    session.install("--group=docs")
    build_docs(session, *session.posargs or ["html"])


@nox.session(name="docs-check")
def docs_check(session: nox.Session) -> None:
    """that site in a browser: accessibility, narrow and wide, light and dark (WHAT="index faq")"""
    session.install("--group=docs-check")
    build_docs(session, "html")
    session.run("python", "tools/docs_check.py", *session.posargs)


@nox.session(name="lint")
def lint(session: nox.Session) -> None:
    """format, style and types of everything"""
    session.install("--group=lint")
    if "--mend" in session.posargs:
        for hook in ("clang-format", "ruff-check", "ruff-format"):
            session.run("pre-commit", "run", "--all-files", hook, success_codes=[0, 1])
        return
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure")
    configuration = Path(".clang-tidy").read_bytes() + Path("pyproject.toml").read_bytes()
    session.env["TIDY_CONFIGURATION"] = str(zlib.crc32(configuration))
    session.run("cmake", "--preset", "tidy", silent=True)
    session.run("cmake", "--build", "--preset", "tidy", "--", "-k", "0")


@shared(name="types")
def types(session: nox.Session) -> None:
    """typed examples under mypy, basedpyright, ty and pyrefly; the stubs against the modules"""
    importlib.import_module("types_check").run(session, NAME)


@nox.session(name="analyze")
def analyze(session: nox.Session) -> None:
    """the sources under gcc's -fanalyzer (minutes)"""
    session.install("--group=build")
    session.run("cmake", "--preset", "analyze", silent=True)
    session.run("cmake", "--build", "--preset", "analyze")


@nox.session(name="compile-commands")
def compile_commands(session: nox.Session) -> None:
    """compile_commands.json, for clangd"""
    session.install("--group=build")
    session.run("cmake", "--preset", "dev", silent=True)
    shutil.copy("build/dev/compile_commands.json", ".")


@shared(name="interop")
def interop(session: nox.Session) -> None:
    """the suites of dependents with either greenlet, compared (hours; RUNS=3 ON="3.14 3.15t")"""
    chosen = (os.environ.get(name, "").split() for name in ("ON", "SUITES"))
    runs = int(os.environ.get("RUNS") or 1)
    if failed := importlib.import_module("interop").run(runs, *chosen):
        session.error("\n".join(("passes with the published greenlet alone:", *failed)))


@shared(name="test-tools")
def test_tools(session: nox.Session) -> None:
    """what profilers and debuggers show, with either greenlet (ON=3.14 WHAT="-k yappi")"""
    names = os.environ.get("ON", "3.12 3.14").split()
    os.environ["GREENLET_TOOLS_RESULTS"] = "tests/interop/results/tools"
    for name in names:
        with environments.required(REPORT, f"{name}-tools"):
            python = environments.ours(name, environments.base(name))
            options = ("-m", "tools", *session.posargs, "tests/interop/test_tools.py")
            suites.pytest(REPORT, f"{name}-tools", [python], *options)
    importlib.import_module("dependents.table").update()
    print(importlib.import_module("dependents.seeing").table())
    end(session)


@shared(name="interop-load")
def interop_load(session: nox.Session) -> None:
    """what dependents do per second with either greenlet (BENCH=3.14 WHAT=load_eventlet)"""
    importlib.import_module("interop").measure(benched(), session.posargs)


def benched() -> str:
    """Return the name of the interpreter that benchmarks run on."""
    return os.environ.get("BENCH") or ("3.14" if interpreters.provide(["3.14"]) else NAME)


def both(name: str, *groups: str) -> tuple[str, str, str, str]:
    """Return the options that name both environments to a benchmark."""
    sides = Path(ours(name)), environments.published(name, environments.base(name))
    for group in groups:
        try:
            for python in sides:
                environments.install(python, "--group", group)
        except environments.Unavailable as reason:  # gevent is not on every interpreter
            print(reason)
    return "--ours", str(sides[0]), "--published", str(sides[1])


@shared(name="bench")
def bench(session: nox.Session) -> None:
    """compare with the published greenlet (BENCH=3.15t QUICK=--quick WHAT="switch create")"""
    name = benched()
    sides = both(name, "bench", "bench-gevent")
    keep = [] if "--quick" in session.posargs else ["--json", str(RESULTS / f"{name}.json")]
    session.run(sides[1], "benchmarks/compare.py", *sides, *session.posargs, *keep)


@shared(name="bench-freezing")
def bench_freezing(session: nox.Session) -> None:
    """memory of idle greenlets that are frozen (BENCH=3.13 WHAT="--what trivial")"""
    sides = both(benched(), "bench-gevent")
    session.run(sides[1], "benchmarks/freezing.py", *sides, *session.posargs)


@shared(name="bench-threads")
def bench_threads(session: nox.Session) -> None:
    """two threads against one on a free-threaded build (BENCH=3.15t)"""
    name = benched()
    sides = both(name)
    keep = ("--json", str(RESULTS / f"scaling-{name}.json"))
    session.run(sides[1], "benchmarks/scaling.py", *sides, *keep)


@nox.session(name="bench-native")
def bench_native(session: nox.Session) -> None:
    """the context switch against Boost.Context, in C++"""
    session.install("--group=build")
    folder = "build/native-benchmarks"
    session.run("cmake", "-S", "benchmarks/native", "-B", folder, silent=True)
    session.run("cmake", "--build", folder)
    options = (
        "filter=round_trip|create_run_finish",
        "repetitions=9",
        "enable_random_interleaving=true",
        "report_aggregates_only=true",
        f"out={RESULTS / 'native.json'}",
    )
    command = [f"{folder}/native_benchmarks", *(f"--benchmark_{option}" for option in options)]
    session.run(*command, external=True)


@nox.session(name="bench-report")
def bench_report(session: nox.Session) -> None:
    """write docs/internals/performance.md with its plots from what those have kept"""
    session.install("--group=report")
    options = (str(RESULTS), "docs/internals/performance.md", "--front", "docs/drawings/switch.svg")
    session.run("python", "benchmarks/report.py", *options)


@shared(name="bench-guard")
def bench_guard(session: nox.Session) -> None:
    """count instructions of a switch, a birth, a throw: no more than before (GUARD=--update)"""
    python = ours(benched())
    session.run(python, "benchmarks/guard.py", "--python", python, *session.posargs)
