"""Windows on Linux: Wine, compilers for Windows, and CPython as it is built for Windows.

No installer of python.org, and no image of Windows, can be had from a package index or from Debian.
But their parts can:

- The wheels of panda3d for Windows carry python313.dll and python314.dll as python.org builds them,
  with the extension modules of the standard library, and Microsoft's C runtime.
- Debian's packages of CPython have the Python files of the standard library, and the headers. Their
  patch release may be newer than that of the DLL.
- Debian unstable has Wine, clang, and the headers and libraries of mingw-w64 for Microsoft's
  universal C runtime. python.exe is three lines: it calls Py_Main().

All that is in the Debian system of jit_test.py, in /opt/windows/VERSION, and is made once. It takes
root, as that system does.
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import environments
import jit_test
import suites
from environments import Unavailable
from jit_test import INSIDE, SYSTEM

NAMES = ("3.13", "3.14")
PACKAGES = (
    *("wine", "wine64", "clang", "lld", "g++-mingw-w64-ucrt64", "mingw-w64-tools"),
    *("cmake", "ninja-build"),
)
PROVIDER = "panda3d==1.10.16"
GROUPS = tomllib.loads((suites.CHECKOUT / "pyproject.toml").read_text())["dependency-groups"]
TESTS = tuple(what for what in GROUPS["test"] if isinstance(what, str))  # not what builds need
FOLDER = SYSTEM / "opt" / "windows"
MINGW = "x86_64-w64-mingw32ucrt"
# What the headers ask about the system. It differs in Debian's packages, of course.
PYCONFIG = Path(__file__).parent / "toolchains" / "windows" / "pyconfig.h"
PYTHON_EXE = """
#include <wchar.h>
__declspec(dllimport) int Py_Main(int, wchar_t**);
int wmain(int argc, wchar_t** argv) { return Py_Main(argc, argv); }
"""
STACK_BYTES = 2_000_000  # of python.exe's main thread, as in PCbuild/python.vcxproj
WINE = (
    "WINEPREFIX=/opt/windows/prefix",
    "WINEDEBUG=-all",
    "WINEDLLOVERRIDES=winemenubuilder.exe=",
    "PYTHONUTF8=1",  # or the sources would be read in the code page of a West European
    "XDG_RUNTIME_DIR=/tmp",  # it complains if there is none
)


def home(name: str) -> Path:
    """Return the folder of a CPython for Windows."""
    return FOLDER / name


def inside(path: Path) -> str:
    """Return the path that a file of the system has in the system."""
    return f"/{path.relative_to(SYSTEM)}"


def python(name: str) -> list[str]:
    """Return how the python of that name is called."""
    return [*INSIDE, *WINE, "wine", f"{inside(home(name))}/python.exe"]


def provide() -> None:
    """Make the system, and a Wine that has started once."""
    jit_test.provide_system(packages=PACKAGES)
    stamp = FOLDER / "prefix.stamp"
    if not stamp.exists():
        print("starting Wine for the first time", file=sys.stderr)
        FOLDER.mkdir(parents=True, exist_ok=True)
        environments.run(*INSIDE, *WINE, "wineboot", "--init")
        stamp.touch()


@contextmanager
def running() -> Iterator[None]:
    """Keep Wine's own processes during the block, by a program that waits.

    Otherwise each program starts them, which takes seconds, and they hold its output open.
    """
    command, null = [*INSIDE, *WINE, "wine", "cmd"], subprocess.DEVNULL
    waits = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=null, stderr=null)
    try:
        exits = [*command, "/c", "exit"]
        subprocess.run(exits, stdin=null, stdout=null, stderr=null, check=True)
        yield
    finally:
        waits.communicate()  # the end of its input


def provide_python(name: str) -> list[str]:
    """Make a CPython for Windows, if it is not there; return how it is called."""
    folder = home(name)
    wanted = f"{PROVIDER} {TESTS}"
    stamp = folder / "stamp"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"making CPython {name} for Windows in {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "DLLs").mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=SYSTEM / "tmp") as temporary:
            unpack_libraries(name, folder, Path(temporary))
            unpack_sources(name, folder, Path(temporary))
        make_import_libraries(name, folder)
        make_python_exe(name, folder)
        for_windows(name, "install", "--target", folder / "Lib" / "site-packages", *TESTS)
        # Or each process would compile all that it imports, as the tests write no bytecode.
        environments.run(*python(name), "-m", "compileall", "-q", f"{inside(folder)}/Lib")
        stamp.write_text(wanted)
    return python(name)


def for_windows(name: str, *command: str | Path) -> None:
    """Run pip for a Python on Windows: only wheels, as nothing can be built there."""
    pip = (sys.executable, *jit_test.PIP[:2])
    only = ("--only-binary=:all:", "--platform=win_amd64", f"--python-version={name}")
    action, *arguments = command
    environments.run(*pip, action, "--quiet", *only, *arguments)


def unpack_libraries(name: str, folder: Path, temporary: Path) -> None:
    """Take the DLLs and extension modules from the wheel that has them."""
    for_windows(name, "download", "--no-deps", "--dest", temporary, PROVIDER)
    (wheel,) = temporary.glob("*.whl")
    dll = f"python{name.replace('.', '')}.dll"
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            file = Path(member)
            # Wine has a C runtime (api-ms-*) of its own. Modules with a tag in their names are for
            # free-threaded builds.
            if file.parent.name != "deploy_libs" or file.name.startswith("api-ms-"):
                continue
            if file.suffix == ".dll" or file.name.count(".") == 1:
                is_base = file.name == dll or file.name.startswith("VCRUNTIME")
                where = folder if is_base else folder / "DLLs"
                (where / file.name).write_bytes(archive.read(member))
    if not (folder / dll).exists():
        raise Unavailable(f"{wheel.name} has no {dll}")


def unpack_sources(name: str, folder: Path, temporary: Path) -> None:
    """Take the standard library and the headers from Debian's packages of that Python.

    They are only unpacked: to install them would install a Python for Linux.
    """
    packages = [f"libpython{name}-{part}" for part in ("minimal", "stdlib", "dev")]
    # A new system has no lists of packages: mmdebstrap removes them.
    jit_test.update_lists()
    unpack = 'cd "$0"; apt-get -qq download "$@"; for file in *.deb; do dpkg-deb -x $file .; done'
    environments.run(*INSIDE, "sh", "-ec", unpack, inside(temporary), *packages)
    shutil.move(temporary / "usr" / "lib" / f"python{name}", folder / "Lib")
    shutil.move(temporary / "usr" / "include" / f"python{name}", folder / "include")
    for linux in (*folder.glob("Lib/lib-dynload"), *folder.glob("Lib/config-*")):
        shutil.rmtree(linux)
    (folder / "include" / "pyconfig.h").write_text(PYCONFIG.read_text())


def make_environment(name: str, label: str) -> Path:
    """Make a virtual environment of a Python on Windows; return its folder.

    Windows looks for DLLs in the folder of a program, so they are copied, too.
    """
    folder = FOLDER / f"{name}-{label}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "Lib" / "site-packages").mkdir(parents=True)
    (folder / "Scripts").mkdir()
    for file in (home(name) / "python.exe", *home(name).glob("*.dll")):
        shutil.copy(file, folder / "Scripts")
    config = f"home = Z:{inside(home(name))}\ninclude-system-site-packages = true\n"
    (folder / "pyvenv.cfg").write_text(config)
    return folder


def make_import_libraries(name: str, folder: Path) -> None:
    """Make the import libraries of the DLLs that extensions are linked with."""
    stem, runtime = f"python{name.replace('.', '')}", "VCRUNTIME140"
    (folder / "libs").mkdir(exist_ok=True)
    for dll, library in ((stem, f"lib{stem}.dll.a"), (runtime, "vcruntime140.lib")):
        make = f"cd $0; gendef {dll}.dll; {MINGW}-dlltool -d {dll}.def -l libs/{library}"
        environments.run(*INSIDE, "sh", "-ec", make, inside(folder))


def provide_cpp_runtime(name: str) -> None:
    """Put the DLLs of gcc's C++ runtime where a Python on Windows finds them."""
    needs = (
        "lib/gcc/{}/*/libstdc++-6.dll",
        "lib/gcc/{}/*/libgcc_s_seh-1.dll",
        "{}/lib/*pthread*.dll",
    )
    for pattern in needs:
        for dll in (SYSTEM / "usr").glob(pattern.format(MINGW)):
            shutil.copy(dll, home(name))


def make_python_exe(name: str, folder: Path) -> None:
    """Compile python.exe."""
    (folder / "python.c").write_text(PYTHON_EXE)
    link = ("-municode", "-fuse-ld=lld", f"-Wl,--stack,{STACK_BYTES}")
    files = ("-o", "python.exe", "python.c", f"libs/libpython{name.replace('.', '')}.dll.a")
    command = ("clang", f"--target={MINGW}", "-O2", *link, *files)
    environments.run(*INSIDE, "sh", "-c", 'cd "$0" && "$@"', inside(folder), *command)


if __name__ == "__main__":
    provide()
    for version in NAMES:
        subprocess.run(
            [*provide_python(version), "-c", "import sys; print(sys.version)"], check=True
        )
