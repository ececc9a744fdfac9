"""Running scripts of behaviour on an interpreter, and reading what they declare.

Nothing here imports `greenlet` or a script. Names and deviations are read from the syntax tree. The
scripts run in child processes, with each of the two greenlets.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = FOLDER / "scripts"
CHECKOUT = FOLDER.parent.parent

#: For one script with all its behaviours, and for one behaviour alone.
SCRIPT_TIME_LIMIT = 300
BEHAVIOUR_TIME_LIMIT = 60

#: Prints what an interpreter is called (`3.14t`, `3.15-debug`) and which greenlet it imports.
_QUESTION = """
import sys, sysconfig
name = "%d.%d" % sys.version_info[:2]
name += "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
name += "-debug" if hasattr(sys, "gettotalrefcount") else ""
print(name)
import importlib.util
print(importlib.util.find_spec("greenlet.stacks") is not None)
import greenlet
print(greenlet.__version__)
"""


class CannotCompare(Exception):
    """An interpreter is missing, or has another name or greenlet than expected."""


@dataclass(frozen=True)
class Interpreter:
    """A python with a module named `greenlet`."""

    path: Path
    name: str
    is_ours: bool
    version: str

    @property
    def release_name(self) -> str:
        """The name of the same interpreter built without debugging."""
        return self.name.removesuffix("-debug")


@dataclass(frozen=True)
class Deviation:
    """A `Deviation` of behaviour.py, read from the script."""

    reason: str
    ours: tuple[str, ...]
    published: tuple[str, ...]
    on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Behaviour:
    """One behaviour as its script declares it."""

    script: str
    name: str
    deviations: tuple[Deviation, ...]

    @property
    def id(self) -> str:
        return f"{self.script}.{self.name}"

    def deviation_on(self, interpreter: str) -> Deviation | None:
        """The deviation that concerns an interpreter; the script declares one at most."""
        for deviation in self.deviations:
            if not deviation.on or interpreter in deviation.on:
                return deviation
        return None


def _deviations_of(decorator: ast.expr) -> tuple[Deviation, ...]:
    if not isinstance(decorator, ast.Call):
        return ()
    declared = next(word.value for word in decorator.keywords if word.arg == "deviations")
    if not isinstance(declared, ast.Tuple):
        raise ValueError("deviations must be written as a tuple")
    found = []
    for call in declared.elts:
        if not isinstance(call, ast.Call):
            raise ValueError("each deviation must be written as a call")
        found.append(
            Deviation(**{word.arg or "": ast.literal_eval(word.value) for word in call.keywords})
        )
    return tuple(found)


def behaviours_of(script: Path) -> list[Behaviour]:
    """What a script declares, in its order."""
    found = []
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if isinstance(called, ast.Name) and called.id == "behaviour":
                found.append(Behaviour(script.stem, node.name, _deviations_of(decorator)))
    return found


def all_scripts() -> list[Path]:
    return sorted(SCRIPTS.glob("*.py"))


def all_behaviours() -> list[Behaviour]:
    return [behaviour for script in all_scripts() for behaviour in behaviours_of(script)]


def environment() -> dict[str, str]:
    """An environment in which nothing outside the interpreter's own folders is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def identify(path: Path) -> Interpreter:
    """Ask a python for its name and its greenlet."""
    path = path.absolute()  # do not resolve the link: by it Python finds its virtual environment
    try:
        answer = subprocess.run(
            [path, "-c", _QUESTION],
            capture_output=True,
            text=True,
            timeout=BEHAVIOUR_TIME_LIMIT,
            env=environment(),
            cwd=FOLDER,
            check=True,
        ).stdout.split()
    except FileNotFoundError:
        raise CannotCompare(f"there is no interpreter {path}") from None
    except subprocess.CalledProcessError as error:
        raise CannotCompare(f"{path} cannot import greenlet:\n{error.stderr}") from None
    return Interpreter(path, answer[0], answer[1] == "True", answer[2])


@cache
def ours() -> Interpreter:
    """The interpreter under test: `GREENLET_TEST_PYTHON`, or the one that runs the tests."""
    found = identify(Path(os.environ.get("GREENLET_TEST_PYTHON") or sys.executable))
    if not found.is_ours:
        raise CannotCompare(f"{found.path} imports greenlet {found.version}, which is not ours")
    return found


@cache
def published() -> Interpreter:
    """The interpreter with the published wheel.

    `GREENLET_PUBLISHED_PYTHON`, or the environment of the same interpreter in `.venvs`; that of the
    release build serves a debug build.
    """
    given = os.environ.get("GREENLET_PUBLISHED_PYTHON")
    tested = ours()
    names = dict.fromkeys((tested.name, tested.release_name))
    places = [Path(given)] if given else [_environment_of(name) for name in names]
    for path in places:
        if given or path.exists():
            found = identify(path)
            break
    else:
        raise CannotCompare(
            f"no environment with the published greenlet for {tested.name}: make one with "
            f"`make test WHAT=contract NAME={tested.release_name}`, or name its python "
            "in GREENLET_PUBLISHED_PYTHON"
        )
    if found.is_ours:
        raise CannotCompare(f"{found.path} has our greenlet, not the published one")
    if found.release_name != tested.release_name:
        raise CannotCompare(f"{found.path} is {found.name}, but {tested.name} is under test")
    return found


def _environment_of(name: str) -> Path:
    return CHECKOUT / ".venvs" / f"{name}-published" / "bin" / "python"


@dataclass(frozen=True)
class Run:
    """The run of one script: a transcript for each behaviour, and how the process ended."""

    transcripts: dict[str, tuple[str, ...]]
    ending: str
    complaints: str


def _execute(interpreter: Interpreter, script: str, names: list[str], limit: float) -> Run:
    """Run a script, or some behaviours of it, and cut its output into transcripts."""
    command = [str(interpreter.path), "-m", f"scripts.{script}", *names]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=limit,
            env=environment(),
            cwd=FOLDER,
            check=False,
        )
        output, complaints, ending = done.stdout, done.stderr, _ending(done.returncode)
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="backslashreplace")
        complaints = (error.stderr or b"").decode(errors="backslashreplace")
        ending = "<hangs>"
    lines: dict[str, list[str]] = {}
    for line in output.splitlines():
        name, _, text = line.partition(": ")
        lines.setdefault(name, []).append(text)
    return Run({name: tuple(texts) for name, texts in lines.items()}, ending, complaints)


def _ending(code: int) -> str:
    if code == 0:
        return ""
    if code == 3:
        return "<hangs>"
    return f"<ends with {signal.Signals(-code).name if code < 0 else code}>"


@cache
def run_script(interpreter: Interpreter, script: str) -> Run:
    """Run all behaviours of a script in one process.

    If that process does not end well, each behaviour runs again in a process of its own. So one
    crash costs one transcript; the last line of the transcript says how the process ended.
    """
    together = _execute(interpreter, script, [], SCRIPT_TIME_LIMIT)
    if not together.ending:
        return together
    transcripts = {}
    for behaviour in behaviours_of(SCRIPTS / f"{script}.py"):
        alone = _execute(interpreter, script, [behaviour.name], BEHAVIOUR_TIME_LIMIT)
        said = alone.transcripts.get(behaviour.name, ())
        transcripts[behaviour.name] = (*said, alone.ending) if alone.ending else said
    return Run(transcripts, together.ending, together.complaints)


def transcript(interpreter: Interpreter, behaviour: Behaviour) -> tuple[str, ...]:
    """What a behaviour says on an interpreter."""
    return run_script(interpreter, behaviour.script).transcripts.get(behaviour.name, ())
