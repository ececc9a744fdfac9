"""Engines that compare the stack pointer with the bounds of the thread's stack work in greenlets by
stacks.call_on_thread_stack(). Only `make test-engines` runs this; missing engines are skipped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from environment import make_environment

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

COMPILE = Path(__file__).parent.parent / "extensions" / "compile.py"

# The program, the packages it needs from the index, and how long it may take.
ENGINES = {
    "engine_jvm.py": ["JPype1"],
    "engine_polars.py": ["polars"],
    "engine_qjs.py": ["PySide6_Essentials"],
    "engine_r.py": [],
    "engine_v8.py": ["stpyv8"],
}


@pytest.mark.parametrize("program", ENGINES)
def test_an_engine_works_as_in_the_main_greenlet(program: str) -> None:
    if program == "engine_jvm.py" and shutil.which("java") is None:
        pytest.skip("no Java: install default-jre-headless")
    name = program.removesuffix(".py").replace("_", "-")
    output = make_environment(name, *ENGINES[program]).run(program, timeout=300)
    if output.startswith("skipped: "):
        pytest.skip(output.removeprefix("skipped: ").strip())
    assert output.endswith("in greenlets\n"), output


def test_a_collector_that_scans_the_stack_finds_what_is_there(tmp_path: Path) -> None:
    environment = make_environment("engine-libgc")
    done = subprocess.run(
        [
            *(environment.python, COMPILE, "scanned.c", tmp_path, tmp_path),
            *("-Wl,--no-as-needed", "-lgc"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "gc.h" in done.stderr:
        pytest.skip("no libgc: install libgc-dev")
    assert done.returncode == 0, done.stderr
    output = environment.run("engine_libgc.py", done.stdout.strip(), timeout=60)
    assert output == "objects found: 2000\nlibgc works in greenlets\n"
