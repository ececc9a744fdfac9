"""Runs seen_greenlets.py under a profiler that is set up in Python; prints what it says, as JSON.

profiled.py yappi BACKEND       calls, seconds and callees of each function; how many contexts
profiled.py pyinstrument MODE   the stacks that were seen, with their seconds
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

PROGRAM = str(Path(__file__).with_name("seen_greenlets.py"))
tool, how = sys.argv[1:]
del sys.argv[1:]
found: dict[str, object] = {}
if tool == "yappi":
    import yappi

    yappi.set_context_backend(how)
    yappi.set_clock_type("cpu")
    yappi.start()
    runpy.run_path(PROGRAM, run_name="__main__")
    yappi.stop()
    contexts = yappi.get_greenlet_stats if how == "greenlet" else yappi.get_thread_stats
    found["contexts"] = len(list(contexts()))
    found["functions"] = {
        each.name: [each.ncall, each.ttot, [callee.name for callee in each.children]]
        for each in yappi.get_func_stats(filter_callback=lambda each: each.module == PROGRAM)
    }
else:
    import pyinstrument

    profiler = pyinstrument.Profiler(interval=0.001, async_mode=how)
    profiler.start()
    runpy.run_path(PROGRAM, run_name="__main__")
    for stack, seconds in profiler.stop().frame_records:
        key = " ".join(frame.split("\0")[0] for frame in stack if f"\0{PROGRAM}\0" in frame)
        found[key] = float(str(found.get(key, 0))) + seconds
print(json.dumps(found))
