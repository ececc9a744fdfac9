"""The architecture, checked in the sources.

Which room includes which. Where versions of CPython and system calls may appear. How long a file
may be. Where a source file is tested. Nothing in the repository points outside it. Each rule is a
function of files, so the tests also show that the rule finds a fault in a sample.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

if not (CHECKOUT / "src" / "core").exists():
    pytest.skip("the sources are not here", allow_module_level=True)

# Contents by path. Paths of sources begin below src/, like "core/thread.h".
Files = Mapping[str, str]
Rule = Callable[[Files], list[str]]

# Which rooms a room may include besides itself. The public header lies in include/.
ARROWS: Mapping[str, tuple[str, ...]] = {
    "platform": (),
    "stack": ("platform",),
    "context": ("platform",),
    "cpython": ("platform",),
    "core": ("cpython", "context", "stack", "platform"),
    "module": ("core", "cpython", "context", "stack", "platform"),
}
LONGEST = 450  # lines of a file of src/

# The rooms that may ask which system they are compiled for.
SYSTEM_ROOMS = ("platform", "context")
SYSTEM_MACRO = re.compile(r"\b(_WIN32|_WIN64|__MINGW32__|__APPLE__|__linux__|MS_WINDOWS)\b")

# Headers and functions of the operating system. The C++ standard has other means for the rest.
SYSTEM_HEADERS = re.compile(
    r"\s*#\s*include\s*<((?:sys|linux|asm)/[^>]+|"
    r"(?:unistd|fcntl|sched|signal|pthread|poll|time|windows|psapi|io|malloc)\.h)>"
)
SYSTEM_CALLS = (
    *("syscall", "mmap", "munmap", "mremap", "madvise", "mprotect", "mincore", "mlock", "mlock2"),
    *("process_madvise", "open", "openat", "fopen", "opendir", "getrlimit", "setrlimit", "prlimit"),
    *("sigaction", "sigaltstack", "sigprocmask", "pthread_sigmask", "prctl", "clock_gettime"),
    *("gettimeofday", "nanosleep", "usleep", "sched_yield", "sysconf", "getpagesize", "getpid"),
    *("gettid", "getauxval", "pthread_getattr_np", "pthread_attr_getstack", "pthread_atfork"),
    *("pthread_sigqueue", "VirtualAlloc", "VirtualProtect", "GetCurrentThreadStackLimits"),
    *("VirtualFree", "VirtualQuery", "LoadLibraryA", "GetProcAddress", "GetModuleHandleA", "Sleep"),
)
# A call of the global function: not a method, not a function of a namespace of ours.
SYSTEM_CALL = re.compile(rf"(?:^|[^\w.>:]|(?<![\w>])::)({'|'.join(SYSTEM_CALLS)})\s*\(")
PROC = re.compile(r'"(/(?:proc|sys)(?:/[\w.]+)+/?)"')

# System headers and calls outside src/platform: a glob of files, what they use, and the reason.
SYSTEM_ALLOWED = (
    (
        "cpython/stack_bounds*",
        {"pthread.h"},
        "it answers CPython's own calls of pthread_getattr_np(), which have a type of that header",
    ),
)

# Folders and documents that a clone of the repository does not have.
OUTSIDE = re.compile(
    r"\.\./(?:shared|\.library)\b|(?<![\w.$}/-])/work/\w|\.library/"
    r"|\b(?:API|DESIGN|STYLE|BENCH|DEVELOPERS)\.md\b"
)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)\s]*)?\)")
TABLE_HEADING = "## Where a source file is tested"


@cache
def sources() -> Files:
    """The text of every file of src/."""
    folder = CHECKOUT / "src"
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


@cache
def tracked() -> Files:
    """The text of every file that git knows; skips where the files are no clone."""
    if shutil.which("git") is None or not (CHECKOUT / ".git").exists():
        pytest.skip("not a clone of the repository")
    listed = subprocess.run(
        ["git", "-C", CHECKOUT, "ls-files", "-z"], capture_output=True, text=True, check=True
    ).stdout
    paths = [CHECKOUT / name for name in listed.split("\0") if name]
    return {
        path.relative_to(CHECKOUT).as_posix(): path.read_text(errors="replace")
        for path in paths
        if path.is_file()
    }


def room_of(path: str) -> str:
    return path.partition("/")[0]


def code_of(text: str, *, strings: bool = True) -> str:
    """C++ with its comments blank, and with its string literals blank if they are not wanted."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        if found.startswith(("/*", "//")):
            return re.sub(r"[^\n]", " ", found)
        return found if strings or found.startswith("'") else '""'

    literal = r'"(?:[^"\\\n]|\\.)*"|' + r"(?<!\w)'(?:[^'\\\n]|\\.)+'"
    return re.sub(rf"//[^\n]*|/\*.*?\*/|{literal}", blank, text, flags=re.DOTALL)


def is_compiled(path: str) -> bool:
    return path.endswith((".cpp", ".h", ".c", ".S"))


def lines_of_code(files: Files, *, strings: bool = True) -> Iterator[tuple[str, int, str]]:
    """Each line of C++ and assembly without comments: path, number, text."""
    for path, text in files.items():
        if is_compiled(path):
            for number, line in enumerate(code_of(text, strings=strings).splitlines(), 1):
                yield path, number, line


# --- the rules ------------------------------------------------------------------------------------


def includes_against_the_arrows(files: Files) -> list[str]:
    faults = []
    for path, number, line in lines_of_code(files):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if match is None:
            continue
        # The compiler looks in the folder of the file first, and then in src/.
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[2]))
        found = beside if match[1] == '"' and beside in files else match[2]
        if found not in files:
            if match[1] == '"':
                faults.append(f"{path}:{number}: no file of src/ is {match[2]}")
            continue
        room, included = room_of(path), room_of(found)
        if room != included and included not in ARROWS.get(room, ()):
            faults.append(f"{path}:{number}: {room} may not include {included} ({found})")
    return faults


def versions_outside_cpython(files: Files) -> list[str]:
    name = re.compile(r"\b(PY_(VERSION_HEX|M[A-Z]+_VERSION)|Py_Version)\b")
    return [
        f"{path}:{number}: {match[0]}"
        for path, number, line in lines_of_code(files)
        if room_of(path) != "cpython" and (match := name.search(line))
    ]


def systems_outside_their_rooms(files: Files) -> list[str]:
    return [
        f"{path}:{number}: {match[0]}"
        for path, number, line in lines_of_code(files)
        if room_of(path) not in SYSTEM_ROOMS and (match := SYSTEM_MACRO.search(line))
    ]


def is_allowed(path: str, name: str) -> bool:
    return any(fnmatchcase(path, glob) and name in names for glob, names, _ in SYSTEM_ALLOWED)


def system_calls_outside_platform(files: Files) -> list[str]:
    faults = []
    for path, number, line in lines_of_code(files):
        if room_of(path) == "platform":
            continue
        bare = code_of(line, strings=False)
        names = [
            *SYSTEM_HEADERS.findall(bare),
            *SYSTEM_CALL.findall(bare),
            *PROC.findall(line),
        ]
        faults += [f"{path}:{number}: {name}" for name in names if not is_allowed(path, name)]
    return faults


def files_that_are_too_long(files: Files) -> list[str]:
    lengths = {path: len(text.splitlines()) for path, text in files.items()}
    return [f"{path}: {length} lines" for path, length in lengths.items() if length > LONGEST]


def pointers_outside_the_repository(files: Files) -> list[str]:
    return [
        f"{path}:{number}: {match[0]}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        if (match := OUTSIDE.search(line)) and path != "tests/python/test_architecture.py"
    ]


def links_that_lead_nowhere(files: Files) -> list[str]:
    folders = {parent.as_posix() for path in files for parent in Path(path).parents}
    faults = []
    for path, text in files.items():
        if not path.endswith(".md"):
            continue
        for link in LINK.findall(re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.S | re.M)):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
            if target not in files and target not in folders:
                faults.append(f"{path}: {link}")
    return faults


def names_of_tests_that_are_gone(files: Files) -> list[str]:
    """Names of test files, in sources, tools and top documents, that tests/ does not have."""
    names = {posixpath.basename(path) for path in files if path.startswith("tests/")}
    return [
        f"{path}:{number}: {name}"
        for path, text in files.items()
        if path.startswith(("src/", "tools/", ".github/")) or "/" not in path
        for number, line in enumerate(text.splitlines(), 1)
        for name in re.findall(r"\b(test_\w+\.py|\w+_test\.cpp)\b", line)
        if name not in names
    ]


def rows_of_the_table(document: str) -> list[tuple[list[str], list[str]]]:
    """The globs of sources and the paths of tests, a pair for each row of CONTRIBUTING.md."""
    _, _, section = document.partition(f"{TABLE_HEADING}\n")
    rows = []
    for line in section.partition("\n## ")[0].splitlines():
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:-1]]
        if len(cells) == 2 and all(cells):
            rows.append((cells[0], cells[1]))
    return rows


def sources_without_tests(document: str, files: Files) -> list[str]:
    globs = [glob for row, _ in rows_of_the_table(document) for glob in row]
    return [
        path
        for path in files
        if (is_compiled(path) or path.endswith(".py"))
        and not any(fnmatchcase(path, glob) for glob in globs)
    ]


def rows_that_name_nothing(document: str, files: Files, tests: Files) -> list[str]:
    faults = []
    for globs, paths in rows_of_the_table(document):
        faults += [
            f"src/{glob} is no file"
            for glob in globs
            if not any(fnmatchcase(path, glob) for path in files)
        ]
        faults += [
            f"tests/{path} is no file"
            for path in paths
            if not any(fnmatchcase(test, f"tests/{path}") for test in tests)
        ]
    return faults


# --- the sources keep them ------------------------------------------------------------------------


def check(faults: list[str]) -> None:
    """Fail with each fault on a line of its own."""
    assert not faults, "\n".join(["", *faults])


def test_every_room_of_the_sources_has_its_arrows() -> None:
    rooms = {room_of(path) for path in sources() if is_compiled(path)}
    assert rooms <= set(ARROWS)
    for room, reached in ARROWS.items():
        for other in reached:  # an arrow leads on: what a room reaches, its users reach too
            assert set(ARROWS[other]) <= set(reached), room


def test_no_file_includes_against_the_arrows() -> None:
    check(includes_against_the_arrows(sources()))


def test_only_the_room_cpython_knows_versions_of_cpython() -> None:
    check(versions_outside_cpython(sources()))


def test_only_the_rooms_platform_and_context_know_systems() -> None:
    check(systems_outside_their_rooms(sources()))


def test_only_the_room_platform_calls_the_system() -> None:
    check(system_calls_outside_platform(sources()))


def test_each_exception_for_system_calls_is_in_use() -> None:
    for glob, names, reason in SYSTEM_ALLOWED:
        assert reason
        used = "\n".join(
            code_of(text) for path, text in sources().items() if fnmatchcase(path, glob)
        )
        assert [name for name in sorted(names) if name not in used] == [], glob


def test_no_source_file_is_too_long_to_read() -> None:
    check(files_that_are_too_long(sources()))


def test_no_file_points_outside_the_repository() -> None:
    check(pointers_outside_the_repository(tracked()))


def test_links_of_the_documents_lead_to_files_of_the_repository() -> None:
    check(links_that_lead_nowhere(tracked()))


def test_every_test_file_that_sources_and_tools_name_is_there() -> None:
    check(names_of_tests_that_are_gone(tracked()))


def test_the_table_names_tests_for_every_source_file() -> None:
    document = (CHECKOUT / "CONTRIBUTING.md").read_text()
    assert rows_of_the_table(document)
    check(sources_without_tests(document, sources()))


def test_the_table_names_only_files_that_are_there() -> None:
    tests = {path.relative_to(CHECKOUT).as_posix(): "" for path in (CHECKOUT / "tests").rglob("*")}
    document = (CHECKOUT / "CONTRIBUTING.md").read_text()
    check(rows_that_name_nothing(document, sources(), tests))


# --- and each rule finds what breaks it -----------------------------------------------------------

GOOD: Files = {
    "platform/memory.h": "#include <sys/mman.h>\n// mmap()\nvoid* f() { return mmap(0); }\n",
    "stack/pool.h": '#include "platform/memory.h"\n',
    "stack/pool.cpp": '#include "pool.h"\n#include <vector>\n'
    "void f() { region.open(); platform::mmap(1); }  // PY_VERSION_HEX, mmap()\n"
    'constexpr auto kText = "raise the limit, see /proc/meminfo";\n',
    "context/context.h": '/* #include "core/thread.h"\n   madvise(p) */\nint mmap_count(int);\n',
    "cpython/frames.cpp": '#include "platform/memory.h"\n#if PY_VERSION_HEX >= 0x030E0000\n',
    "core/thread.h": '#include "cpython/frames.cpp"\n#include "stack/pool.h"\n',
    "module/module.cpp": '#include "core/thread.h"\n#include <greenlet/greenlet.h>\n',
    "greenlet/__init__.py": "import os\n",
}
ARROW, VERSION = includes_against_the_arrows, versions_outside_cpython
SYSTEM, POINTER = system_calls_outside_platform, pointers_outside_the_repository
SOURCE_RULES: tuple[Rule, ...] = (
    *(ARROW, VERSION, SYSTEM, systems_outside_their_rooms, files_that_are_too_long),
)


@pytest.mark.parametrize("rule", SOURCE_RULES)
def test_a_rule_finds_no_fault_in_good_files(rule: Rule) -> None:
    assert rule(GOOD) == []


@pytest.mark.parametrize(
    ("rule", "path", "text", "fault"),
    [
        (
            includes_against_the_arrows,
            "core/a.h",
            '#include "module/module.cpp"',
            "may not include",
        ),
        (
            includes_against_the_arrows,
            "core/a.h",
            "#include <module/module.cpp>",
            "may not include",
        ),
        (ARROW, "stack/a.S", '# include "context/context.h"', "context"),
        (
            includes_against_the_arrows,
            "context/a.h",
            '#include "../stack/pool.h"',
            "context may not",
        ),
        (ARROW, "cpython/a.h", '#include "stack/pool.h"', "may not include"),
        (ARROW, "platform/a.h", '#include "stack/pool.h"', "may not include"),
        (ARROW, "attic/a.h", '#include "stack/pool.h"', "attic may not"),
        (ARROW, "core/a.h", '#include "gone.h"', "no file of src/"),
        (VERSION, "core/a.h", "#if PY_VERSION_HEX < 1", "core/a.h:1"),
        (VERSION, "module/a.cpp", "\nif (Py_Version) {", "module/a.cpp:2"),
        (VERSION, "core/a.h", "#if PY_MINOR_VERSION == 14", "PY_MINOR_VERSION"),
        (SYSTEM, "stack/a.cpp", "return ::mmap(nullptr, 1);", "mmap"),
        (
            system_calls_outside_platform,
            "core/a.cpp",
            "x = {clock_gettime(1, &now)};",
            "core/a.cpp",
        ),
        (SYSTEM, "core/a.cpp", "#include <unistd.h>", "unistd.h"),
        (SYSTEM, "core/a.cpp", "#include <sys/mman.h>", "sys/mman.h"),
        (SYSTEM, "stack/a.cpp", 'File f("/proc/self/maps");', "/proc/self"),
        (SYSTEM, "cpython/stack_bounds.cpp", "f = open(path);", "open"),
        (SYSTEM, "core/a.cpp", "#include <windows.h>", "windows.h"),
        (systems_outside_their_rooms, "core/a.cpp", "#ifdef _WIN32", "core/a.cpp:1: _WIN32"),
        (systems_outside_their_rooms, "stack/a.h", "#if defined(__APPLE__)", "__APPLE__"),
        (files_that_are_too_long, "core/a.S", "\n" * 451, "451 lines"),
        (POINTER, "a.py", "# see ../shared/x", "../shared"),
        (POINTER, "a.md", "in /work/main/x", "a.md:1: /work/m"),
        (POINTER, "a.h", "// .library/tools", ".library"),
        (POINTER, "a.h", "// see API.md", "API.md"),
        (
            names_of_tests_that_are_gone,
            "src/core/a.h",
            "// see test_a.py",
            "src/core/a.h:1: test_a.py",
        ),
        (names_of_tests_that_are_gone, "tools/a.py", '"native/pool_test.cpp"', "pool_test.cpp"),
        (links_that_lead_nowhere, "docs/a.md", "[this](b.md)", "docs/a.md: b.md"),
        (links_that_lead_nowhere, "a.md", "[this](../b.md#part)", "../b.md"),
    ],
)
def test_a_rule_finds_what_breaks_it(rule: Rule, path: str, text: str, fault: str) -> None:
    [found] = rule({**GOOD, path: text})
    assert fault in found


TABLE = f"""\
{TABLE_HEADING}

| sources | tests |
| --- | --- |
| `core/thread.*`, `cpython/*` | `python/test_thread.py` |
| `stack/*`, `context/*`, `platform/*`, `module/*`, `greenlet/*` | `native/*_test.cpp` |

## After it

| `core/other.h` | `python/test_gone.py` |
"""
TESTS: Files = {"tests/python/test_thread.py": "", "tests/native/pool_test.cpp": ""}


def test_the_table_is_read_up_to_the_next_heading() -> None:
    assert len(rows_of_the_table(TABLE)) == 2
    assert sources_without_tests(TABLE, GOOD) == []
    assert rows_that_name_nothing(TABLE, GOOD, TESTS) == []


def test_a_source_file_that_the_table_does_not_name_is_found() -> None:
    assert sources_without_tests(TABLE, {**GOOD, "core/other.h": ""}) == ["core/other.h"]


def test_rows_that_name_nothing_are_found() -> None:
    assert rows_that_name_nothing(TABLE, GOOD, {"tests/native/pool_test.cpp": ""}) == [
        "tests/python/test_thread.py is no file"
    ]
    files = {path: text for path, text in GOOD.items() if not path.startswith("core/")}
    assert rows_that_name_nothing(TABLE, files, TESTS) == ["src/core/thread.* is no file"]


def test_every_mutant_has_one_place_in_the_sources_and_tests_that_are_there() -> None:
    native = "".join(file.read_text() for file in (CHECKOUT / "tests/native").iterdir())
    for mutant in tomllib.loads((CHECKOUT / "tests/mutants/mutants.toml").read_text())["mutant"]:
        assert (CHECKOUT / mutant["file"]).read_text().count(mutant["old"]) == 1, mutant["name"]
        assert mutant["old"] != mutant["new"] and mutant["tests"], mutant["name"]
        for test in mutant["tests"]:
            if mutant["on"] == "native":
                assert re.search(rf"(TEST(_F|_P)?\(|NAME ){test}\b", native), test
            else:
                file, _, name = test.partition("::")
                assert f"def {name}(" in (CHECKOUT / "tests/python" / file).read_text(), test
