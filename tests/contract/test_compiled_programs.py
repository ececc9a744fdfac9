"""Programs compiled with our header or the published one do the same on both greenlets.

The published header goes to the compiler unseen. Nothing here opens it, and the compiler's messages
about it are not shown.
"""

from __future__ import annotations

import difflib
import subprocess
import sys
from pathlib import Path

import pytest
from contract_runner import (
    CHECKOUT,
    FOLDER,
    CannotCompare,
    Interpreter,
    environment,
    ours,
    published,
)

COMPILE = CHECKOUT / "tests" / "extensions" / "compile.py"
PROGRAMS = ("entries.c", "unwinding.cpp", "fields.pyx")

#: Prints the folder among the installed headers that `<greenlet/greenlet.h>` is in.
_HEADERS = """
import importlib.metadata
from pathlib import Path
files = importlib.metadata.files("greenlet")
header = next(file for file in files if file.name == "greenlet.h" and file.parts[0] == "..")
print(Path(header.locate()).resolve().parent.parent)
"""


@pytest.fixture(scope="module")
def interpreters() -> dict[str, Interpreter]:
    try:
        found = {"ours": ours(), "published": published()}
    except CannotCompare as problem:
        pytest.fail(str(problem), pytrace=False)
    if found["ours"].name != found["published"].name:
        pytest.skip("there is no published wheel for debug builds, which have an ABI of their own")
    return found


def output_of(*command: str | Path) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        cwd=FOLDER,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


@pytest.fixture(scope="module")
def transcripts(
    interpreters: dict[str, Interpreter], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], tuple[str, ...]]:
    """The transcripts, by the header of the compilation and the greenlet of the run."""
    said = {}
    for header, interpreter in interpreters.items():
        headers = output_of(interpreter.path, "-c", _HEADERS).strip()
        folder = tmp_path_factory.mktemp(f"header-{header}")
        flags = ["-w", "-Wno-error", "-fno-diagnostics-show-caret"] if header == "published" else []
        for program in PROGRAMS:
            output_of(sys.executable, COMPILE, program, headers, folder, *flags)
        for loaded, tested in interpreters.items():
            transcript = output_of(tested.path, "compiled_programs.py", folder)
            said[header, loaded] = tuple(transcript.splitlines())
    return said


@pytest.mark.parametrize(
    ("header", "loaded"),
    [("published", "ours"), ("ours", "published"), ("ours", "ours")],
)
def test_compiled_programs_do_the_same_with_either_header_and_greenlet(
    header: str, loaded: str, transcripts: dict[tuple[str, str], tuple[str, ...]]
) -> None:
    expected, got = transcripts["published", "published"], transcripts[header, loaded]
    assert len(expected) > 30
    assert got == expected, "\n" + "\n".join(difflib.unified_diff(expected, got, lineterm=""))
