"""Run programs one after another, in one process, and print what came of each.

    batch.py model SEED COUNT       on the model
    batch.py greenlet SEED COUNT    on whatever greenlet is installed
    batch.py greenlet --file FILE   programs from a file, and the history of the last one

For each seed: a line `SEED` when it begins, and `SEED STEPS DIGEST` when it has ended. The digest
is `-` where the history is not to be compared.
"""

from __future__ import annotations

import argparse
import ast
import contextvars
import faulthandler
import gc
import hashlib
import importlib
import os
import sys
from typing import Any

import machine
import programs

#: A program that takes longer hangs.
SECONDS = float(os.environ.get("FUZZ_PROGRAM_SECONDS", "30"))


def library(name: str) -> machine.Library:
    if name == "model":
        return machine.ModelLibrary(importlib.import_module("model"))
    return machine.Library(importlib.import_module("greenlet"), contextvars)


def digest(log: list[Any]) -> str:
    return hashlib.blake2b(repr(log).encode(), digest_size=12).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=["model", "greenlet"])
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("count", type=int, nargs="?", default=0)
    parser.add_argument("--file")
    parser.add_argument("--compared", action="store_true", help="leave out what is for ours alone")
    parser.add_argument("--calm", action="store_true", help="compare none with collections")
    options = parser.parse_args()
    sys.setrecursionlimit(20_000)
    gc.disable()  # collections happen where a program asks for them
    used = library(options.library)
    gc.collect()
    gc.freeze()
    if options.file:
        log: list[Any] = []
        with open(options.file) as file:
            for program in ast.literal_eval(file.read()):
                faulthandler.dump_traceback_later(SECONDS, exit=True)
                log, _ = machine.run(used, program)
        for entry in log:
            print(repr(entry), flush=True)
        faulthandler.cancel_dump_traceback_later()
        return
    for seed in range(options.seed, options.seed + options.count):
        program = programs.program(seed)
        if options.compared and ("simple",) not in program:
            print(seed, 0, "-", flush=True)
            continue
        print(seed, flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        log, steps = machine.run(used, program)
        # With free threading, most objects go away in the thread that made them, whenever it looks.
        # Before 3.14 the collector does not see all that a greenlet's frames refer to.
        compared = not (
            (machine.FREE_THREADED and ("start_thread",) in program)
            or ((sys.version_info < (3, 14) or options.calm) and ("collect",) in program)
        )
        print(seed, steps, digest(log) if compared else "-", flush=True)
    faulthandler.cancel_dump_traceback_later()
    exec("")  # a KeyboardInterrupt in exec() would be how the process ends, until the next exec()


if __name__ == "__main__":
    main()
