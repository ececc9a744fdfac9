"""The commands of gdb for greenlets (src/greenlet/gdb.py), in a gdb of this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import greenlet
import pytest
from helpers import TIME_SCALE, core_files_are_small, stacks_stay_in_place
from outside import Target, core_of, target, told_by_tool, without_running

SCRIPT = Path(greenlet.__file__).with_name("gdb.py")


def gdb(*commands: str, timeout: float = 120) -> str:
    """Run gdb with these commands; return what it prints."""
    options = [option for command in commands for option in ("-ex", command)]
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-ex", "set debuginfod enabled off", *options],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # away from a terminal, which it would use and be stopped for that
        timeout=timeout * TIME_SCALE,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module", autouse=True)
def gdb_can_be_used(tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("gdb") is None:
        pytest.skip("there is no gdb")
    if "3." not in gdb("python import sys, gdb.unwinder; print(sys.version)"):
        pytest.skip("this gdb has no Python")


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target("ends", tmp_path_factory.mktemp("gdb")) as one:
        if "not permitted" in gdb(f"attach {one.pid}"):
            pytest.skip("gdb may not read a process here")
        yield one


def in_process(one: Target, *commands: str) -> str:
    return gdb(f"attach {one.pid}", f"source {SCRIPT}", *commands)


def number_of(listed: str, name: str) -> str:
    found = re.search(rf"^[* ] (\d+) +{re.escape(name)} ", listed, re.MULTILINE)
    assert found, listed
    return found[1]


def test_info_greenlets_lists_all_with_numbers(process: Target) -> None:
    listed = in_process(process, "info greenlets")
    lines = [line for line in listed.splitlines() if re.match(r"[* ] \d+ ", line)]
    assert len(lines) == sum(len(thread["greenlets"]) for thread in process.threads)
    assert [line[0] for line in lines].count("*") == 1
    assert lines[0].startswith("* 1 ")
    assert f"thread {process.pid} MainThread\n" in listed
    assert re.search(r"uses_a_generator 0x\w+ suspended  wait \S+outside_target.py:\d+", listed)


@stacks_stay_in_place
def test_a_selected_greenlet_shows_its_native_stack(process: Target) -> None:
    listed = in_process(process, "info greenlets")
    chosen = number_of(listed, "uses_c")
    shown = in_process(
        process, f"greenlet {chosen}", "bt", "up", "info greenlets", "greenlet 0", "bt"
    )
    inside, _, outside = shown.partition("thread ")[2].partition("#0 ")
    # The frames of the greenlet's own stack: its switch, what has called it, and its first frame.
    numbers = [int(number) for number in re.findall(r"^#(\d+) ", inside, re.MULTILINE)]
    assert min(numbers) >= 1 and max(numbers) > 5
    # An interpreter without symbols, as Debian's, has names only for what it exports.
    has_symbols = "list_sort" in in_process(process, "info functions -n -q ^list_sort")
    assert not has_symbols or re.search("list_sort|sorted|PyObject_Vectorcall", inside)
    assert "greenlet_context_begin" in inside
    assert "main (" not in inside and "Py_BytesMain" not in inside
    assert re.search(rf"^\* {chosen} ", inside, re.MULTILINE)
    # And the thread as it is.
    assert "greenlet_context_begin" not in outside
    assert "main" in outside


@stacks_stay_in_place
def test_all_greenlets_at_once(process: Target) -> None:
    shown = in_process(process, "greenlet apply all bt -frame-info short-location")
    stacks = shown.split("\nGreenlet ")[1:]
    assert len(stacks) == sum(len(thread["greenlets"]) for thread in process.threads)
    for stack in stacks:
        assert ("greenlet_context_begin" in stack) == (" suspended, " in stack.splitlines()[0])
        assert "corrupt" not in stack


@stacks_stay_in_place
def test_python_frames(process: Target) -> None:
    listed = in_process(process, "info greenlets")
    chosen = number_of(listed, "recursive")
    shown = in_process(
        process, f"greenlet {chosen}", "greenlet py-bt", f"greenlet apply {chosen} py-bt"
    )
    assert len(re.findall(r"  recursive  \S+outside_target.py:\d+ × 4\n.*\n.*wait  ", shown)) == 2


@stacks_stay_in_place
def test_a_greenlet_of_another_thread_selects_that_thread(process: Target) -> None:
    second = process.threads[1]
    count = len(process.threads[0]["greenlets"])
    shown = in_process(process, f"greenlet {count + 2}", "thread", "greenlet")
    assert f"LWP {second['native_id']}" in shown
    assert len(re.findall(rf"\[Greenlet {count + 2}: recursive", shown)) == 2


def test_what_is_wrong_is_said(process: Target) -> None:
    assert "there is no greenlet 1000" in in_process(process, "greenlet 1000")
    assert "there is no greenlet x" in in_process(process, "greenlet x")
    assert "greenlet apply all COMMAND" in in_process(process, "greenlet apply all")
    assert "there is no process" in gdb(f"source {SCRIPT}", "info greenlets")
    with subprocess.Popen(["sleep", "100"]) as other:
        shown = gdb(f"attach {other.pid}", f"source {SCRIPT}", "info greenlets")
        other.kill()
    assert f"there is no greenlet in process {other.pid}" in shown


def test_the_process_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    with target("ends", tmp_path) as one:
        in_process(one, "greenlet apply all bt", "greenlet 3", "up", "info registers", "detach")
        in_process(one, "greenlet 4", "bt", "detach")
        out, _ = one.process.communicate("go on\n", timeout=30 * TIME_SCALE)
        assert out == "went on\n"
        assert one.process.returncode == 0


@stacks_stay_in_place
def test_the_selection_ends_when_the_process_goes_on(tmp_path: Path) -> None:
    with target("runs", tmp_path) as one:
        shown = in_process(
            one,
            "break clock_nanosleep",
            "greenlet 3",
            "continue",
            "greenlet",
            "bt",
            "greenlet 3",
            "bt 3",
        )
    stopped = shown.partition("Breakpoint 1, ")[2]
    assert re.search(r"\[Greenlet 1: main", stopped)
    assert re.search(r"^#0 ", stopped, re.MULTILINE)
    assert re.search(r"\[Greenlet 3: recursive", stopped)


@core_files_are_small
def test_a_core_file_of_gdb_has_the_stacks_of_greenlets(tmp_path: Path) -> None:
    with target("sleeps", tmp_path) as one:
        shown = in_process(one, f"greenlet gcore {tmp_path / 'core'}")
        assert re.search(r"Saved \S+core, and [\d,]+ pages that gcore had left out", shown)
        found = told_by_tool(tmp_path / "core")
        assert without_running(found) == without_running(one.threads)


@stacks_stay_in_place
def test_a_core_file(tmp_path: Path) -> None:
    core, threads = core_of(tmp_path)
    begin = (f"file {sys.executable}", f"core-file {core}", f"source {SCRIPT}")
    listed = gdb(*begin, "info greenlets")
    number = number_of(listed, "uses_c")
    shown = gdb(*begin, f"greenlet {number}", "bt", "greenlet py-bt", "greenlet apply all bt 2")
    assert "greenlet_context_begin" in shown
    assert re.search(r"  uses_c  \S+outside_target.py:\d+\n", shown)
    assert shown.count("\nGreenlet ") == sum(len(thread["greenlets"]) for thread in threads)
