"""``python -m greenlet ps|pstree|count|dump`` where something is against it.

Programs with odd names, that stop, that another greenlet is loaded in, and that answer what they
want; files that are no core files any more; memory that has been overwritten. What cannot be shown
is one sentence, and the program that is looked at notices nothing.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import greenlet
import pytest
from greenlet import _memory, _outside, _reader, _remote, _table, _view, inspect
from helpers import TIME_SCALE, since
from outside import (
    core_of,
    memory_can_be_read,  # noqa: F401, an automatic fixture
    script,
    target,
    told_by_tool,
    tool,
    without_running,
)

SILENT = {"PYTHON_DISABLE_REMOTE_DEBUG": "1"}  # it does not run scripts of others

WAIT = """
import sys, time, greenlet
from greenlet import inspect
def wait(*_): greenlet.getcurrent().parent.switch()
keep = []
def start(g):
    keep.append(g)
    g.switch()
    return g
"""
STAY = """
print("ready", flush=True)
while True: time.sleep(0.001)
"""


def failure_of(*arguments: object) -> str:
    outcome = tool(*arguments)
    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert outcome.stderr.count("\n") == 1, outcome.stderr
    return outcome.stderr.strip()


# --- names ----------------------------------------------------------------------------------------

NAMES = """
class S(str): pass
class Named(greenlet.greenlet):
    def __init__(self, name):
        super().__init__(wait)
        self.__dict__[1] = "of no string"
        self.name = name
def f(): wait()
f.__qualname__ = S("a qualified name of a subclass")
def g(): wait()
g.__code__ = g.__code__.replace(co_qualname=S("code"), co_filename=S("file"))
def h(): wait()
h.__code__ = h.__code__.replace(co_qualname="h" * 2_000_000)
names = ["x" * 3_000_000, "a\\nb\\x1b[31mred\\x9b0m", "lone \\udc80", ""]
names += ["\\U0001f600 \\u4e2d", S("sub")]
for name in names:
    inspect.set_name(start(greenlet.greenlet(wait)), name)
for run in (f, g, h): start(greenlet.greenlet(run))
start(Named(S("an attribute of a subclass")))
start(type("Evil\\x1b[2J\\nClass", (greenlet.greenlet,), {})(wait))
"""
EXPECTED = [
    "x" * (1 << 16) + "…",
    "a\nb\x1b[31mred\x9b0m",
    "lone \\udc80",
    "",
    "\U0001f600 \u4e2d",
    "sub",
    "a qualified name of a subclass",
    "g",
    "h",
    "an attribute of a subclass",
    "wait",
]


def test_names_of_all_kinds_are_read() -> None:
    with script(WAIT + NAMES + STAY, env=SILENT) as pid:
        (thread,) = told_by_tool(pid)
    found = thread["greenlets"][1:]
    assert [one["name"] for one in found] == EXPECTED
    assert all(one["stack"][-1]["function"] == "wait" for one in found)
    code, long = found[7]["stack"][0], found[8]["stack"][0]
    assert (code["function"], code["file"]) == ("code", "file")
    assert long["function"] == "h" * (1 << 16) + "…"


@pytest.mark.parametrize("environment", [{}, SILENT], ids=["asked", "read"])
@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_names_command_no_terminal(command: str, environment: dict[str, str]) -> None:
    thread = "import threading; threading.current_thread().name = 'a\\n\\x1b[31m\\u202eb'\n"
    with script(WAIT + NAMES + thread + STAY, env=environment) as pid:
        shown = tool(command, pid, "--no-group")
        count = tool("count", pid).stdout
        unknown = failure_of(command, pid, "--thread", "x\ny")
    assert (shown.returncode, shown.stderr) == (0, "")
    for text in (*shown.stdout.splitlines(), count.removesuffix("\n"), unknown):
        assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs")], ascii(text)
    assert r"a\nb\x1b[31mred\x9b0m" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) < 1000


def test_a_text_is_printable_on_one_line() -> None:
    assert _view.printable("größe 次 \U0001f600") == "größe 次 \U0001f600"
    assert _view.printable("a\u2028b\udc80\x85\x7f\r\t") == r"a\u2028b\udc80\x85\x7f\r\t"
    assert _view.printable("x" * 300) == "x" * 200 + "…"


def test_parents_in_a_cycle_hide_nothing() -> None:
    """No program has them, but memory that has been overwritten, or that changes."""
    parents = {1: 0, 2: 1, 3: 4, 4: 5, 5: 3, 6: 5, 7: 7}
    greenlets = [
        _view.GreenletView(number, f"name {number}", "greenlet", "suspended", False, parent)
        for number, parent in parents.items()
    ]
    lines = [*_view.format_tree([_view.ThreadView(1, 1, "T", greenlets)], group=False)]
    assert sorted(re.findall(r"name \d", "\n".join(lines))) == [f"name {n}" for n in parents]


def test_output_in_an_encoding_without_these_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    with script(WAIT + NAMES + STAY) as pid:
        shown = tool("pstree", pid)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert r"\u2514\u2500 main" in shown.stdout


def test_a_process_whose_name_is_no_text() -> None:
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff\\xfe')\n"
    with script(WAIT + rename + "start(greenlet.greenlet(wait))" + STAY) as pid:
        assert "2 greenlets" in tool("count", pid).stdout
        assert tool("ps", pid).returncode == 0


# --- the command line -----------------------------------------------------------------------------


def test_numbers_that_are_none_of_a_process(tmp_path: Path) -> None:
    assert failure_of("ps", "0") == "there is no process 0"
    assert failure_of("ps", "-1") == "there is no process -1"
    assert failure_of("ps", "9" * 5000).startswith("there is no process 999")
    assert failure_of("ps", "") == "there is no file"
    for seconds in ("inf", "nan", "1e300"):
        assert failure_of("ps", "1", "--watch", seconds).startswith("--watch takes a number")


def test_files_that_cannot_be_core_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert failure_of("ps", pipe) == f"cannot read {pipe}: It is no regular file"
    compressed = tmp_path / "core.zst"
    compressed.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    assert (
        failure_of("ps", compressed) == f"{compressed} is compressed by zstd: decompress it first"
    )
    assert failure_of("ps", f"{tmp_path}/a\nb") == rf"there is no file {tmp_path}/a\nb"


@pytest.mark.parametrize("output", [">&-", ">/dev/full", "--watch 0.01 >/dev/full", "| true"])
def test_output_that_goes_nowhere(output: str, tmp_path: Path) -> None:
    if "full" in output and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with target("sleeps", tmp_path, env=SILENT) as one:
        done = subprocess.run(
            f"{sys.executable} -m greenlet pstree {one.pid} {output}",
            shell=True,
            capture_output=True,
            text=True,
            timeout=60 * TIME_SCALE,
            check=False,
        )
    assert done.stderr in ("", "cannot write: No space left on device\n")
    assert done.returncode == (1 if "full" in output else 0)


def test_the_number_of_a_thread_means_its_process(tmp_path: Path) -> None:
    with target("sleeps", tmp_path) as one:
        second = one.threads[1]["native_id"]
        assert tool("count", second).stdout == tool("count", one.pid).stdout
        assert tool("ps", second).stdout == tool("ps", one.pid).stdout


# --- processes ------------------------------------------------------------------------------------


def test_a_process_that_is_stopped_is_read(tmp_path: Path) -> None:
    with target("runs", tmp_path) as one:
        os.kill(one.pid, signal.SIGSTOP)
        found = told_by_tool(one.pid)
        assert without_running(found) == without_running(one.threads)
        os.kill(one.pid, signal.SIGCONT)


def test_a_process_that_runs_another_program_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os; print('ready', flush=True); input(); os.execv('/bin/cat', ['cat'])"
    with subprocess.Popen(
        [sys.executable, "-c", WAIT + program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        begin = _memory.Process.__init__

        def then_exec(self: _memory.Process, pid: int) -> None:
            begin(self, pid)
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            ends(lambda: os.readlink(f"/proc/{pid}/exe").endswith(("cat", "busybox", "coreutils")))

        monkeypatch.setattr(_memory.Process, "__init__", then_exec)
        try:
            with pytest.raises(_memory.OutsideError, match="changes too fast to be read"):
                _outside.look(str(process.pid))
        finally:
            process.kill()


def test_a_child_without_exec_shows_its_greenlets() -> None:
    fork = """
import os
for _ in range(3): start(greenlet.greenlet(wait))
child = os.fork()
if child:
    print(child, flush=True)
    os.wait()
    sys.exit()
while True: time.sleep(0.001)
"""
    process = subprocess.Popen([sys.executable, "-c", WAIT + fork], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        shown = tool("pstree", child).stdout
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()
    assert f"thread {child} MainThread, 4 greenlets" in shown
    assert "3 greenlets wait suspended" in shown


def test_the_file_of_the_extension_may_be_gone_or_replaced(tmp_path: Path) -> None:
    shutil.copytree(Path(greenlet.__file__).parent, tmp_path / "greenlet")
    (library,) = (tmp_path / "greenlet").glob("_greenlet*.so")
    begin = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    program = begin + WAIT + "start(greenlet.greenlet(wait))" + STAY
    with script(program, env=SILENT) as pid:
        library.unlink()
        assert "2 greenlets" in tool("count", pid).stdout
        library.write_bytes(random.Random(1).randbytes(1 << 18))
        assert "└─ wait" in tool("pstree", pid).stdout


def test_two_greenlets_in_a_process(tmp_path: Path) -> None:
    """The second one is there, and has no threads of its own: it uses the first one."""
    shutil.copytree(Path(greenlet.__file__).parent, tmp_path / "greenlet")
    again = """
start(greenlet.greenlet(wait))
first = greenlet
for name in [*sys.modules]:
    if name.partition(".")[0] == "greenlet": del sys.modules[name]
sys.path.insert(0, sys.argv[1])
import greenlet
assert greenlet is not first
start(greenlet.greenlet(wait))
"""
    for environment in ({}, SILENT):
        with script(WAIT + again + STAY, str(tmp_path), env=environment) as pid:
            assert len(_table.Table.all_in(_memory.Process(pid))) == 2
            shown = tool("pstree", pid)
            assert (shown.returncode, shown.stderr) == (0, "")
            assert "2 greenlets wait suspended" in shown.stdout


def test_tables_of_several_modules_are_apart() -> None:
    process = _memory.Process(os.getpid())
    addresses = sorted(process.addresses_of(_table.MAGIC))
    sizes = {
        address: int.from_bytes(process.read(address + 20, 4), "little") for address in addresses
    }
    blocks = {address: process.read(address, size) for address, size in sizes.items()}

    class Twice(_memory.Memory):
        what = "this"

        def read(self, address: int, size: int) -> bytes:
            for start, block in blocks.items():
                for shift in (0, 1 << 40):
                    if start + shift <= address < start + shift + len(block):
                        moved = bytearray(block)
                        moved[32:40] = (start + shift).to_bytes(8, "little")
                        return bytes(moved[address - start - shift :][:size])
            raise _memory.UnreadableError(address)

        def addresses_of(self, pattern: bytes) -> Any:
            return iter([address + shift for shift in (1 << 40, 0) for address in addresses])

    process.close()
    first, second = _table.Table.all_in(Twice())
    assert first.entries == second.entries


@since("sys.remote_exec")
def test_greenlets_of_other_interpreters_are_shown() -> None:
    program = """
import _interpreters, threading
start(greenlet.greenlet(wait))
source = '''
import greenlet, time
def in_another_interpreter(): greenlet.getcurrent().parent.switch()
g = greenlet.greenlet(in_another_interpreter)
g.switch()
print("ready", flush=True)
time.sleep(1000)
'''
other = _interpreters.create("legacy")
threading.Thread(target=_interpreters.exec, args=(other, source), daemon=True).start()
while True: time.sleep(0.001)
"""
    with script(WAIT + program) as pid:
        shown = tool("pstree", pid)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "in_another_interpreter 0x" in shown.stdout
        assert "wait 0x" in shown.stdout
        some = tool("pstree", pid, "--locals")  # which interpreter tells, if any, is not known
    assert some.returncode == 1
    assert some.stderr.count("\n") == 1


# --- questions ------------------------------------------------------------------------------------

BUSY = """
import hashlib
print("ready", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", int(sys.argv[1]))
while True: time.sleep(0.001)
"""


def ends(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20 * TIME_SCALE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def questions(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if each.name.startswith(_remote.PREFIX)]


@since("sys.remote_exec")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_who_asks_may_end_before_the_answer(by: int, tmp_path: Path) -> None:
    """The process finds its script and runs it, or it would complain on its stderr."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT + BUSY, "8000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    asking = subprocess.Popen(
        [sys.executable, "-m", "greenlet", "ps", str(process.pid)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ends(lambda: bool([*tmp_path.glob("*/script.py")]))
        time.sleep(0.1)
        asking.send_signal(by)
        asking.wait(10 * TIME_SCALE)
        ends(lambda: not questions(tmp_path))
        time.sleep(0.1)
    finally:
        asking.kill()
        process.kill()
        _, complaints = process.communicate()
    assert complaints == ""


@since("sys.remote_exec")
def test_a_process_in_which_greenlet_is_hidden_says_so_at_once() -> None:
    hide = """
start(greenlet.greenlet(wait))
for name in [*sys.modules]:
    if name.partition(".")[0] == "greenlet": del sys.modules[name]
"""
    with script(WAIT + hide + STAY) as pid:
        begin = time.monotonic()
        assert "wait suspended" in re.sub(" 0x[0-9a-f]+", "", tool("pstree", pid).stdout)
        assert time.monotonic() - begin < 10 * TIME_SCALE


@since("sys.remote_exec")
@pytest.mark.parametrize("event", ["open", "os.", "import", "cpython.remote_debugger_script"])
def test_a_process_whose_audit_hook_refuses_is_read(event: str) -> None:
    hook = f"""
start(greenlet.greenlet(wait))
def hook(name, arguments):
    if name.startswith({event!r}): raise BaseException("refused")
sys.addaudithook(hook)
"""
    with script(WAIT + hook + STAY) as pid:
        assert "wait suspended" in re.sub(" 0x[0-9a-f]+", "", tool("pstree", pid).stdout)


@since("sys.remote_exec")
@pytest.mark.parametrize("where", ["missing", "long", "bytes", "file"])
def test_folders_for_questions_that_do_not_serve(where: str, tmp_path: Path) -> None:
    folder = (
        os.fsencode(tmp_path)
        + {
            "missing": b"/missing",
            "long": b"/" + b"/".join([b"d" * 200] * 3),
            "bytes": b"/\xff'\"\\{}",
            "file": b"/file",
        }[where]
    )
    if where in ("long", "bytes"):
        os.makedirs(folder)
    elif where == "file":
        (tmp_path / "file").touch()
    with script(WAIT + "start(greenlet.greenlet(wait))" + STAY) as pid:
        done = subprocess.run(
            [sys.executable, "-m", "greenlet", "pstree", str(pid)],
            env={**os.environb, b"TMPDIR": folder},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "wait 0x" in done.stdout


def asked_of(answer: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is made of an answer, of this process, that the user of a process may have made up."""
    monkeypatch.setattr(
        sys, "remote_exec", lambda pid, script: answer(Path(script).parent), raising=False
    )
    monkeypatch.setattr(_remote, "PATIENCE", 0.05)
    begin = time.monotonic()
    found = _remote.ask(os.getpid())
    assert time.monotonic() - begin < 10 * TIME_SCALE
    return found


GOOD = [
    [["f", "file", 1, [["a", "1"]]]],
    [[1, 2, "T", [[3, "n", "c", "running", 1, 0, [0], 5, []]]]],
]


def test_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = asked_of(lambda at: (at / "answer").write_text(json.dumps(GOOD)), monkeypatch)
    assert found == [
        _view.ThreadView(
            1,
            2,
            "T",
            [
                _view.GreenletView(
                    3,
                    "n",
                    "c",
                    "running",
                    True,
                    0,
                    (_view.FrameView("f", "file", 1, (("a", "1"),)),),
                    5,
                )
            ],
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "1",
        "[]",
        "[1, 2]",
        "[[], [1]]",
        "[" * 100_000,
        json.dumps(GOOD).replace("[0]", "[7]"),
        json.dumps(GOOD).replace("3,", "{},"),
        json.dumps(GOOD).replace('[["a", "1"]]', "7"),
        "[[], [[1, 2, 3, " + "1" * 10_000 + "]]]",
        "\0\xff",
    ],
)
def test_answers_that_are_none(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = text.encode("latin-1")
    assert asked_of(lambda at: (at / "answer").write_bytes(data), monkeypatch) is None
    assert questions(tmp_path) == []


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "huge", "device"])
def test_answers_that_are_no_files(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(json.dumps(GOOD))

    def answer(at: Path) -> None:
        if kind == "pipe":
            os.mkfifo(at / "answer")
        elif kind == "link":
            (at / "answer").symlink_to(elsewhere)
        elif kind == "folder":
            (at / "answer").mkdir()
        elif kind == "huge":
            with open(at / "answer", "wb") as file:
                file.truncate(1 << 40)
        else:
            os.mknod(at / "answer", 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero

    try:
        assert asked_of(answer, monkeypatch) is None
    except PermissionError:
        pytest.skip("only root makes devices")
    assert elsewhere.read_text() == json.dumps(GOOD)


def test_nothing_is_made_where_a_link_points_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """root may look at a process of a user, who owns the folder then."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))

    def replace(at: Path) -> None:
        at.rename(tmp_path / "renamed")
        (tmp_path / "victim").mkdir()
        at.symlink_to(tmp_path / "victim")

    assert asked_of(replace, monkeypatch) is None
    assert [*(tmp_path / "victim").iterdir()] == []

    def link(at: Path) -> None:
        for name in ("begun", "cancelled", "failure"):
            (at / name).symlink_to(tmp_path / name)

    assert asked_of(link, monkeypatch) is None
    assert not any((tmp_path / name).exists() for name in ("begun", "cancelled", "failure"))


def test_what_is_left_of_questions_is_removed_when_nobody_comes_to_it_any_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gone, here, own = 2**22 + 1, os.getppid(), os.getpid()
    for name in (f"{gone}-{gone}-a", f"{own}-{gone}-b", f"{here}-{gone}-c", f"{own}-{here}-d", "x"):
        (tmp_path / f"{_remote.PREFIX}{name}").mkdir()
    assert asked_of(lambda at: (at / "failure").touch(), monkeypatch) is None
    left = {name.removeprefix(_remote.PREFIX) for name in questions(tmp_path)}
    assert left == {f"{here}-{gone}-c", f"{own}-{here}-d", "x"}


@since("sys.remote_exec")
def test_a_process_is_not_asked_when_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    with script(WAIT + "for _ in range(50): start(greenlet.greenlet(wait))" + STAY) as pid:
        assert _outside.look(str(pid)).has_answered
        monkeypatch.setattr(_outside, "MOST_ASKED", 49)
        found = _outside.look(str(pid))
        assert not found.has_answered
        assert len(found.threads[0].greenlets) == 51
        assert _outside.look(str(pid), variables=True).has_answered


@since("sys.remote_exec")
def test_many_looks_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = """
import gc, os
for _ in range(20): start(greenlet.greenlet(wait))
print("ready", flush=True)
while True:
    time.sleep(0.001)
    if os.path.exists(sys.argv[1]):
        gc.collect()
        with open(sys.argv[1] + ".part", "w") as file:
            files = os.listdir("/proc/self/fd")
            print(len(gc.get_objects()), len(sys.modules), len(files), file=file)
        os.rename(sys.argv[1] + ".part", sys.argv[1] + ".told")
        os.unlink(sys.argv[1])
"""
    question = tmp_path / "question"

    def state() -> list[int]:
        told = tmp_path / "question.told"
        question.touch()
        ends(lambda: told.exists() and not question.exists())
        found = [*map(int, told.read_text().split())]
        told.unlink()
        return found

    with script(WAIT + program, str(question)) as pid:
        for _ in range(10):
            assert _outside.look(str(pid)).has_answered
        before = state()
        for _ in range(100):
            assert _outside.look(str(pid)).has_answered
        after = state()
    assert after[1:] == before[1:]
    assert abs(after[0] - before[0]) < 50
    assert questions(tmp_path) == []


def test_values_are_shown_in_short() -> None:
    class Evil:
        def __repr__(self) -> str:
            raise SystemExit

    def f() -> None:
        a: list[Any] = [1]
        a.append(a)
        b, c, d = "x" * 10_000_000, dict.fromkeys(range(10_000_000)), bytes(10_000_000)
        e, g, h = (1,), {"k": [[[[1]]]]}, frozenset({2})
        i = Evil()
        j: set[int] = set()
        greenlet.getcurrent().parent.switch()  # type: ignore[union-attr]
        del a, b, c, d, e, g, h, i, j

    one = greenlet.greenlet(f)
    one.switch()
    begin = time.monotonic()
    view = next(
        each
        for thread in inspect.snapshot(variables=True)
        for each in thread.greenlets
        if each.id == id(one)
    )
    assert time.monotonic() - begin < 1 * TIME_SCALE
    shown = dict(view.stack[-1].variables)
    one.switch()
    assert shown["a"] == "[1, [1, [1, […]]]]"
    assert shown["b"] == "'" + "x" * 199 + "…"
    assert shown["c"].startswith("{0: None, 1: None, ")
    assert len(shown["d"]) == 201
    assert (shown["e"], shown["g"], shown["h"]) == ("(1,)", "{'k': [[[…]]]}", "frozenset({2})")
    assert (shown["i"], shown["j"]) == ("<repr() raised SystemExit>", "set()")


# --- core files -----------------------------------------------------------------------------------


def test_a_core_file_without_memory_says_so(tmp_path: Path) -> None:
    program = """
import os, resource
start(greenlet.greenlet(wait))
with open("/proc/self/coredump_filter", "w") as file: file.write("0x10")
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
os.abort()
"""
    subprocess.run([sys.executable, "-c", WAIT + program], cwd=tmp_path, check=False)
    cores = [*tmp_path.glob("core*")]
    if not cores:
        pytest.skip("the kernel does not write core files into this folder")
    assert failure_of("ps", cores[0]).startswith(
        f"core file {cores[0]} lacks the memory of greenlet: it was cut off"
    )


def test_files_that_have_been_replaced_since_are_not_read(tmp_path: Path) -> None:
    """Class names and texts of C code are in the file of the extension, not in the core file."""
    shutil.copytree(Path(greenlet.__file__).parent, tmp_path / "greenlet")
    (library,) = (tmp_path / "greenlet").glob("_greenlet*.so")
    program = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
{WAIT}
import os, resource
start(greenlet.greenlet(wait))
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
os.abort()
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    cores = [*tmp_path.glob("core*")]
    if not cores:
        pytest.skip("the kernel does not write core files into this folder")
    before = told_by_tool(cores[0])
    data = bytearray(library.read_bytes())
    # Another release: other headers, and other texts.
    data[4000:4096] = b"\1" * 96
    data[4096:] = data[4096:].replace(b"greenlet", b"tellneer")
    library.write_bytes(data)
    assert told_by_tool(cores[0]) == before


class Damaged(_memory.CoreFile):
    """A core file in which some words are others."""

    seed = 0
    rate = 0.0

    def read(self, address: int, size: int) -> bytes:
        data = super().read(address, size)
        if not self.rate or size > 10_000:
            return data
        found = bytearray(data)
        first = address // 8
        for word in range(first, (address + size - 1) // 8 + 1):
            chance = random.Random(word * 1_000_003 + self.seed)
            if chance.random() < self.rate:
                value = self.other(chance).to_bytes(8, "little")
                for index in range(8):
                    if 0 <= (at := word * 8 + index - address) < size:
                        found[at] = value[index]
        return bytes(found)

    def other(self, chance: random.Random) -> int:
        start = chance.choice(self.segments).start
        choices = (0, 1 << 63, 2**64 - 1, start, start + 1, start + 8 * chance.randrange(99), 255)
        return chance.choice((*choices, chance.getrandbits(64), chance.getrandbits(40)))


def test_overwritten_memory_never_breaks_the_reader(tmp_path: Path) -> None:
    core, threads = core_of(tmp_path)
    count = sum(len(thread["greenlets"]) for thread in threads)
    memory = Damaged(str(core))
    shown = 0
    for seed in range(60):
        memory.seed, memory.rate = seed, 0.0
        begin = time.monotonic()
        reader = None if seed % 3 == 0 else _reader.Reader(memory)  # or the table is damaged, too
        memory.rate = (0.0001, 0.001, 0.01)[seed // 3 % 3]
        try:
            reader = reader or _reader.Reader(memory)
            found = reader.snapshot()
        except (_memory.OutsideError, *_table.DAMAGE):
            continue
        lines = [*_view.format_tree(found), *_view.format_list(found)]
        assert not any("\n" in line for line in lines)
        json.dumps(_view.as_json(found))
        shown += sum(len(thread.greenlets) for thread in found)
        assert time.monotonic() - begin < 5 * TIME_SCALE
    assert shown > 20 * count


def test_one_damaged_greenlet_does_not_hide_the_others(tmp_path: Path) -> None:
    core, threads = core_of(tmp_path)
    memory = _memory.CoreFile(str(core))
    reader = _reader.Reader(memory)
    first = reader.threads()[0]
    block = reader.started(first)[3]
    field = block + reader.table["greenlet.object"]
    segment = memory._segment_of(field)
    assert segment is not None
    with open(core, "r+b") as file:
        file.seek(segment.offset + field - segment.start)
        file.write(b"\x11" * 8)
    outcome = tool("dump", core)
    assert outcome.returncode == 1
    assert "does not fit together in 1 places: it is damaged, and a part is shown" in outcome.stderr
    found = json.loads(outcome.stdout)
    expected = sum(len(thread["greenlets"]) for thread in threads)
    assert sum(len(thread["greenlets"]) for thread in found) == expected - 1
