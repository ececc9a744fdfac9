"""Build greenlet for x64 Windows, and run the Python suite with it under Wine.

windows_system.py has the Windows. What Windows lacks is skipped, with the reason; the list is
tests/python/not_on_windows.py. Each file of tests runs in a process of its own, so that a crash
costs one file.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import environments
import suites
import windows_system
from environments import required
from jit_test import INSIDE
from suites import CHECKOUT, Counts, Report
from windows_system import MINGW, WINE, home, inside

sys.path.append(str(CHECKOUT / "tests" / "python"))
import not_on_windows

TOOLCHAIN = CHECKOUT / "tools" / "toolchains" / "x86_64-windows.cmake"
TESTS = "tests/python"
PROGRAMS, FIGURES = "programs", "figures"
ROUNDS = 7  # of figures, the best of which counts
# gevent's loop on Windows (libuv) needs cffi. pip asks about this system, so it does not know.
WANTED = ("gevent", "cffi", "sqlalchemy>=2", "aiosqlite")
CONTRACT = "tests/contract/test_contract.py"
EXTENSIONS = (  # with the flags that tests want
    *((f"{name}.c", "") for name in ("classes", "driver", "entries", "visits")),
    *((f"{name}.cpp", "") for name in ("positions", "unwinding")),
    *(("fields.pyx", f"-DCYTHON_USE_TYPE_SPECS={specs}") for specs in (0, 1)),
)


def build(name: str) -> Path:
    """Build greenlet for a Python on Windows; return the folder from which it is imported."""
    folder = CHECKOUT / "build" / f"windows-{name}"
    where, digits = inside(home(name)), name.replace(".", "")
    settings = {
        "CMAKE_TOOLCHAIN_FILE": str(TOOLCHAIN),
        "CMAKE_BUILD_TYPE": "Release",
        "GREENLET_WERROR": environments.WERROR,
        "Python_EXECUTABLE": f"{where}/python.exe",
        "Python_INCLUDE_DIR": f"{where}/include",
        "Python_LIBRARY": f"{where}/libs/libpython{digits}.dll.a",
        "Python_SOABI": f"cp{digits}-win_amd64",
    }
    options = [f"-D{key}={value}" for key, value in settings.items()]
    cmake = (*INSIDE, *WINE, "cmake")
    environments.run(*cmake, "-S", CHECKOUT, "-B", folder, "-G", "Ninja", *options)
    environments.run(*cmake, "--build", folder)
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(CHECKOUT / "src" / "greenlet", site / "greenlet")
    environments.run(*cmake, "--install", folder, "--prefix", site)
    return site


def compile_extensions(name: str) -> Path:
    """Compile the modules of tests/extensions that Windows can have; return their folder.

    compile.py cannot, because no compiler runs under Wine.
    """
    folder = CHECKOUT / "build" / f"windows-{name}" / "extensions"
    folder.mkdir(exist_ok=True)
    windows_system.provide_cpp_runtime(name)
    where, digits = inside(home(name)), name.replace(".", "")
    include = ("-I", f"{folder.parent}/site", "-isystem", f"{where}/include")
    link = ("-fuse-ld=lld", "-shared", f"{where}/libs/libpython{digits}.dll.a")
    for source, flags in EXTENSIONS:
        path = CHECKOUT / "tests" / "extensions" / source
        target = folder / f"{path.stem}{flags}.cp{digits}-win_amd64.pyd"
        if path.suffix == ".pyx":
            translated = folder / f"{path.stem}.c"
            cython = ("-m", "cython", "-3", "-o", translated, path)
            environments.run(*windows_system.python(name), *cython)
            path = translated
        compiler = "clang++" if path.suffix == ".cpp" else "clang"
        standard = "-std=c++17" if path.suffix == ".cpp" else "-std=c99"
        how = (standard, f"--target={MINGW}", "-O1", *flags.split(), *include)
        command: tuple[str | Path, ...] = (compiler, *how, "-o", target, path)
        environments.run(*INSIDE, *command, *link, "-lpthread")
    compile_for_microsofts_runtime(name, folder)
    return folder


def compile_for_microsofts_runtime(name: str, folder: Path) -> None:
    """Compile the library that throws exceptions with vcruntime140.dll."""
    where, digits = inside(home(name)), name.replace(".", "")
    strict = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
    compiler = ("clang++", "--target=x86_64-pc-windows-msvc", "-std=c++17", "-O1", *strict)
    source, object_file = CHECKOUT / "tests/extensions/catching.cpp", folder / "catching.obj"
    environments.run(*INSIDE, *compiler, "-fcxx-exceptions", "-c", source, "-o", object_file)
    libraries = (f"{where}/libs/vcruntime140.lib", f"{where}/libs/libpython{digits}.dll.a")
    linker = ("lld-link", "-dll", "-noentry", "-nodefaultlib", f"-out:{folder}/catching.dll")
    environments.run(*INSIDE, *linker, object_file, *libraries)


def python_with(name: str, site: Path) -> list[str]:
    """Return how a Python on Windows is called that finds greenlet in that folder."""
    *before, wine, python = windows_system.python(name)
    compiled = f"GREENLET_COMPILED={compile_extensions(name)}"
    variables = ("PYTHONDONTWRITEBYTECODE=1", f"PYTHONPATH=Z:{site}", compiled)
    return [*before, *variables, wine, python, "-X", "faulthandler"]


def environment_with(name: str, label: str, site: Path) -> list[str]:
    """Make an environment with ours or the published greenlet; return how its python is called."""
    folder = windows_system.make_environment(name, label)
    packages = folder / "Lib" / "site-packages"
    if label == "ours":
        shutil.copytree(site / "greenlet", packages / "greenlet")
    else:
        install = ("install", "--no-deps", "--target", packages, "-r", environments.PUBLISHED)
        windows_system.for_windows(name, *install)
    *before, wine, _ = windows_system.python(name)
    return [*before, wine, f"{inside(folder)}/Scripts/python.exe"]


def run_contract(report: Report, name: str, site: Path) -> None:
    """Compare the behaviours of tests/contract with those of the published wheel for Windows."""
    variables = [
        f"GREENLET_{variable}_PYTHON=Z:{environment_with(name, label, site)[-1]}"
        for label, variable in (("ours", "TEST"), ("published", "PUBLISHED"))
    ]
    *before, wine, python = windows_system.python(name)
    command = [*before, "PYTHONDONTWRITEBYTECODE=1", *variables, wine, python]
    label = f"windows-{name}-contract"
    suites.pytest(report, label, command, CONTRACT, "-o", "timeout_method=thread", "--timeout=3000")


def print_figures(report: Report, name: str, site: Path) -> None:
    """Measure the published greenlet and this one in turns."""
    pythons = {label: environment_with(name, label, site) for label in ("ours", "published")}
    best: dict[str, dict[str, float]] = {label: {} for label in pythons}
    for _ in range(ROUNDS):
        for label, python in pythons.items():
            printed = environments.run(*python, "benchmarks/few_figures.py")
            for what, value in json.loads(printed.splitlines()[-1]).items():
                best[label][what] = min(value, best[label].get(what, value))
    for label, figures in best.items():
        print(f"windows-{name}-{label}: {figures}")
    report.add(f"windows-{name}-figures", Counts(passed=1))


def run_programs(report: Report, name: str, site: Path) -> None:
    """Run gevent and SQLAlchemy, as they are for Windows, with this greenlet."""
    folder = windows_system.make_environment(name, "programs")
    packages = folder / "Lib" / "site-packages"
    windows_system.for_windows(name, "install", "--target", packages, *WANTED)
    for published in packages.glob("greenlet*"):
        shutil.rmtree(published)
    shutil.copytree(site / "greenlet", packages / "greenlet")
    *before, wine, _ = windows_system.python(name)
    python = [*before, wine, f"{inside(folder)}/Scripts/python.exe"]
    for program in ("gevent_requests.py", "gevent_services.py", "sqlalchemy_bank.py"):
        label = f"windows-{name}-{Path(program).stem}"
        log = suites.LOGS / f"{label}.log"
        code = suites.run([*python, f"tests/interop/programs/{program}"], log)
        report.add(label, Counts(int(code == 0), int(code != 0)), log)


def run(report: Report, names: Sequence[str], tests: Sequence[str]) -> None:
    """Test on each Python for Windows."""
    files = sorted(file.name for file in (CHECKOUT / TESTS).glob("test_*.py"))
    for name in names or windows_system.NAMES:
        with required(report, f"windows-{name}"):
            windows_system.provide()
            with windows_system.running():
                windows_system.provide_python(name)
                site = build(name)
                python = python_with(name, site)
                for test in tests or [*files, CONTRACT, PROGRAMS]:
                    if test == CONTRACT:
                        run_contract(report, name, site)
                    elif test == PROGRAMS:
                        run_programs(report, name, site)
                    elif test == FIGURES:
                        print_figures(report, name, site)
                    else:
                        run_file(report, name, python, test)


def run_file(report: Report, name: str, python: Sequence[str], test: str) -> None:
    """Run a file of tests, or a test of one."""
    label = f"windows-{name}-{Path(test.partition('::')[0]).stem}"
    if reason := not_on_windows.FILES.get(test):
        print(f"{label}: {reason}")
        report.add(label, Counts(skipped=1))
        return
    path = test if "/" in test else f"{TESTS}/{test}"
    # No signal can interrupt a test there.
    suites.pytest(report, label, python, path, "-o", "timeout_method=thread")
