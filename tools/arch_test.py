"""Run native tests and a part of the Python suite on another architecture, under qemu-user.

mmdebstrap makes two Debian unstable systems beside the built interpreters, once: one with cmake, a
cross compiler and qemu-user, and one of the other architecture with Debian's python3 and pytest.
The extension module is compiled in the first and tested in the second.
The kernel starts qemu-user by itself (binfmt_misc), so that tests may start processes as anywhere.
32-bit x86 runs without it. All that takes root.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import environments
import jit_test
import suites
from environments import Unavailable, required
from interpreters import CACHE
from suites import CHECKOUT, LOGS, Report


class Architecture(NamedTuple):
    """An architecture by the names that others have for it."""

    debian: str
    triple: str  # of the compiler
    emulator: str  # of qemu-user; empty if the kernel needs none


# By the name of the preset in CMakePresets.json.
ARCHITECTURES = {
    "aarch64": Architecture("arm64", "aarch64-linux-gnu", "qemu-aarch64"),
    "riscv64": Architecture("riscv64", "riscv64-linux-gnu", "qemu-riscv64"),
    "ppc64le": Architecture("ppc64el", "powerpc64le-linux-gnu", "qemu-ppc64le"),
    "s390x": Architecture("s390x", "s390x-linux-gnu", "qemu-s390x"),
    "loong64": Architecture("loong64", "loongarch64-linux-gnu", "qemu-loongarch64"),
    "i386": Architecture("i386", "i686-linux-gnu", ""),
    "armhf": Architecture("armhf", "arm-linux-gnueabihf", "qemu-arm"),
}
# What is run if nothing else is asked for: it takes minutes. The whole suite takes half an hour.
SMALL = (
    *("tests/python/test_switch.py", "tests/python/test_throw.py", "tests/python/test_parent.py"),
    *("tests/python/test_exceptions.py", "tests/python/test_generators.py"),
    *("tests/python/test_tracing.py", "tests/python/test_c_state.py"),
    "tests/python/test_collection.py",
)
# What the whole suite leaves out, and why.
ALIKE = "is about the sources and the documents"
NO_DISTRIBUTION = "only files are copied there: no wheel, and so no metadata"
OUTSIDE = "tools from outside read processes of 64 bits"
LEFT_OUT = {
    "test_architecture.py": ALIKE,
    "test_documents.py": ALIKE,
    "test_building.py": NO_DISTRIBUTION,
    "test_examples.py": NO_DISTRIBUTION,
    "test_package.py": NO_DISTRIBUTION,
}
LEFT_OUT_OF_32_BITS = {"test_outside.py": OUTSIDE, "test_outside_hostile.py": OUTSIDE}
SYSTEM = CACHE / "debian-cross"
INSIDE = jit_test.inside(SYSTEM)
CROSS = ("cmake", "gdb-multiarch", "googletest", "ninja-build", "qemu-user")
PACKAGES = (
    *("bash", "coreutils", "cython3", "g++", "libpython3-dev", "procps", "python3"),
    *("python3-hypothesis", "python3-pyelftools", "python3-pytest", "python3-pytest-timeout"),
    "python3-setuptools",
)
BINFMT = Path("/proc/sys/fs/binfmt_misc")
# Under an emulator all takes ten times as long, and a test that hangs is ended later.
LIMITS = ("--timeout", "900", "-o", "faulthandler_timeout=930")


def provide_system(architecture: Architecture) -> Path:
    """Make the system of the architecture if it is not there; return its folder."""
    root = SYSTEM / "systems" / architecture.debian
    stamp = root / "packages.stamp"
    wanted = "\n".join(PACKAGES)
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"making a Debian system in {root}", file=sys.stderr)
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        options = [f'--aptopt={option} "false"' for option in jit_test.APT]
        # Extracted, not installed: no script of a package runs, so that this needs no emulator.
        options += ["--mode=root", "--variant=extract", f"--include={','.join(PACKAGES)}"]
        options += [f"--architectures={architecture.debian}"]
        environments.run("mmdebstrap", *options, "sid", root, *jit_test.mirrors()[:1])
        stamp.write_text(wanted)
    return root


@contextmanager
def emulated(name: str, architecture: Architecture, program: Path) -> Iterator[None]:
    """Let the kernel start qemu-user for programs like this one."""
    entry = BINFMT / f"greenlet-{name}"
    if not architecture.emulator:
        yield
        return
    if not (BINFMT / "register").exists():
        environments.run("mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT)
    if entry.exists():
        entry.write_text("-1")  # left behind by one that was killed
    head = program.resolve().read_bytes()[:20]
    # The ELF header up to the kind of machine. The lowest bit of the type tells a program from one
    # that can be loaded anywhere; the version of the ABI does not matter.
    magic = head[:7] + bytes(9) + head[16:]
    kind = b"\xfe\xff" if head[5] == 1 else b"\xff\xfe"
    mask = b"\xff" * 7 + b"\0" + b"\xff" * 8 + kind + b"\xff\xff"
    written = ["".join(f"\\x{byte:02x}" for byte in text) for text in (magic, mask)]
    # The kernel opens the emulator now (F), so that it need not be in the other system.
    emulator = SYSTEM / "usr" / "bin" / architecture.emulator
    (BINFMT / "register").write_text(f":{entry.name}:M::{':'.join(written)}:{emulator}:OCPF")
    try:
        yield
    finally:
        entry.write_text("-1")


def build(name: str, architecture: Architecture, root: Path, python: Path) -> Path:
    """Cross-compile the extension module; return the folder that the package is in."""
    inside = Path("/") / root.relative_to(SYSTEM)
    folder = CHECKOUT / "build" / f"debian-{name}"
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    headers = f"-idirafter {inside}/usr/include"  # each includes one of its architecture
    emulator = architecture.emulator or "qemu-i386"
    definitions = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_C_FLAGS": headers,
        "CMAKE_CXX_FLAGS": headers,
        "CMAKE_CROSSCOMPILING_EMULATOR": f"{emulator};-L;{inside}",
        "GREENLET_WERROR": environments.WERROR,
        "Python_EXECUTABLE": inside / "usr" / "bin" / python.name,
        "Python_INCLUDE_DIR": inside / "usr" / "include" / python.name,
        "Python_ROOT_DIR": inside / "usr",
    }
    run = (*INSIDE, "cmake")
    toolchain = f"tools/toolchains/{architecture.triple}.cmake"
    options = [f"-D{key}={value}" for key, value in definitions.items()]
    environments.run(*run, "-G", "Ninja", "-B", folder, "--toolchain", toolchain, *options)
    environments.run(*run, "--build", folder)
    environments.run(*run, "--install", folder, "--prefix", site, "--strip")
    shutil.copytree(CHECKOUT / "src" / "greenlet", site / "greenlet", dirs_exist_ok=True)
    return site


def native(report: Report, name: str) -> None:
    """Run the native tests, compiled and emulated by that system."""
    label = f"{name}-native"
    folder = CHECKOUT / "build" / f"debian-{label}"
    run = (*INSIDE, f"WERROR={environments.WERROR}")
    environments.run(*run, "cmake", "--preset", name, "-G", "Ninja", "-B", folder)
    environments.run(*run, "cmake", "--build", folder)
    results = ("--output-on-failure", "--output-junit", LOGS / f"{label}.xml")
    suites.test(report, label, [*run, "ctest", "--test-dir", folder, "-j2", *map(str, results)])


def run(report: Report, name: str, tests: Sequence[str]) -> None:
    """Test on one architecture: the native tests and the small set, or these tests alone."""
    os.environ.setdefault("SUITE_MINUTES", "90")
    with required(report, name):
        if name not in ARCHITECTURES:
            raise Unavailable(f"ARCH is one of {', '.join(ARCHITECTURES)}")
        architecture = ARCHITECTURES[name]
        jit_test.provide_system(SYSTEM, (*CROSS, f"g++-{architecture.triple}"))
        if not tests:
            native(report, name)
        root = provide_system(architecture)
        python = (root / "usr" / "bin" / "python3").resolve()
        with emulated(name, architecture, python):
            site = build(name, architecture, root, python)
            inside = jit_test.inside(root)
            settings = [f"PYTHONPATH={site}"]
            settings += ["GREENLET_EMULATED=1"] if architecture.emulator else []
            command = [*inside, *settings, f"/usr/bin/{python.name}"]
            left_out = {**LEFT_OUT, **(LEFT_OUT_OF_32_BITS if name in ("i386", "armhf") else {})}
            ignored = [f"--ignore=tests/python/{file}" for file in left_out]
            suites.pytest(report, f"{name}-python", command, *LIMITS, *ignored, *(tests or SMALL))
