"""What profilers and debuggers show of greenlets: with ours, no less than with the published one.

`make test-tools` runs this, and writes the table in docs/internals/ledger.md. Each of the functions
look_with_… runs a tool in an environment, and tells what it has shown.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from debug_session import DebugSession
from environment import PROGRAMS, PUBLISHED, Environment, make_environment
from test_memray import REQUIREMENTS as MEMRAY, report

pytestmark = [pytest.mark.tools, pytest.mark.timeout(900)]

Shown = dict[str, bool]
PROGRAM = PROGRAMS / "seen_greenlets.py"
LINES = PROGRAM.read_text().splitlines()
NOT_RUN = {number for number, line in enumerate(LINES, 1) if "# does not run" in line}
# What each greenlet calls, its outermost function first.
STACKS = ("ping ping_works work", "pong pong_works work", "calls_c called_by_c work")
SEEN = re.compile(r"\b(?:ping|pong|calls_c|called_by_c|waits|fails|sleeps|in_turns|last)\w*\b")
SUSPENDED = "stacks of suspended greenlets"
# Tools that do not show this, with either greenlet.
LIMITS = {
    "py-spy": {SUSPENDED},
    "pystack": {SUSPENDED},
    "debugpy": {SUSPENDED},
    "coverage": {"`concurrency=greenlet`: lines", "`concurrency=greenlet`: branches"},
    "viztracer": {"all calls, to the end of the program", "who calls whom"},
    "yappi": {"without a context backend: who calls whom"},
    "pyinstrument": {"`async_mode=strict`: stacks"},
}


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(LINES, 1) if text in line)


def look_outside(environment: Environment, command: str, *arguments: str | Path) -> str:
    """Run a command that looks at another process, which may be forbidden."""
    try:
        return environment.call(command, *arguments)
    except pytest.fail.Exception as error:
        if re.search("[Pp]ermission|not permitted", str(error)):
            pytest.skip("this machine does not let a process look at another one")
        raise


@contextmanager
def running(environment: Environment, how: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the program in a folder until the block ends."""
    command = [str(environment.python), str(PROGRAM), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "look\n"
            yield process
        finally:
            process.kill()


def look_with_py_spy(environment: Environment, folder: Path) -> Shown:
    with running(environment, "sleeping", folder) as process:
        plain = look_outside(environment, "py-spy", "dump", "--pid", str(process.pid))
        native = look_outside(environment, "py-spy", "dump", "--native", "--pid", str(process.pid))
    with running(environment, "forever", folder) as process:
        options = ("--format", "raw", "--rate", "200", "--duration", "4")
        to = ("--output", folder / "samples", "--pid", str(process.pid))
        look_outside(environment, "py-spy", "record", *options, *to)
    samples = (folder / "samples").read_text().splitlines()
    stacks = {" ".join(re.findall(r"([^ ;]+) \(seen_greenlets", sample)) for sample in samples}
    return {
        "the stack of the greenlet that runs": SEEN.findall(plain) == ["sleeps_deeper", "sleeps"],
        "its native frames, down to greenlet's own": bool(
            re.search(r"time_sleep (.|\n)*sleeps .*\n {4}(?!0x)\S.* \(greenlet/", native)
        ),
        "samples of all greenlets; none mixes two": mixes_nothing(stacks),
        SUSPENDED: "waits" in plain,
    }


def mixes_nothing(stacks: set[str]) -> bool:
    """Whether all greenlets are among these stacks, and each is a beginning of a known one."""
    known = [*STACKS, "fails fails_deeper", f"waits{' waits_deeper' * 4}"]
    known += ["<module> in_turns", "<module> last work"]
    parts = [stack for stack in stacks if any(each.startswith(stack) for each in known)]
    return set(STACKS) <= stacks == set(parts)


def look_with_pystack(environment: Environment, folder: Path) -> Shown:
    with running(environment, "sleeping", folder) as process:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_CORE, (hard, hard))
        plain = look_outside(environment, "pystack", "remote", str(process.pid))
        native = look_outside(environment, "pystack", "remote", "--native-all", str(process.pid))
        process.send_signal(signal.SIGABRT)
        process.wait()
    shown = {
        "the stack of the greenlet that runs": names_of(plain) == "sleeps sleeps_deeper",
        "its native frames, down to greenlet's own": bool(
            re.search(r"in \w+.*_greenlet\S+\.so(.|\n)*in sleeps\n(.|\n)*in time_sleep", native)
        ),
        SUSPENDED: "waits" in plain,
    }
    for core in folder.glob("core*"):  # if the kernel writes it here
        text = look_outside(environment, "pystack", "core", core, environment.python)
        shown["that stack in a core file"] = names_of(text) == "sleeps sleeps_deeper"
    return shown


def names_of(pystack: str) -> str:
    return " ".join(re.findall(r"\(Python\) .* in (\w+)", pystack))


def look_with_memray(environment: Environment, folder: Path) -> Shown:
    found = report(environment, folder / "plain")
    native = report(environment, folder / "native", "--native")
    truth = dict(zip(found.allocating, (24e6, 4e6, 6e6, 12e6, 7e6), strict=True))
    return {
        "bytes, by the function that allocates": all(
            found.functions[name] == pytest.approx(truth[name], rel=0.01) for name in truth
        ),
        "nothing else in the peak": found.peak < sum(truth.values()) + 1e6,
        "`--native`: Python functions in their places": native.joined,
    }


def look_with_coverage(environment: Environment, folder: Path) -> Shown:
    ways = {
        "": "",
        "`concurrency=greenlet`: ": "concurrency = greenlet",
        "`ctrace`: ": "core = ctrace",
    }
    if sys.version_info >= (3, 14):
        ways["`sysmon`: "] = "core = sysmon"
    shown = {}
    for way, setting in ways.items():
        settings, to = folder / "settings", folder / "result.json"
        settings.write_text(f"[run]\nbranch = true\ndata_file = {folder}/data\n{setting}\n")
        under = ("-m", "coverage", "run", f"--rcfile={settings}")
        environment.run(PROGRAM.name, under=under, timeout=60)
        environment.call("coverage", "json", "-q", f"--rcfile={settings}", "-o", to)
        (file,) = json.loads(to.read_text())["files"].values()
        shown[f"{way}lines"] = set(file["missing_lines"]) == NOT_RUN
        shown[f"{way}branches"] = {to for _, to in file["missing_branches"]} <= NOT_RUN
    return shown


def look_with_debugpy(environment: Environment, folder: Path) -> Shown:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listen = ("-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--wait-for-client", PROGRAM)
    with subprocess.Popen([environment.python, "-Xfrozen_modules=off", *listen]) as process:
        try:
            session = DebugSession(port)
            lines = [line_of("    ping_works()"), line_of("raise Value"), line_of("(level - 1)")]
            lines.append(line_of("def called_by_c") + 2)
            session.start(str(PROGRAM), lines)
            deep = [session.stop()] + [session.stop("continue") for _ in range(2)]
            level = session.ask("evaluate", expression="level", frameId=deep[2][0]["id"])
            first = session.stop("continue")
            steps = [session.stop("next")[0]["line"] - lines[0] for _ in range(3)]
            rest = [session.stop("continue") for _ in range(6)]
            session.close()
        finally:
            process.kill()
    stacks = [" ".join(frame["name"] for frame in stack) for stack in (deep[2], first, *rest)]
    from_c, deepest = "called_by_c calls_c", "waits_deeper waits_deeper waits_deeper waits"
    expected = [deepest, "ping", from_c, "fails_deeper fails", "ping", from_c, from_c, ""]
    return {
        "breakpoints in greenlets, with their stacks": stacks == expected,
        "variables": level["result"] == "1",
        "steps over a switch": steps == [1, -1, 0],
        SUSPENDED: any("waits" in stack for stack in stacks[1:]),
    }


def look_with_viztracer(environment: Environment, folder: Path) -> Shown:
    to = folder / "trace.json"
    under = ("-m", "viztracer", "--quiet", "--output_file", str(to))
    environment.run(PROGRAM.name, under=under, timeout=60)
    calls: dict[str, list[tuple[float, float]]] = {}
    for event in json.loads(to.read_text())["traceEvents"]:
        if event["ph"] == "X":
            name = event["name"].split(" ")[0]
            calls.setdefault(name, []).append((event["ts"], event["ts"] + event["dur"]))
    works = calls["ping_works"]
    return {
        "calls that do not switch": all(end - begin >= 10e3 for begin, end in works),
        "calls of `switch()`": len(calls["greenlet.greenlet.switch"]) > 4,
        "all calls, to the end of the program": "last" in calls,
        "who calls whom": not any(
            begin < work[0] < end for begin, end in calls.get("waits", ()) for work in works
        ),
    }


def look_with_yappi(environment: Environment, folder: Path) -> Shown:
    shown = {}
    for backend in ("native_thread", "greenlet"):
        output = environment.run("profiled.py", "yappi", backend, timeout=60)
        found = json.loads(output.splitlines()[-1])
        calls, seconds, callees = (
            {name: entry[k] for name, entry in found["functions"].items()} for k in range(3)
        )
        way = "" if backend == "greenlet" else "without a context backend: "
        direct = [stack.split()[:2] for stack in STACKS]
        counted = calls["work"], calls["pong_works"], calls["ping"]
        shown[f"{way}number of calls"] = counted == (10, 3, 1)
        shown[f"{way}who calls whom"] = all(
            {name for name in callees[outer] if SEEN.fullmatch(name)} == {inner}
            for outer, inner in direct
        )
    close = [seconds[outer] == pytest.approx(seconds[inner], rel=0.2) for outer, inner in direct]
    shown["seconds, without those of other greenlets"] = all(close)
    shown["an entry for each greenlet"] = found["contexts"] == 6
    return shown


def look_with_pyinstrument(environment: Environment, folder: Path) -> Shown:
    shown = {}
    for mode in ("disabled", "enabled", "strict"):
        output = environment.run("profiled.py", "pyinstrument", mode, timeout=60)
        stacks = json.loads(output.splitlines()[-1])
        shown[f"`async_mode={mode}`: stacks"] = mixes_nothing(set(stacks))
    return shown


TOOLS: dict[str, Callable[[Environment, Path], Shown]] = {
    "py-spy": look_with_py_spy,
    "pystack": look_with_pystack,
    "memray": look_with_memray,
    "coverage": look_with_coverage,
    "debugpy": look_with_debugpy,
    "viztracer": look_with_viztracer,
    "yappi": look_with_yappi,
    "pyinstrument": look_with_pyinstrument,
}


def keep(tool: str, version: str, shown: dict[str, Shown]) -> None:
    """Add a tool to the results for the table, if that is asked for."""
    if not (folder := os.environ.get("GREENLET_TOOLS_RESULTS")):
        return
    file = Path(folder) / f"{sys.version_info[0]}.{sys.version_info[1]}.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept[tool] = {"version": version, **shown}
    file.write_text(json.dumps(kept, indent=1) + "\n")


@pytest.mark.skipif(PUBLISHED, reason="GREENLET_INTEROP_WITH=published leaves nothing to compare")
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_shows_no_less_than_with_the_published_greenlet(tool: str, tmp_path: Path) -> None:
    shown: dict[str, Shown] = {}
    requirements = MEMRAY if tool == "memray" else (tool,)
    for side in ("published", "ours"):
        try:
            environment = make_environment(tool, *requirements, published=side == "published")
        except pytest.skip.Exception:
            keep(tool, "", {})
            raise
        (tmp_path / side).mkdir()
        shown[side] = TOOLS[tool](environment, tmp_path / side)
    code = f"from importlib.metadata import version; print(version({tool!r}))"
    keep(tool, environment.call("python", "-c", code).strip(), shown)
    worse = {what for what, is_shown in shown["published"].items() if is_shown}
    assert not {what for what in worse if not shown["ours"][what]}, shown
    assert {what for what in shown["ours"] if not shown["ours"][what]} <= LIMITS.get(tool, set())
