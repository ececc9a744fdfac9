"""``python -m greenlet ps|pstree|count|dump``: greenlets of other processes and of core files.

The processes tell what ``greenlet.inspect`` knows of them. From outside it must look the same.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import greenlet._greenlet
import pytest
from elftools.elf.elffile import ELFFile
from greenlet import _frames, _memory, _objects, _reader, _table
from helpers import (
    FREE_THREADED,
    TIME_SCALE,
    VERSION,
    core_files_are_small,
    run_script,
    since,
    stacks_stay_in_place,
)
from outside import (
    PROGRAM,
    core_of,
    memory_can_be_read,  # noqa: F401, an automatic fixture
    script,
    target,
    told_by_tool,
    tool,
    without_addresses,
    without_running,
)

CHECKOUT = Path(__file__).parents[2]
SILENT = {"PYTHON_DISABLE_REMOTE_DEBUG": "1"}  # it does not run scripts of others


def snapshot(pid: int) -> Any:
    """What the memory of a process shows, without its help."""
    process = _memory.Process(pid)
    try:
        return _reader.Reader(process).snapshot()
    finally:
        process.close()


# --- it looks as from inside ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sleeps", "in C", "in a greenlet"])
def test_a_process_that_does_not_help_shows_what_it_knows_of_itself(
    how: str, tmp_path: Path
) -> None:
    with target(how, tmp_path, env=SILENT) as one:
        found = told_by_tool(one.pid)
    if how == "in a greenlet":  # one greenlet more has started since, and runs
        running = found[0]["greenlets"].pop()
        assert [frame["function"] for frame in running["stack"]] == []
        assert running["name"] == "sleep"
        assert found[0]["greenlets"][0]["state"] == "suspended"
        del found[0]["greenlets"][0], one.threads[0]["greenlets"][0]
        del one.threads[0]["greenlets"][-1]
    assert without_running(found) == without_running(one.threads)
    assert [thread["name"] for thread in found] == ["MainThread", "the second thread"]


@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_the_text_is_the_same_whether_a_process_answers_or_not(
    command: str, tmp_path: Path
) -> None:
    with target("runs", tmp_path) as one:
        answered = tool(command, one.pid)
        assert (answered.returncode, answered.stderr) == (0, "")
    with target("runs", tmp_path, env=SILENT) as one:
        read = tool(command, one.pid)
        assert (read.returncode, read.stderr) == (0, "")

    def text(outcome: Any) -> list[str]:
        shown = re.sub(
            r"\bthread \d+|^\d+ ", "thread", without_addresses(outcome.stdout), flags=re.M
        )
        return [re.sub(r" +", " ", line) for line in shown.splitlines()]

    assert text(answered) == text(read)


def test_a_core_file_shows_what_the_process_knew_of_itself(tmp_path: Path) -> None:
    core, threads = core_of(tmp_path)
    found = told_by_tool(core)
    assert without_running(found) == without_running(threads)
    (main,) = found[0]["greenlets"][:1]
    assert [frame["function"] for frame in main["stack"]] == ["<module>", "main"]
    assert tool("count", core).stdout.splitlines()[-1].startswith("2 threads")


def environments() -> list[Path]:
    """The interpreters of other versions that have this greenlet."""
    here = Path(sys.prefix).name
    names = ("3.11", "3.12", "3.13", "3.14", "3.15", "3.14t", "3.15t")
    found = (CHECKOUT / ".venvs" / name for name in names if name != here)
    installed = "lib/python*/site-packages/greenlet/__init__.py"
    return [folder / "bin" / "python" for folder in found if any(folder.glob(installed))]


@pytest.mark.parametrize("python", environments(), ids=lambda python: python.parent.parent.name)
def test_a_process_of_another_version_shows_what_it_knows_of_itself(
    python: Path, tmp_path: Path
) -> None:
    with target("in C", tmp_path, python=python) as one:
        assert without_running(told_by_tool(one.pid)) == without_running(one.threads)


@since("sys.remote_exec")
def test_local_variables_of_a_process_that_answers(tmp_path: Path) -> None:
    with target("runs", tmp_path) as one:
        shown = tool("pstree", one.pid, "--locals", "--no-group").stdout
    assert re.search(r"recursive .*\n.*levels = 4\n", shown)


def test_local_variables_of_a_process_that_does_not_answer(tmp_path: Path) -> None:
    with target("sleeps", tmp_path, env=SILENT) as one:
        outcome = tool("pstree", one.pid, "--locals")
        assert tool("count", one.pid, "--locals").returncode == 0  # which shows none
    assert outcome.returncode == 1
    assert "does not tell its local variables" in outcome.stderr


@since("sys.remote_exec")
def test_a_process_that_answers_too_late_writes_nothing_and_takes_the_question_away(
    tmp_path: Path,
) -> None:
    source = """
import sys, time, greenlet
print("ready", flush=True)
time.sleep(2.5)
for _ in range(100): time.sleep(0.1)
"""
    folder = {"TMPDIR": str(tmp_path)}
    with script(source) as pid:
        done = subprocess.run(
            [sys.executable, "-m", "greenlet", "ps", str(pid)],
            env={**os.environ, **folder},
            capture_output=True,
            text=True,
            timeout=30 * TIME_SCALE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len([*tmp_path.iterdir()]) == 1
        end = time.monotonic() + 20 * TIME_SCALE
        while [*tmp_path.iterdir()] and time.monotonic() < end:
            time.sleep(0.05)
        assert [*tmp_path.iterdir()] == []


def test_frames_of_a_thread_that_switches_meanwhile_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a running greenlet has those of the one that ran before it."""
    read, find = _objects.Objects.field, _frames.Frames.of_running
    looks: list[int] = []
    others: list[int] = []

    def field(self: _objects.Objects, address: int, name: str) -> int:
        return others.pop() if name == "thread.running" and others else read(self, address, name)

    def of_running(self: _frames.Frames, thread_state: int) -> int:
        looks.append(thread_state)
        if len(looks) == 1:
            others.append(0)  # another greenlet runs after this look
        return find(self, thread_state)

    monkeypatch.setattr(_objects.Objects, "field", field)
    with target("sleeps", tmp_path, env=SILENT) as one:
        expected = snapshot(one.pid)
        monkeypatch.setattr(_frames.Frames, "of_running", of_running)
        assert snapshot(one.pid) == expected
    assert others == []
    assert len(looks) == 1 + len(expected)


# --- the options ----------------------------------------------------------------------------------


def test_greenlets_at_the_same_place_are_shown_together_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    with target("sleeps", tmp_path, env=SILENT) as one:
        assert "3 greenlets recursive suspended" in tool("pstree", one.pid).stdout
        apart = tool("pstree", one.pid, "--no-group").stdout
    assert "greenlets recursive" not in apart
    assert len(re.findall(r"recursive 0x\w+ suspended", apart)) >= 3


def test_one_thread_is_shown_by_its_number_its_ident_or_its_name(tmp_path: Path) -> None:
    with target("sleeps", tmp_path, env=SILENT) as one:
        second = one.threads[1]
        for chosen in (second["native_id"], second["ident"], hex(second["ident"]), second["name"]):
            (found,) = told_by_tool(one.pid, "--thread", chosen)
            assert found["native_id"] == second["native_id"]
        outcome = tool("ps", one.pid, "--thread", "third")
    assert outcome.returncode == 1
    assert f"{one.pid} (MainThread), {second['native_id']} (the second thread)" in outcome.stderr


def test_counts(tmp_path: Path) -> None:
    with target("sleeps", tmp_path, env=SILENT) as one:
        text = tool("count", one.pid).stdout
        counts = json.loads(tool("count", one.pid, "--json").stdout)
    expected = [len(thread["greenlets"]) for thread in one.threads]
    assert [each["alive"] for each in counts] == expected
    assert [each["waiting"] for each in counts] == [number - 1 for number in expected]
    assert re.search(rf"2 threads +{sum(expected)} greenlets +{sum(expected) - 2} waiting", text)


def test_it_is_shown_again_until_it_is_interrupted(tmp_path: Path) -> None:
    with target("sleeps", tmp_path, env=SILENT) as one:
        command = [sys.executable, "-m", "greenlet", "count", str(one.pid), "--watch", "0.1"]
        # A job in the background of a shell ignores SIGINT, and so do its children.
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as watching:
            assert watching.stdout is not None
            lines = [watching.stdout.readline() for _ in range(9)]
            watching.send_signal(signal.SIGINT)
            assert watching.wait(10 * TIME_SCALE) == 0
    assert lines[:3] == lines[3:6] == lines[6:]


def test_output_that_nobody_reads_to_its_end_is_no_error(tmp_path: Path) -> None:
    with target("sleeps", tmp_path, env=SILENT) as one:
        done = subprocess.run(
            f"{sys.executable} -m greenlet pstree {one.pid} | true",
            shell=True,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stderr == ""


# --- what cannot be shown -------------------------------------------------------------------------


def failure_of(*arguments: object) -> str:
    """The sentence that the tool says in place of a result."""
    outcome = tool(*arguments)
    assert outcome.returncode == 1
    assert outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1, outcome.stderr
    return outcome.stderr.strip()


def test_no_such_process() -> None:
    assert failure_of("ps", 2**22 + 1) == f"there is no process {2**22 + 1}"


def test_a_process_that_has_ended_but_is_still_listed() -> None:
    with subprocess.Popen(["true"]) as process:
        time.sleep(0.2)
        assert failure_of("ps", process.pid) == f"process {process.pid} has ended"


@pytest.mark.parametrize("command", [["sleep", "100"], [sys.executable, "-c", "input()"]])
def test_no_greenlet_in_the_process(command: list[str]) -> None:
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            said = failure_of("ps", process.pid)
            assert said == f"there is no greenlet in process {process.pid}"
        finally:
            process.kill()


def test_no_permission(tmp_path: Path) -> None:
    program = """
        import argparse, os, sys
        from greenlet import _outside, _reader, _remote
        if os.geteuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        options = argparse.Namespace(target=sys.argv[1], watch=None, locals=False, command="ps")
        sys.exit(_outside.run(options))
    """
    with target("sleeps", tmp_path) as one:
        pid = one.pid if os.geteuid() == 0 else 1
        outcome = run_script(program, args=[str(pid)])
    assert outcome.returncode == 1, outcome.stdout
    assert outcome.stderr.startswith(
        f"may not read process {pid}: run this as root, or as the user"
    )
    assert outcome.stderr.count("\n") == 1


def test_the_advice_names_the_setting_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scope:
        def __enter__(self) -> Any:
            return types.SimpleNamespace(read=lambda: "1\n")

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(_memory, "open", lambda path: Scope(), raising=False)
    assert "kernel.yama.ptrace_scope is 1 here" in _memory._permission()


def test_an_extension_without_a_table_is_the_published_greenlet(tmp_path: Path) -> None:
    library = tmp_path / "_greenlet.cpython-314-x86_64-linux-gnu.so"
    library.write_bytes(bytes(8192))
    source = """
import mmap, sys, time
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print("ready", flush=True)
time.sleep(1000)
"""
    with script(source, str(library)) as pid:
        said = failure_of("ps", pid)
    assert said.startswith(f"the greenlet in process {pid} has no debug table: it is the published")


def test_files_that_are_no_core_files(tmp_path: Path) -> None:
    text, empty, short = tmp_path / "text", tmp_path / "empty", tmp_path / "short"
    text.write_text("a text that is long enough")
    empty.touch()
    # 56 program headers of 56 bytes each, behind the end of the file.
    short.write_bytes(
        b"\x7fELF\x02\x01" + bytes(10) + b"\x04" + bytes(15) + b"\x40" + bytes(21) + b"8\x008\x00"
    )
    assert failure_of("ps", tmp_path / "gone") == f"there is no file {tmp_path / 'gone'}"
    assert failure_of("ps", text) == f"{text} is not an ELF file, so it is no core file"
    assert failure_of("ps", empty) == f"{empty} is empty"
    assert failure_of("ps", tmp_path) == f"cannot read {tmp_path}: Is a directory"
    assert failure_of("ps", sys.executable) == f"{sys.executable} is an ELF file, but no core file"
    assert failure_of("ps", short) == f"{short} is no complete core file: it is cut off"
    assert failure_of("ps", text, "--locals").startswith(
        "a core file does not show local variables"
    )
    assert failure_of("ps", text, "--watch", "0") == "--watch takes a number of seconds above zero"


def test_core_files_that_are_damaged(tmp_path: Path) -> None:
    core, _ = core_of(tmp_path)
    with open(core, "r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        memory = _memory.CoreFile(str(core))
        places = [
            segment.offset + address - segment.start
            for address in memory.addresses_of(_table.MAGIC)
            if (segment := memory._segment_of(address)) is not None
        ]
        first = _reader.Reader(memory).threads()[0]
        segment = memory._segment_of(first)
        assert segment is not None
        # A version of the table that is not known.
        for place in places:
            data[place + 16] += 1
        assert "has version 2, and this greenlet knows version 1" in failure_of("ps", core)
        for place in places:
            data[place + 16] -= 1
        # A pointer that leads nowhere.
        place = segment.offset + first - segment.start
        damaged = place + _table.Table.all_in(memory)[0]["thread.main"]
        before = data[damaged : damaged + 8]
        data[damaged : damaged + 8] = (0x7FFF_FFFF_0000).to_bytes(8, "little")
        assert "lacks memory that is needed" in failure_of("ps", core)
        data[damaged : damaged + 8] = b"\x01" * 8
        assert "does not fit together: it is damaged" in failure_of("ps", core)
        data[damaged : damaged + 8] = before
        assert tool("ps", core).returncode == 0
    # What a limit cuts off is the end.
    for part in (0.9, 0.5, 0.1, 0.001):
        os.truncate(core, int(core.stat().st_size * part))
        outcome = tool("ps", core)
        assert outcome.returncode == 1
        assert outcome.stderr.count("\n") == 1, outcome.stderr


@core_files_are_small
@pytest.mark.skipif(shutil.which("gcore") is None, reason="there is no gcore, which comes with gdb")
def test_a_core_file_of_gcore_shows_the_same_or_says_what_it_lacks(tmp_path: Path) -> None:
    with target("sleeps", tmp_path, env=SILENT) as one:
        made = subprocess.run(
            ["gcore", "-o", tmp_path / "core", str(one.pid)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # away from a terminal
            check=False,
        )
        if made.returncode:
            pytest.skip("gcore may not read a process here")
        core = tmp_path / f"core.{one.pid}"
        outcome = tool("dump", core)
        found = json.loads(outcome.stdout)
    if outcome.stderr:  # guards by advice (Linux 6.13+)
        assert outcome.returncode == 1
        assert re.search(
            r"lacks the stacks of \d+ greenlets: gcore of gdb leaves out", outcome.stderr
        )
        for thread in (*found, *one.threads):
            for each in thread["greenlets"]:
                each["stack"] = []
    assert without_running(found) == without_running(one.threads)


# --- a process that goes on -----------------------------------------------------------------------

SWITCHING = """
import sys, threading
from greenlet import getcurrent, greenlet

def inner():
    parent = getcurrent().parent
    while True:
        parent.switch()

def outer():
    inner()

def short():
    getcurrent().parent.switch()

def work():
    pair = [greenlet(outer), greenlet(inner)]
    while True:
        for g in pair:
            g.switch()
        if "births" in sys.argv:
            g = greenlet(short)
            g.switch()
            g.switch()

for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
work()
"""
CHAINS = {("inner",), ("outer", "inner"), ("outer",), ("short",), ()}


# In the mode another stack is frozen to the same place at each switch. A look cannot notice that.
@stacks_stay_in_place
@pytest.mark.parametrize("mode", ["switches", "births"])
def test_stacks_of_a_process_that_switches_all_the_time_are_never_mixed(mode: str) -> None:
    with script(SWITCHING, mode, env=SILENT) as pid:
        shown = 0
        for _ in range(40):
            threads = snapshot(pid)
            assert len(threads) <= 3
            for thread in threads:
                for one in thread.greenlets[1:]:
                    chain = tuple(frame.function for frame in one.stack)
                    # What runs may be read in the middle of a switch, or when its run is over.
                    if one.state == "suspended":
                        assert chain in CHAINS, chain
                        assert one.name in ("inner", "outer", "short")
                        shown += bool(chain)
        assert shown > 20


def test_a_process_that_is_killed_while_it_is_read() -> None:
    source = """
import greenlet
keep = [greenlet.greenlet(greenlet.getcurrent().switch) for _ in range(20_000)]
for g in keep: g.switch()
print("ready", flush=True)
input()
"""
    for delay in (0.0, 0.01, 0.05, 0.1):
        with script(source) as pid:
            killer = threading.Timer(delay, os.kill, [pid, signal.SIGKILL])
            process = _memory.Process(pid)
            begin = time.monotonic()
            killer.start()
            try:
                _reader.Reader(process).snapshot()
            except (ValueError, _memory.UnreadableError, _memory.OutsideError):
                pass
            assert time.monotonic() - begin < 15 * TIME_SCALE
            killer.join()
            end = time.monotonic() + 10
            while not process.has_ended() and time.monotonic() < end:
                time.sleep(0.01)
            assert process.has_ended()
            process.close()


def test_many_greenlets() -> None:
    source = """
import greenlet
def wait(): greenlet.getcurrent().parent.switch()
keep = [greenlet.greenlet(wait) for _ in range(20_000)]
for g in keep: g.switch()
print("ready", flush=True)
input()
"""
    with script(source, env=SILENT) as pid:
        shown = tool("pstree", pid).stdout
    assert "20,001 greenlets" in shown
    assert "20,000 greenlets wait suspended" in shown


def test_a_deep_stack() -> None:
    source = """
import sys, greenlet
sys.setrecursionlimit(200_000)
def deep(n):
    if n: deep(n - 1)
    else: greenlet.getcurrent().parent.switch()
g = greenlet.greenlet(deep)
g.switch(100_000)
print("ready", flush=True)
input()
"""
    with script(source, env=SILENT) as pid:
        shown = tool("pstree", pid).stdout
    assert "deep  <string>:5 × 100,000" in shown


# --- the table ------------------------------------------------------------------------------------


def test_lines_are_those_that_the_interpreter_tells() -> None:
    pending = [compile(Path(file).read_text(), file, "exec") for file in (__file__, os.__file__)]
    checked = 0
    while pending:
        code = pending.pop()
        pending += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        read = _objects.Code("", "", code.co_firstlineno, code.co_linetable)
        for start, end, line in code.co_lines():
            for offset in range(start, end, 2):
                assert read.line_at(offset) == (line or 0), (code, offset)
                checked += 1
    assert checked > 10_000


def blocks_in(library: Path) -> int:
    with open(library, "rb") as file:
        section = ELFFile(file).get_section_by_name(".greenlet_debug")
        assert section is not None
        data: bytes = section.data()
    return data.count(_table.MAGIC)


def test_the_table_survives_the_linker_and_strip(tmp_path: Path) -> None:
    library = Path(greenlet._greenlet.__file__ or "")
    assert blocks_in(library) == 2
    if shutil.which("strip") is None:
        pytest.skip("there is no strip")
    stripped = tmp_path / "stripped.so"
    subprocess.run(["strip", "--strip-all", "-o", stripped, library], check=True)
    assert blocks_in(stripped) == 2


def test_the_table_tells_the_version() -> None:
    reader = _reader.Reader(_memory.Process(os.getpid()))
    assert reader.python_version == VERSION
    assert reader.is_free_threaded == FREE_THREADED
    assert reader.table.greenlet_version == greenlet.__version__


def test_the_document_explains_every_entry_of_the_table() -> None:
    document = CHECKOUT / "docs" / "debug-table.md"
    if not document.exists():
        pytest.skip("the documents are not here")
    explained = set(re.findall(r"`([a-zA-Z_]+(?:\.\w+)?)`", document.read_text()))
    entries = _table.Table.all_in(_memory.Process(os.getpid()))[0].entries
    registers = {name for name in entries if name.startswith("register.")}
    assert entries.keys() - registers - explained == set()


@pytest.mark.parametrize("python", [Path(sys.executable), *environments()], ids=str)
def test_the_example_finds_the_stacks_by_the_table_alone(python: Path, tmp_path: Path) -> None:
    example = CHECKOUT / "examples" / "read_debug_table.py"
    with target("sleeps", tmp_path, python=python) as one:
        command = [sys.executable, str(example), str(one.pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown = {tuple(line.split()) for line in done.stdout.splitlines() if line.startswith(" ")}
    told = {
        (hex(each["id"]), *(frame["function"] for frame in each["stack"]))
        for thread in one.threads
        for each in thread["greenlets"]
        if each["state"] == "suspended" and each["name"] != "größe"  # it reads ASCII alone
    }
    assert told <= shown
    assert len(shown) == sum(len(thread["greenlets"]) for thread in one.threads)


def test_the_extension_keeps_the_names_of_its_functions() -> None:
    with open(greenlet._greenlet.__file__ or "", "rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert table is not None, "gdb and py-spy would show ?? for each of our functions"
        names = {symbol.name for symbol in table.iter_symbols()}
    assert "greenlet_context_begin" in names


def test_the_program_of_these_tests_is_here() -> None:
    assert PROGRAM.exists()
