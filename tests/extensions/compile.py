"""Compile an extension module for the interpreter that runs this, and print its path.

    compile.py SOURCE HEADERS FOLDER [FLAG ...]

SOURCE is a C, C++ or Cython file beside this script; HEADERS is where `<greenlet/greenlet.h>` is
looked for, FOLDER where the module goes. Warnings are errors, save in what Cython writes.

Where there is no compiler (Windows under Wine), GREENLET_COMPILED names a folder with the modules,
compiled elsewhere, with the flags in their names. What is not there cannot be had on that system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

STANDARD = {".c": ["gcc", "-std=c99"], ".cpp": ["g++", "-std=c++11"], ".pyx": ["gcc"]}
STRICT = ["-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]


def main(name: str, headers: str, folder: str, *flags: str) -> None:
    source = Path(__file__).with_name(name)
    kind, module = source.suffix, source.stem
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    target = Path(folder, f"{module}{suffix}")
    if compiled := os.environ.get("GREENLET_COMPILED"):
        print(shutil.copy(Path(compiled, "".join([module, *flags]) + suffix), target))
        return
    if kind == ".pyx":
        translated = Path(folder, f"{module}.c")
        subprocess.run([sys.executable, "-m", "cython", "-3", "-o", translated, source], check=True)
        source = translated
    # CPython's headers are not ours to warn about, nor are they C99 in every version.
    include = ["-isystem", sysconfig.get_path("include")]
    warnings = ["-O0", "-w"] if kind == ".pyx" else STRICT
    shared = ["-g0", "-fPIC", "-shared", "-pthread"]
    subprocess.run(
        [
            *(*STANDARD[kind], *warnings, *flags, *shared),
            *("-I", headers, *include, "-o", str(target), str(source)),
        ],
        check=True,
    )
    print(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
