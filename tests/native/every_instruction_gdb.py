"""Run inside gdb: steps through switches one instruction at a time, with a backtrace at each.
Then through a call on the stack of a suspended context.

At every instruction, whichever stack the processor is on by then, the backtrace must name the
functions of that side and end cleanly: at main, or at the outermost frame of a context.

GREENLET_EMULATOR is the command of the emulator (qemu-user) that runs programs of another
architecture, if it is one.
"""

import os
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

import gdb


def numbered(letter: str, first: int, last: int) -> tuple[str, ...]:
    """Names of registers with consecutive numbers."""
    return tuple(f"{letter}{number}" for number in range(first, last + 1))


# Callee-saved registers that have a name in gdb, by the beginning of the architecture's name there.
CALLEE_SAVED = {
    "i386:x86-64": ("rbx", "rbp", "r12", "r13", "r14", "r15", "rsp", "rip"),
    "i386": ("ebx", "ebp", "esi", "edi", "esp", "eip"),
    "aarch64": (*numbered("x", 19, 29), "sp", "pc"),
    "arm": (*numbered("r", 4, 11), "sp", "pc"),
    "riscv": ("fp", *numbered("s", 1, 11), "sp", "pc"),
    "powerpc": (*numbered("r", 14, 31), "r1", "pc"),
    "s390": (*numbered("r", 6, 13), "r15", "pc"),
    "Loongarch": (*numbered("r", 22, 31), "r3", "pc"),
}
SWITCHES = 6


def backtrace() -> list[str]:
    """Name the functions on the stack, innermost first."""
    names = []
    frame = gdb.newest_frame()
    while frame is not None:
        names.append(frame.name() or "?")
        if frame.unwind_stop_reason() not in (
            gdb.FRAME_UNWIND_NO_REASON,
            gdb.FRAME_UNWIND_OUTERMOST,
        ):
            reason = gdb.frame_stop_reason_string(frame.unwind_stop_reason())
            raise gdb.GdbError(f"{names}: {reason}")
        if len(names) > 50:
            raise gdb.GdbError(f"endless: {names}")
        frame = frame.older()
    return names


def side(names: list[str]) -> str:
    """The side that a backtrace belongs to: "inside" a context or "outside"."""
    if names[-1] == "greenlet_context_begin":
        # A context that begins is not yet in any function of ours.
        if len(names) > 2 and not any("inside" in name or "enter" in name for name in names):
            raise gdb.GdbError(f"lost inside: {names}")
        return "inside"
    if "main" in names and any("outside" in name for name in names):
        return "outside"
    raise gdb.GdbError(f"ends nowhere: {names}")


def registers(frame: gdb.Frame) -> list[int]:
    """What the unwind information says that `frame` has in its registers."""
    architecture = frame.architecture().name()
    names = next(CALLEE_SAVED[name] for name in CALLEE_SAVED if architecture.startswith(name))
    return [int(frame.read_register(name)) for name in names]


def start() -> None:
    """Start the program, and stop at the first breakpoint."""
    emulator = shlex.split(os.environ.get("GREENLET_EMULATOR", ""))
    if not emulator:
        gdb.execute("run")
        return
    socket = Path(tempfile.mkdtemp()) / "gdb"
    program = gdb.current_progspace().filename
    subprocess.Popen([emulator[0], "-g", socket, *emulator[1:], program])
    while not socket.exists():
        time.sleep(0.01)
    gdb.execute(f"set sysroot {emulator[-1]}")
    gdb.execute(f"target remote {socket}")
    gdb.execute("continue")


def step_through_switch() -> int:
    """Step from the first instruction of a switch to the first after it."""
    seen: list[tuple[str, list[int]]] = []
    while gdb.newest_frame().name() == "greenlet_context_switch":
        seen.append((side(backtrace()), registers(gdb.newest_frame().older())))
        gdb.execute("stepi", to_string=True)
    seen.append((side(backtrace()), registers(gdb.newest_frame())))
    # Two runs of equal entries: the leaving caller's registers, then the arriving caller's, which
    # by the last step are the processor's own.
    runs = 1 + sum(before != after for before, after in zip(seen, seen[1:], strict=False))
    if runs != 2 or seen[0][0] == seen[-1][0]:
        raise gdb.GdbError(f"not one change of side and registers: {seen}")
    return len(seen)


def step_through_call() -> int:
    """Step through a call: all the time, the caller is found with its registers."""
    steps = 0
    caller = gdb.newest_frame().older()
    name, saved = caller.name(), registers(caller)[:-1]  # without the place in the caller
    while (names := backtrace())[0] != name:
        if side(names) != "inside" or name not in names:
            raise gdb.GdbError(f"lost the caller: {names}")
        frame = gdb.newest_frame()
        while frame.name() != name:
            frame = frame.older()
        if registers(frame)[:-1] != saved:
            raise gdb.GdbError(f"not the caller's registers after {steps} steps: {names}")
        steps += 1
        gdb.execute("stepi", to_string=True)
    return steps


def run() -> None:
    """Look at the first few switches of the program."""
    gdb.execute("set pagination off")
    gdb.execute("set confirm off")
    gdb.execute("break greenlet_context_switch")
    start()
    steps = 0
    for _ in range(SWITCHES):
        steps += step_through_switch()
        gdb.execute("continue")
    gdb.execute("delete")
    gdb.execute("break greenlet_context_call")
    gdb.execute("continue")
    steps += step_through_call()
    print(f"every backtrace was right in {steps} steps")


try:
    run()
except Exception as error:
    print(f"FAILED: {error}")
    gdb.execute("kill")
    gdb.execute("quit 1")
gdb.execute("kill")
gdb.execute("quit 0")
