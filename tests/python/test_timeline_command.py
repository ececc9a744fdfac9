"""python -m greenlet trace: a program runs as it does without it, and leaves a timeline."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import TIME_SCALE

SWITCHES = """
from greenlet import getcurrent, greenlet
def work():
    getcurrent().parent.switch()
g = greenlet(work)
g.switch()
g.switch()
"""


class Done(NamedTuple):
    status: int
    stdout: str
    stderr: str


def python(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> Done:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60 * TIME_SCALE,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def trace(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> Done:
    return python("-m", "greenlet", "trace", "-q", *arguments, cwd=cwd, env=env)


def written(folder: Path, name: str = "x.json") -> int:
    """How many switches the recording has that was saved."""
    with open(folder / name, encoding="utf-8") as file:
        switches: int = json.load(file)["otherData"]["switches"]
    return switches


def write(folder: Path, source: str, name: str = "program.py") -> str:
    (folder / name).write_text(textwrap.dedent(source))
    return name


def test_a_program_sees_what_it_sees_without_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    program = write(
        tmp_path,
        """
        import beside, sys
        print(sys.argv, sys.path[0], __name__, __file__, __package__, __spec__, beside.__name__)
        print(sorted(vars()), type(__loader__).__name__)
        print(sys.modules["__main__"].__dict__ is globals())
        import multiprocessing.process
        """,
        "sub/program.py",
    )
    write(tmp_path, "", "sub/beside.py")
    arguments = [program, "-o", "--limit", "--", "x", "-m"]
    plain = python(*arguments, cwd=tmp_path)
    assert plain.status == 0, plain.stderr
    traced = trace("-o", "x.json", *arguments, cwd=tmp_path)
    assert traced == plain


def test_a_module_sees_what_it_sees_without_it(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    write(tmp_path, "", "package/__init__.py")
    write(
        tmp_path,
        """
        import sys
        from . import __name__ as parent
        print(sys.argv, sys.path[0], __name__, __file__, __package__, __spec__.name, parent)
        """,
        "package/program.py",
    )
    for module in ("package.program", "package.missing", "package"):
        plain = python("-m", module, "a", "-b", cwd=tmp_path)
        traced = trace("-o", "x.json", "-m", module, "a", "-b", cwd=tmp_path)
        assert traced == plain
    assert (tmp_path / "x.json").exists()


def test_a_folder_with_a_main_module_is_a_program(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    write(tmp_path, "import sys; print(sys.argv, sys.path[0], __name__)", "app/__main__.py")
    assert trace("-o", "x.html", "app", "1", cwd=tmp_path) == python("app", "1", cwd=tmp_path)


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "raise SystemExit",
        "raise SystemExit(3)",
        "raise SystemExit('a text')",
        "import sys; sys.exit(True)",
        "1 / 0",
        "def f(): raise KeyError('x')\nf()",
        "raise KeyboardInterrupt",
        "import os; os._exit(7)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM); import time; time.sleep(9)",
        "import threading\nthreading.Thread(target=lambda: greenlet(work).switch()).start()\n1 / 0",
        "import atexit; atexit.register(lambda: print('at exit'))",
        "import sys; sys.excepthook = lambda *args: print('hook', args[0], args[2].tb_lineno)\n1/0",
    ],
)
def test_the_exit_status_and_the_output_are_the_same(ending: str, tmp_path: Path) -> None:
    program = write(tmp_path, f"{SWITCHES}\n{ending}\n")
    plain = python(program, cwd=tmp_path)
    traced = trace("-o", "x.json", program, cwd=tmp_path)
    assert traced == plain
    assert written(tmp_path) >= 4


def test_a_syntax_error_is_told_as_usual(tmp_path: Path) -> None:
    program = write(tmp_path, "a = (\n")
    assert trace("-o", "x.json", program, cwd=tmp_path) == python(program, cwd=tmp_path)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    plain = python("missing.py", cwd=tmp_path)
    assert trace("-o", "x.json", "missing.py", cwd=tmp_path) == plain
    assert plain.status == 2


def test_threads_that_outlive_the_main_module_are_recorded(tmp_path: Path) -> None:
    program = write(
        tmp_path,
        f"""
        import threading, time
        def later():
            time.sleep(0.2)
            exec({SWITCHES!r}, dict())
        threading.Thread(target=later).start()
        """,
    )
    assert trace("-o", "x.json", program, cwd=tmp_path) == (0, "", "")
    assert written(tmp_path) == 4


def test_children_of_the_program_do_not_write_the_file(tmp_path: Path) -> None:
    program = write(
        tmp_path,
        f"""
        import os, sys, warnings
        warnings.simplefilter("ignore")
        {SWITCHES.replace(chr(10), chr(10) + " " * 8)}
        for leave in (sys.exit, os._exit):
            child = os.fork()
            if child == 0:
                leave(5)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
            assert not os.path.exists("x.json")
        """,
    )
    assert trace("-o", "x.json", program, cwd=tmp_path) == (0, "", "")
    assert written(tmp_path) == 4


def test_processes_of_multiprocessing_work(tmp_path: Path) -> None:
    program = write(
        tmp_path,
        f"""
        {SWITCHES.replace(chr(10), chr(10) + " " * 8)}
        import multiprocessing
        def double(value):
            return 2 * value
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(double, [1, 2]))
        """,
    )
    assert trace("-o", "x.json", program, cwd=tmp_path) == (0, "[2, 4]\n", "")
    assert written(tmp_path) == 4


def test_a_server_is_ended_by_a_signal(tmp_path: Path) -> None:
    program = write(
        tmp_path,
        f"{SWITCHES}\nimport time\nprint('ready', flush=True)\nwhile True: time.sleep(0.01)\n",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(
            [sys.executable, "-m", "greenlet", "trace", "-q", "-o", "x.json", program],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Jobs in the background of a shell ignore it.
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(number)
            assert process.wait(60 * TIME_SCALE) == -number
        assert written(tmp_path) == 4
        (tmp_path / "x.json").unlink()


def test_the_default_is_a_page_named_after_the_program(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    program = write(tmp_path, SWITCHES, "sub/program.py")
    done = python("-m", "greenlet", "trace", program, cwd=tmp_path)
    assert (done.status, done.stdout) == (0, "")
    assert (tmp_path / "program-timeline.html").exists()
    assert "4 switches of 2 greenlets in 1 thread" in done.stderr
    assert "recording took about" in done.stderr
    assert "program-timeline.html has" in done.stderr


def test_several_files_and_a_changed_directory(tmp_path: Path) -> None:
    program = write(tmp_path, f"import os; os.chdir('/')\n{SWITCHES}")
    assert trace("-o", "a.html", "-o", "b.json", program, cwd=tmp_path) == (0, "", "")
    assert (tmp_path / "a.html").exists()
    assert written(tmp_path, "b.json") == 4


def test_the_limit_is_told(tmp_path: Path) -> None:
    program = write(tmp_path, f"{SWITCHES}\nfor _ in range(500): greenlet(len).switch('')\n")
    done = python("-m", "greenlet", "trace", "--limit", "100", program, cwd=tmp_path)
    assert done.status == 0
    assert "the limit was reached after" in done.stderr
    assert "later switches are not in the recording" in done.stderr


@pytest.mark.parametrize(
    "options",
    [["-o", "x.txt"], ["-o", "missing/x.html"], ["--limit", "0"], ["--limit", "x"], ["-o", "."]],
)
def test_wrong_options_end_before_the_program_begins(options: list[str], tmp_path: Path) -> None:
    program = write(tmp_path, "print('begun')")
    done = trace(*options, program, cwd=tmp_path)
    assert (done.status, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) >= 1


def test_a_program_that_records_itself(tmp_path: Path) -> None:
    program = write(
        tmp_path,
        f"""
        from greenlet import timeline
        try:
            timeline.start()
        except RuntimeError as error:
            print(error)
        {SWITCHES.replace(chr(10), chr(10) + " " * 8)}
        timeline.stop()
        """,
    )
    done = trace("-o", "x.json", program, cwd=tmp_path)
    assert done.stdout == "a recording of switches is running already\n"
    assert done.stderr == "greenlet trace: nothing is saved: no recording of switches is running\n"
    assert done.status == 0


def test_a_disk_that_is_full_is_told(tmp_path: Path) -> None:
    program = write(tmp_path, SWITCHES)
    (tmp_path / "full.json").symlink_to("/dev/full")
    done = trace("-o", "full.json", program, cwd=tmp_path)
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.status == 0


def test_a_program_may_trace_another_one(tmp_path: Path) -> None:
    write(tmp_path, SWITCHES, "inner.py")
    program = write(
        tmp_path,
        f"""
        import subprocess, sys
        {SWITCHES.replace(chr(10), chr(10) + " " * 8)}
        command = [sys.executable, "-m", "greenlet", "trace", "-q", "-o", "inner.json", "inner.py"]
        assert subprocess.run(command).returncode == 0
        g = greenlet(len)
        g.switch("")
        """,
    )
    assert trace("-o", "x.json", program, cwd=tmp_path) == (0, "", "")
    assert written(tmp_path) == 6
    assert written(tmp_path, "inner.json") == 4
