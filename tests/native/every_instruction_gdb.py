"""Run inside gdb: steps through switches one instruction at a time, with a backtrace at each.

At every instruction, whichever stack the processor is on by then, the backtrace must name the
functions of that side and end cleanly: at main, or at the outermost frame of a context.
"""

import gdb

SWITCHES = 4


def backtrace() -> list[str]:
    names = []
    frame = gdb.newest_frame()
    while frame is not None:
        names.append(frame.name() or "?")
        if frame.unwind_stop_reason() not in (
            gdb.FRAME_UNWIND_NO_REASON,
            gdb.FRAME_UNWIND_OUTERMOST,
        ):
            raise gdb.GdbError(
                f"{names}: {gdb.frame_stop_reason_string(frame.unwind_stop_reason())}"
            )
        if len(names) > 50:
            raise gdb.GdbError(f"endless: {names}")
        frame = frame.older()
    return names


def check(names: list[str]) -> str:
    """The side that `names` belong to: "inside" a context or "outside"."""
    if names[-1] == "greenlet_context_begin":
        # A context that begins is not yet in any function of ours.
        if len(names) > 2 and not any("inside" in name or "enter" in name for name in names):
            raise gdb.GdbError(f"lost inside: {names}")
        return "inside"
    if "main" in names and any("outside" in name for name in names):
        return "outside"
    raise gdb.GdbError(f"ends nowhere: {names}")


def run() -> None:
    gdb.execute("set pagination off")
    gdb.execute("set confirm off")
    gdb.execute("set backtrace past-main off")
    gdb.execute("break greenlet_context_switch")
    gdb.execute("run")
    steps = 0
    for _ in range(SWITCHES):
        sides = []
        while gdb.newest_frame().name() == "greenlet_context_switch":
            sides.append(check(backtrace()))
            gdb.execute("stepi", to_string=True)
            steps += 1
        sides.append(check(backtrace()))
        changes = sum(a != b for a, b in zip(sides, sides[1:], strict=False))
        if changes != 1:
            raise gdb.GdbError(f"a switch changes the stack once, not {changes} times: {sides}")
        gdb.execute("continue")
    if steps < 20 * SWITCHES:
        raise gdb.GdbError(f"only {steps} steps")
    print(f"every backtrace was right in {steps} steps")


try:
    run()
except Exception as error:
    print(f"FAILED: {error}")
    gdb.execute("kill")
    gdb.execute("quit 1")
gdb.execute("kill")
gdb.execute("quit 0")
